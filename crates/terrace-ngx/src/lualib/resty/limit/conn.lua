-- Limits how many requests run at the same time, counted in a shared dictionary.

local floor = math.floor
local assert, setmetatable = assert, setmetatable
local shared = ngx.shared

local _M = { _VERSION = "0.09" }
local mt = { __index = _M }

-- A limiter of `max` requests at a time and `burst` more that are delayed by multiples of `default_conn_delay` seconds,
-- which then follows what `leaving` tells of requests' times; or nil and an error.
function _M.new(dict_name, max, burst, default_conn_delay)
    local dict = shared[dict_name]
    if not dict then
        return nil, "shared dict not found"
    end
    assert(max > 0 and burst >= 0 and default_conn_delay > 0)
    return setmetatable({ dict = dict, max = max + 0, burst = burst, unit_delay = default_conn_delay }, mt)
end

-- Seconds to wait and how many run; or nil and "rejected" or the dictionary's error. With `commit` the request counts
-- until `leaving`.
function _M.incoming(self, key, commit)
    local dict, max = self.dict, self.max
    self.committed = false
    local count, err
    if commit then
        count, err = dict:incr(key, 1, 0)
        if not count then
            return nil, err
        elseif count > max + self.burst then
            count, err = dict:incr(key, -1)
            if not count then
                return nil, err
            end
            return nil, "rejected"
        end
        self.committed = true
    else
        count = (dict:get(key) or 0) + 1
        if count > max + self.burst then
            return nil, "rejected"
        end
    end
    if count > max then
        return self.unit_delay * floor((count - 1) / max), count
    end
    return 0, count
end

-- Whether the last `incoming` counted the request.
function _M.is_committed(self)
    return self.committed
end

-- The request is over. `latency` is what it took in seconds, without the delay. Answers how many still run.
function _M.leaving(self, key, latency)
    local count, err = self.dict:incr(key, -1)
    if not count then
        return nil, err
    end
    if latency then
        self.unit_delay = (latency + self.unit_delay) / 2
    end
    return count
end

-- Takes a request back that was counted.
function _M.uncommit(self, key)
    return self.dict:incr(key, -1)
end

function _M.set_conn(self, max)
    self.max = max
end

function _M.set_burst(self, burst)
    self.burst = burst
end

return _M
