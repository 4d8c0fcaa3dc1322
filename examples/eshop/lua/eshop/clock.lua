-- Microseconds on the monotonic clock. ngx.now() has milliseconds only, and those of the last event.

local ffi = require "ffi"

ffi.cdef [[
    typedef struct { long sec; long nsec; } eshop_timespec;
    int clock_gettime(int clock_id, eshop_timespec *time);
]]

local CLOCK_MONOTONIC = 1

local C = ffi.C
local time = ffi.new("eshop_timespec")

local _M = {}

-- Returns a number whose differences are microseconds.
function _M.now_us()
    C.clock_gettime(CLOCK_MONOTONIC, time)
    return tonumber(time.sec) * 1e6 + tonumber(time.nsec) / 1e3
end

return _M
