-- Limits how many requests a window of time has, counted in a shared dictionary. A window begins with its first request.

local assert, setmetatable = assert, setmetatable
local shared = ngx.shared

local _M = { _VERSION = "0.09" }
local mt = { __index = _M }

-- A limiter of `limit` requests in `window` seconds; or nil and an error.
function _M.new(dict_name, limit, window)
    local dict = shared[dict_name]
    if not dict then
        return nil, "shared dict not found"
    end
    assert(limit > 0 and window > 0)
    return setmetatable({ dict = dict, limit = limit, window = window }, mt)
end

-- 0 and how many the window still has; or nil and "rejected" or the dictionary's error. Only with `commit` does the
-- request count.
function _M.incoming(self, key, commit)
    local dict, limit = self.dict, self.limit
    local remaining, err
    if commit then
        remaining, err = dict:incr(key, -1, limit, self.window)
        if not remaining then
            return nil, err
        end
    else
        remaining = (dict:get(key) or limit) - 1
    end
    if remaining < 0 then
        return nil, "rejected"
    end
    return 0, remaining
end

-- Takes a request back that was counted. Answers how many the window still has.
function _M.uncommit(self, key)
    local remaining, err = self.dict:incr(key, 1)
    if not remaining then
        if err == "not found" then
            return self.limit
        end
        return nil, err
    end
    return remaining
end

return _M
