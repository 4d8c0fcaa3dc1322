-- GET /status: how many records were taken, dropped for want of room, and lost on the way.

local cjson = require "cjson.safe"

local counts = ngx.shared.access_log_counts

ngx.say(cjson.encode({
    taken = counts:get("taken") or 0,
    dropped = counts:get("dropped") or 0,
    lost = counts:get("lost") or 0,
}))
