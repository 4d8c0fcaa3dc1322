-- Limits the rate of requests by a leaky bucket in a shared dictionary, as limit_req does.
--
-- An entry is two numbers: the excess over the rate in thousandths of a request, and when it was last added to, in ms.

local ffi = require "ffi"

local ffi_cast, ffi_string = ffi.cast, ffi.string
local abs, max = math.abs, math.max
local assert, setmetatable, type = assert, setmetatable, type
local shared, now = ngx.shared, ngx.now

local record = ffi.typeof("struct { double excess; double last_ms; }")
local record_pointer = ffi.typeof("const $ *", record)
local record_bytes = ffi.sizeof(record)
local scratch = record()

local _M = { _VERSION = "0.09" }
local mt = { __index = _M }

-- A limiter of `rate` requests in a second, and `burst` above it that are delayed; or nil and an error.
function _M.new(dict_name, rate, burst)
    local dict = shared[dict_name]
    if not dict then
        return nil, "shared dict not found"
    end
    assert(rate > 0 and burst >= 0)
    return setmetatable({ dict = dict, rate = rate * 1000, burst = burst * 1000 }, mt)
end

-- Seconds to wait and the excess of requests in a second; or nil and "rejected" or the dictionary's error. Only with
-- `commit` does the request count.
function _M.incoming(self, key, commit)
    local dict, rate = self.dict, self.rate
    local now_ms = now() * 1000
    local text, err = dict:get(key)
    local excess = 0
    if text then
        if type(text) ~= "string" or #text ~= record_bytes then
            return nil, "shdict abused by other users"
        end
        local last = ffi_cast(record_pointer, text)
        excess = max(last.excess - rate * abs(now_ms - last.last_ms) / 1000 + 1000, 0)
        if excess > self.burst then
            return nil, "rejected"
        end
    elseif err then
        return nil, err
    end
    if commit then
        scratch.excess, scratch.last_ms = excess, now_ms
        local ok
        ok, err = dict:set(key, ffi_string(scratch, record_bytes))
        if not ok then
            return nil, err
        end
    end
    return excess / rate, excess / 1000
end

function _M.set_rate(self, rate)
    self.rate = rate * 1000
end

function _M.set_burst(self, burst)
    self.burst = burst * 1000
end

-- Takes a request back that was counted.
function _M.uncommit(self, key)
    local text, err = self.dict:get(key)
    if not text then
        return nil, err or "not found"
    elseif type(text) ~= "string" or #text ~= record_bytes then
        return nil, "shdict abused by other users"
    end
    local last = ffi_cast(record_pointer, text)
    scratch.excess, scratch.last_ms = max(last.excess - 1000, 0), last.last_ms
    return self.dict:set(key, ffi_string(scratch, record_bytes))
end

return _M
