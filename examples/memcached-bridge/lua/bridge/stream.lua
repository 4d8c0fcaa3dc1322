-- The response: a line of JSON for each message, sent at once. The light threads of a request share it.

local cjson = require "cjson.safe"

local _M = {}
local mt = { __index = _M }

function _M.new(limit, wait_s)
    return setmetatable({
        left = limit, wait_s = wait_s, last = ngx.now(), is_open = false, is_over = false,
    }, mt)
end

-- Sends the response's head, once.
function _M.open(self)
    if not self.is_open then
        self.is_open = true
        ngx.header["Content-Type"] = "application/x-ndjson"
        ngx.header["Cache-Control"] = "no-store"
        ngx.header["X-Accel-Buffering"] = "no"
        ngx.send_headers()
        ngx.flush(true)
    end
end

-- Sends a line and waits until the client has room for more.
local function line(self, ...)
    self:open()
    local ok, err = ngx.print(...)
    if ok then
        ok, err = ngx.flush(true)
    end
    if not ok then
        ngx.log(ngx.NOTICE, "the client does not take more: ", err)
        self.is_over = true
    end
end

-- Message `number` of a backend.
function _M.push(self, backend, number, json)
    if self:has_ended() then
        return
    end
    self.left = self.left - 1
    self.last = ngx.now()
    line(self, '{"backend":', backend, ',"n":', number, ',"message":', json, "}\n")
end

-- Tells that a backend will send no more, or that a message of it cannot be had.
function _M.push_error(self, backend, number, err)
    line(self, cjson.encode({ backend = backend, n = number, error = err }), "\n")
end

-- Whether the limit is reached, or no message came for too long, or the client or this worker goes.
function _M.has_ended(self)
    return self.is_over or self.left <= 0 or ngx.now() - self.last >= self.wait_s or ngx.worker.exiting()
end

return _M
