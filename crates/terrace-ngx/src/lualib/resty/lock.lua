-- A lock on a key, shared by all workers through a shared dictionary. Waiting sleeps in growing steps.
--
-- The dictionary entry holds a value that is unique to the holder, so that an object whose lock ran out never removes
-- the entry of the next holder. An object that is collected while it holds a lock releases it.

local ffi = require "ffi"

local ffi_gc = ffi.gc
local ffi_new = ffi.new
local max = math.max
local min = math.min
local ngx_now = ngx.now
local ngx_sleep = ngx.sleep
local setmetatable = setmetatable
local shared = ngx.shared
local tostring = tostring
local type = type

local EXPTIME_S_DEFAULT = 30
local TIMEOUT_S_DEFAULT = 5
local STEP_S_DEFAULT = 0.001
local STEP_S_MIN = 0.001
local RATIO_DEFAULT = 2
local MAX_STEP_S_DEFAULT = 0.5
local KEY_BYTES_MAX = 65535

local _M = { _VERSION = "0.1.0" }
local mt = { __index = _M }

-- The table's address tells this VM from all others that live now, the time from those that lived before.
local vm_mark = tostring({}) .. ":" .. tostring(ngx_now())
local tickets = 0


local function next_ticket()
    tickets = tickets + 1
    return vm_mark .. ":" .. tickets
end


-- Removes the entry of a held lock if it is still the holder's. Returns true, or nil and an error.
local function release(held)
    local dict, key, ticket = held.dict, held.key, held.ticket
    held.key, held.ticket = nil, nil
    local value, err = dict:get(key)
    if value == ticket then
        return dict:delete(key)
    end
    if value == nil and err then
        return nil, err
    end
    return true
end


local function number_option(opts, name, default)
    local value = opts and opts[name]
    if type(value) ~= "number" then
        return default
    end
    return value
end


-- A lock object over the named shared dictionary, or nil and an error. Options, in seconds: exptime (30) is the
-- longest that a lock is held, timeout (5, at most exptime; 0: do not wait) the longest wait, step (0.001) the first
-- sleep, which grows by ratio (2) up to max_step (0.5).
function _M.new(_, dict_name, opts)
    local dict = shared[dict_name]
    if not dict then
        return nil, "dictionary not found"
    end
    local exptime = number_option(opts, "exptime", EXPTIME_S_DEFAULT)
    local timeout = number_option(opts, "timeout", TIMEOUT_S_DEFAULT)
    if exptime > 0 and timeout > exptime then
        timeout = exptime
    end
    local held = { dict = dict }
    local guard = ffi_gc(ffi_new("char[1]"), function()
        if held.key then
            release(held)
        end
    end)
    return setmetatable({
        held = held,
        guard = guard,
        exptime = exptime,
        timeout = timeout,
        step = number_option(opts, "step", STEP_S_DEFAULT),
        ratio = number_option(opts, "ratio", RATIO_DEFAULT),
        max_step = max(number_option(opts, "max_step", MAX_STEP_S_DEFAULT), STEP_S_MIN),
    }, mt)
end


-- One try to become the holder: true, false when another holds the key, or nil and an error.
local function try(self, key, ticket)
    local held = self.held
    local ok, err = held.dict:add(key, ticket, self.exptime)
    if ok then
        held.key, held.ticket = key, ticket
        return true
    end
    if err ~= "exists" then
        return nil, err
    end
    return false
end


-- Takes the lock on a key. Returns the seconds slept (0 when the lock was free), or nil and "timeout", "locked" (this
-- object holds a lock already) or the dictionary's error.
function _M.lock(self, key)
    if self.held.key then
        return nil, "locked"
    end
    if key == nil then
        return nil, "key not provided"
    end
    key = tostring(key)
    if #key > KEY_BYTES_MAX then
        return nil, "key too long"
    end
    local ticket = next_ticket()
    local got, err = try(self, key, ticket)
    local elapsed, left, step = 0, self.timeout, self.step
    while got == false and left > 0 do
        step = min(max(step, STEP_S_MIN), self.max_step, left)
        ngx_sleep(step)
        elapsed = elapsed + step
        left = left - step
        got, err = try(self, key, ticket)
        step = step * self.ratio
    end
    if got then
        return elapsed
    end
    return nil, err ~= "exists" and err or "timeout"
end


-- Gives the lock up. Returns 1, or nil and "unlocked" (nothing is held) or the dictionary's error.
function _M.unlock(self)
    if not self.held.key then
        return nil, "unlocked"
    end
    local ok, err = release(self.held)
    if not ok then
        return nil, err
    end
    return 1
end


-- Lets the held lock last `exptime` seconds from now (default: the exptime of new). Returns true, or nil and
-- "unlocked", "not found" (it ran out, or another holds it) or the dictionary's error.
function _M.expire(self, exptime)
    local held = self.held
    if not held.key then
        return nil, "unlocked"
    end
    local value, err = held.dict:get(held.key)
    if value ~= held.ticket then
        return nil, value == nil and err or "not found"
    end
    local ok, expire_err = held.dict:expire(held.key, exptime or self.exptime)
    if not ok then
        return nil, expire_err
    end
    return true
end


return _M
