-- How often somebody may call.

local limit_count = require "resty.limit.count"
local limit_req = require "resty.limit.req"
local settings = require "gateway.settings"

local DICTIONARY = "gateway_limits"

local by_address = assert(limit_req.new(DICTIONARY, settings.address_rate, settings.address_burst))
local by_key = assert(limit_count.new(DICTIONARY, settings.key_quota, settings.key_window_s))

local _M = {}

-- A limiter that fails lets the request pass: it protects the services, it does not guard them.
local function is_rejected(err)
    if err ~= "rejected" then
        ngx.log(ngx.ERR, DICTIONARY, ": ", err)
        return false
    end
    return true
end

-- Whether an address may call now. The burst is not delayed.
function _M.address_may_call(address)
    local delay, err = by_address:incoming("address " .. address, true)
    return delay ~= nil or not is_rejected(err)
end

-- Whether a key has calls left; tells the caller how many.
function _M.key_may_call(key)
    local delay, rest = by_key:incoming("key " .. key, true)
    local may_call = delay ~= nil or not is_rejected(rest)
    ngx.header["X-RateLimit-Limit"] = settings.key_quota
    ngx.header["X-RateLimit-Remaining"] = delay and rest or 0
    return may_call
end

return _M
