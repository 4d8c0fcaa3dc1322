-- GET /nodes: the nodes that are used, and how old the list is.

local cjson = require "cjson.safe"
local nodes = require "discovery.nodes"

local list = nodes.current()
ngx.say(cjson.encode({ nodes = list or cjson.empty_array, age_s = nodes.age_s() }))
