-- Redis, over connections that are kept.

local redis = require "resty.redis"
local settings = require("gateway.settings")

local at = settings.redis
local pool = { pool_size = at.connections_max, backlog = at.waiting_max }

local _M = {}

-- Runs one command. Returns its reply, ngx.null for no value, or nil and an error.
function _M.call(command, ...)
    local client = redis:new()
    client:set_timeouts(at.connect_timeout_ms, at.send_timeout_ms, at.read_timeout_ms)
    local ok, err = client:connect(at.host, at.port, pool)
    if not ok then
        return nil, "redis: " .. err
    end
    local reply
    reply, err = client[command](client, ...)
    if reply == nil then
        client:close()
        return nil, "redis: " .. err
    end
    client:set_keepalive(at.idle_timeout_ms, at.connections_max)
    if reply == false then
        return nil, "redis: " .. err
    end
    return reply
end

-- As `call` with `key` and `field`, but an answer holds for `seconds`. Returns a string or number, false for no value,
-- or nil and an error.
function _M.cached(seconds, command, key, field)
    local cache = ngx.shared.gateway_cache
    local name = command .. " " .. key .. " " .. field
    local value = cache:get(name)
    if value ~= nil then
        return value
    end
    local err
    value, err = _M.call(command, key, field)
    if value == nil then
        return nil, err
    end
    if value == ngx.null then
        value = false
    end
    local stored, failure = cache:set(name, value, seconds)
    if not stored then
        ngx.log(ngx.WARN, "gateway_cache does not take ", name, ": ", failure)
    end
    return value
end

return _M
