-- What every request has to pass: the limit of its address, the signature, the quota of its key.

local answer = require "gateway.answer"
local caller = require "gateway.caller"
local limits = require "gateway.limits"

if not limits.address_may_call(ngx.var.remote_addr) then
    return answer.fail(429, "too many requests from your address")
end

local key, status, message = caller.identify()
if not key then
    return answer.fail(status, message)
end

if not limits.key_may_call(key) then
    return answer.fail(429, "the quota of your key is used up")
end
