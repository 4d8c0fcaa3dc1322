-- The module ngx.errlog: lines of the error log, written and read.

local ffi = require "ffi"
local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local error, type = error, type

local LINES_DEFAULT = 10
local NOT_SET = "directive \"lua_capture_error_log\" is not set"

local level_of, time_of = ffi.new("int[1]"), ffi.new("double[1]")

local _M = {}

-- Writes a line as it is, without the place of the caller.
function _M.raw_log(level, message)
    if type(level) ~= "number" then
        error("bad argument #1 to 'raw_log' (must be a number)", 2)
    elseif level < ngx.STDERR or level > ngx.DEBUG then
        error("bad log level", 2)
    elseif type(message) ~= "string" then
        error("bad argument #2 to 'raw_log' (must be a string)", 2)
    end
    native.log(level, message, #message)
end

function _M.set_filter_level(level)
    if not level then
        return nil, "missing \"level\" argument"
    end
    local code = native.errlog_filter(level)
    if code == 0 then
        return true
    elseif code == base.NOT_FOUND then
        return nil, "bad log level: " .. level
    end
    return nil, NOT_SET
end

-- Takes at most `max` lines: level, time and text of each, one after the other.
function _M.get_logs(max, logs)
    max, logs = max or LINES_DEFAULT, logs or {}
    local count = 0
    for _ = 1, max do
        local code = native.errlog_take(level_of, time_of, text)
        if code == base.NOT_FOUND then
            break
        elseif code ~= 0 then
            return nil, NOT_SET
        end
        logs[count + 1], logs[count + 2], logs[count + 3] = level_of[0], time_of[0], take()
        count = count + 3
    end
    logs[count + 1] = nil
    return logs
end

-- The least severe level that error_log takes.
function _M.get_sys_filter_level()
    for level = ngx.DEBUG, ngx.STDERR, -1 do
        if native.log_enabled(level) ~= 0 then
            return level
        end
    end
    return ngx.STDERR
end

return _M
