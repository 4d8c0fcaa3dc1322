-- Answers in JSON.

local cjson = require "cjson.safe"

local REASONS = {
    [400] = "bad request",
    [401] = "not authorized",
    [403] = "forbidden",
    [404] = "no such address",
    [405] = "method not allowed",
    [413] = "request too large",
    [414] = "address too long",
    [429] = "too many requests",
    [500] = "internal error",
    [502] = "service does not answer",
    [503] = "not available",
    [504] = "service does not answer in time",
}

local _M = {}

-- Sends `value` as the whole response.
function _M.send(value)
    local body = cjson.encode(value) .. "\n"
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Content-Length"] = #body
    ngx.print(body)
end

-- Ends the request with an error; `message` says more than the status does.
function _M.fail(status, message)
    ngx.status = status
    ngx.header["Cache-Control"] = "no-store"
    if status == 503 then
        ngx.header["Retry-After"] = 5
    end
    _M.send({ error = { status = status, reason = REASONS[status] or "error", message = message } })
    return ngx.exit(status)
end

return _M
