-- The module ngx.errlog: raw_log and get_sys_filter_level.

local native = require("terrace.base").native
local error, type = error, type

local _M = {}

-- Writes a line as it is, without the place of the caller.
function _M.raw_log(level, message)
    if type(level) ~= "number" or level < ngx.STDERR or level > ngx.DEBUG then
        error("bad log level", 2)
    elseif type(message) ~= "string" then
        error("bad argument #2 to 'raw_log' (must be a string)", 2)
    end
    native.log(level, message, #message)
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
