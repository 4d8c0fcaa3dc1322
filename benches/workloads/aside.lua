-- How a script uses Redis as a cache: get; on a miss ask the source at the same address, and set.

local redis = require("resty.redis"):new()
redis:set_timeouts(1000, 1000, 1000)
assert(redis:connect("127.0.0.1", ngx.var.redis_port))

local key, level = ngx.var.request_uri, "L2"
local value = assert(redis:get(key))
if value == ngx.null then
    local answer = assert(require("resty.http").new():request_uri(ngx.var.source .. key))
    value, level = answer.body, "source"
    assert(redis:set(key, value))
end
assert(redis:set_keepalive(60000, 64))

ngx.header["X-Cache-Level"] = level
ngx.print(value)
