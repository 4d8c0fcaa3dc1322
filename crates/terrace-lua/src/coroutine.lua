-- Cooperating coroutines and the scheduler's Lua side (module "terrace.sched").
--
-- A host yield carries HOST as its first value. It passes through every user coroutine on its way up to the
-- scheduler, and the scheduler's answer travels back down the same way. A user's own yield stops at the user's
-- resume, at the price of one comparison.

local HOST, AWAIT, SPAWN, WAIT, KILL, EXIT, DEPTH_MAX, AWAIT_IDLE = ...

local coroutine = coroutine
local create, yield, running = coroutine.create, coroutine.yield, coroutine.running
local raw_resume, raw_status = coroutine.resume, coroutine.status
local error, select, setmetatable, type = error, select, setmetatable, type
local yielded = require "terrace.yielded"

-- Coroutines that the user must not resume: LIGHT is a light thread, GONE one that was waited for or killed,
-- HELD a user coroutine with a host yield on its way.
local LIGHT, GONE, HELD = 1, 2, 3
local managed = setmetatable({}, { __mode = "k" })
local parents = setmetatable({}, { __mode = "kv" })

-- For tracebacks: which coroutine failed inside `coroutine.wrap` under the key, and with what error.
local failed = setmetatable({}, { __mode = "kv" })
local failed_errors = setmetatable({}, { __mode = "kv" })

-- How many user coroutines are nested around the running code; each takes some of the C stack.
local depth = 0

local function status(co)
    local kind = managed[co]
    if kind == nil then
        return raw_status(co)
    end
    if kind == GONE then
        return "dead"
    end
    local raw = raw_status(co)
    if raw == "suspended" and yielded(co) then
        return "running"
    end
    -- An ended thread whose results still lie on its stack looks suspended to Lua.
    if raw == "suspended" or raw == "dead" then
        return "zombie"
    end
    return raw
end

local function continue(level, co, ...)
    managed[co] = nil
    depth = level + 1
    return raw_resume(co, ...)
end

local settle

local function deliver(level, co, ok, first, ...)
    if first == HOST and ok then
        managed[co] = HELD
        return settle(level, co, continue(level, co, yield(HOST, ...)))
    end
    return ok, first, ...
end

-- `deliver` always returns a second value, so a lone `true` must not go through it.
function settle(level, co, ...)
    depth = level
    if select("#", ...) == 1 then
        return ...
    end
    return deliver(level, co, ...)
end

local function resume(co, ...)
    if type(co) ~= "thread" then
        return raw_resume(co, ...)
    end
    if managed[co] then
        return false, "cannot resume " .. status(co) .. " coroutine"
    end
    local level = depth
    if level >= DEPTH_MAX then
        return false, "C stack overflow"
    end
    depth = level + 1
    return settle(level, co, raw_resume(co, ...))
end

local function unwrap(co, ok, ...)
    if ok then
        return ...
    end
    local err = ...
    local outer = running()
    if outer then
        failed[outer], failed_errors[outer] = co, err
    end
    return error(err, 0)
end

coroutine.resume = resume
coroutine.status = status

function coroutine.wrap(f)
    local co = create(f)
    return function(...)
        return unwrap(co, resume(co, ...))
    end
end

local sched = { AWAIT = AWAIT, SPAWN = SPAWN, WAIT = WAIT, KILL = KILL, EXIT = EXIT }

function sched.host_yield(...)
    return yield(HOST, ...)
end

-- Waits for the operation that the host has just recorded; returns its values.
function sched.await()
    return yield(HOST, AWAIT)
end

-- As `await`, but the run ends without this light thread if nothing else is left to do.
function sched.await_idle()
    return yield(HOST, AWAIT_IDLE)
end

-- Ends the whole run with a code that means something to the host. Never returns.
function sched.exit(code)
    return yield(HOST, EXIT, code)
end

local function expect_thread(co, position, name)
    if type(co) ~= "thread" then
        error("bad argument #" .. position .. " to '" .. name .. "' (lua thread expected)", 3)
    end
end

function sched.spawn(f, ...)
    if type(f) ~= "function" then
        error("bad argument #1 to 'spawn' (Lua function expected)", 2)
    end
    local co = create(f)
    managed[co] = LIGHT
    parents[co] = running()
    return yield(HOST, SPAWN, co, ...)
end

local function waited(co, ...)
    if co then
        managed[co] = GONE
    end
    return ...
end

function sched.wait(...)
    local count, gone, me = select("#", ...), 0, running()
    if count == 0 then
        error("at least one coroutine should be specified", 2)
    end
    for i = 1, count do
        local co = select(i, ...)
        expect_thread(co, i, "wait")
        local kind = managed[co]
        if kind ~= LIGHT and kind ~= GONE then
            error("attempt to wait on a coroutine that is not a user thread", 2)
        end
        if parents[co] ~= me then
            error("only the parent coroutine can wait on the thread", 2)
        end
        if kind == GONE then
            gone = gone + 1
        end
    end
    if gone == count then
        return nil, "already waited or killed"
    end
    return waited(yield(HOST, WAIT, ...))
end

function sched.kill(co)
    expect_thread(co, 1, "kill")
    local kind = managed[co]
    if kind ~= LIGHT and kind ~= GONE then
        return nil, "not user thread"
    end
    if parents[co] ~= running() then
        return nil, "killer not parent"
    end
    if kind == GONE then
        return nil, "already waited or killed"
    end
    local ended = status(co) == "zombie"
    yield(HOST, KILL, co)
    managed[co] = GONE
    if ended then
        return nil, "already terminated"
    end
    return 1
end

package.loaded["terrace.sched"] = sched
return failed, failed_errors
