-- ngx.timer. The functions and arguments of timers that wait are kept here, by number.

local base = require "terrace.base"

local native, refuse = base.native, base.refuse
local error, select, tonumber, type, unpack = error, select, tonumber, type, unpack
local getinfo = debug.getinfo

local ALERT = 2

local calls, last_id = {}, 0

local failures = { [-2] = "process exiting", [-3] = "too many pending timers" }

local function create(name, every, count, delay, f, ...)
    if count < 2 then
        error("expecting at least 2 arguments but got " .. count, 3)
    end
    local seconds = tonumber(delay)
    if not seconds then
        error("bad argument #1 to '" .. name .. "' (number expected, got " .. type(delay) .. ")", 3)
    end
    if every == 1 and seconds * 1000 < 1 then
        error("delay cannot be zero", 3)
    end
    if type(f) ~= "function" or getinfo(f, "S").what == "C" then
        error("bad argument #2 to '" .. name .. "' (Lua function expected)", 3)
    end
    local id = last_id + 1
    local code = native.timer_at(seconds, id, every)
    if code == 0 then
        last_id = id
        calls[id] = { n = count - 1, f, ... }
        return 1
    elseif failures[code] then
        return nil, failures[code]
    end
    refuse(code, 2)
end

ngx.timer = {}

function ngx.timer.at(...)
    return create("at", 0, select("#", ...), ...)
end

function ngx.timer.every(...)
    return create("every", 1, select("#", ...), ...)
end

function ngx.timer.running_count()
    local count = native.timers_running()
    return count >= 0 and count or error("no request", 2)
end

function ngx.timer.pending_count()
    local count = native.timers_pending()
    return count >= 0 and count or error("no request", 2)
end

local _M = {}

-- Runs a timer's function, unless there is a problem; after the last run it is forgotten.
function _M.fire(id, premature, last, problem)
    local call = calls[id]
    if last then
        calls[id] = nil
    end
    local f = call[1]
    if problem then
        local info = getinfo(f, "S")
        local line = "lua failed to run timer with function defined at " .. info.source .. ":" .. info.linedefined
            .. ": " .. problem
        native.log(ALERT, line, #line)
        return
    end
    if call.n == 1 then
        return f(premature)
    end
    return f(premature, unpack(call, 2, call.n))
end

return _M
