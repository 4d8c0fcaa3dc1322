-- GET /status: how many streams there are.

local cjson = require "cjson.safe"

ngx.say(cjson.encode({ streams = ngx.shared.bridge_streams:get("streams") or 0 }))
