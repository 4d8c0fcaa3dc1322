-- ngx.thread: light threads, which the scheduler runs. And the module ngx.semaphore, on which they wait for each other.

local ffi = require "ffi"
local base = require "terrace.base"
local sched = require "terrace.sched"

local native, await, refuse = base.native, base.await, base.refuse
local ffi_gc = ffi.gc
local error, setmetatable, tonumber, type = error, setmetatable, tonumber, type

ngx.thread = { spawn = sched.spawn, wait = sched.wait, kill = sched.kill }

local function watch(callback)
    native.abort_wait()
    sched.await_idle()
    return callback()
end

-- Lets a light thread call `callback` when the client leaves.
function ngx.on_abort(callback)
    if type(callback) ~= "function" then
        error("bad argument #1 to 'on_abort' (Lua function expected)", 2)
    end
    local code = native.abort_register()
    if code == 0 then
        sched.spawn(watch, callback)
        return 1
    elseif code == -2 then
        return nil, "duplicate call"
    elseif code == -3 then
        return nil, "lua_check_client_abort is off"
    end
    refuse(code)
end

local semaphore = { version = "0.1.0" }
local semaphore_mt = { __index = semaphore }

local function check(self)
    if type(self) ~= "table" or type(self.sem) ~= "cdata" then
        error("not a semaphore instance", 3)
    end
    return self.sem
end

function semaphore.new(n)
    n = tonumber(n) or 0
    if n < 0 then
        error("no negative number", 2)
    end
    return setmetatable({ sem = ffi_gc(native.semaphore_new(n), native.semaphore_free) }, semaphore_mt)
end

function semaphore.wait(self, seconds)
    local sem = check(self)
    seconds = tonumber(seconds)
    if not seconds then
        error("bad argument #1 to 'wait' (number expected)", 2)
    elseif seconds < 0 then
        error("no negative number", 2)
    end
    local code = native.semaphore_wait(sem, seconds * 1000)
    if code == 0 then
        return true
    elseif code == 1 then
        return await()
    elseif code == -1 then
        return nil, "timeout"
    end
    refuse(code)
end

function semaphore.post(self, n)
    local sem = check(self)
    n = n and tonumber(n) or 1
    if n < 1 then
        error("positive number required", 2)
    end
    native.semaphore_post(sem, n)
    return true
end

function semaphore.count(self)
    return native.semaphore_count(check(self))
end

package.loaded["ngx.semaphore"] = semaphore
