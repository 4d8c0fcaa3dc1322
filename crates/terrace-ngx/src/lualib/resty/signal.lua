-- Sends signals to processes.

local ffi = require "ffi"

local C = ffi.C
local error, pcall, tonumber, type = error, pcall, tonumber, type

-- Another VM of this thread may have declared it.
pcall(ffi.cdef, "int kill(int pid, int sig);")
pcall(ffi.cdef, "char *strerror(int errnum);")

local numbers = {
    NONE = 0, HUP = 1, INT = 2, QUIT = 3, ILL = 4, TRAP = 5, ABRT = 6, BUS = 7, FPE = 8, KILL = 9, USR1 = 10, SEGV = 11,
    USR2 = 12, PIPE = 13, ALRM = 14, TERM = 15, CHLD = 17, CONT = 18, STOP = 19, TSTP = 20, TTIN = 21, TTOU = 22,
    URG = 23, XCPU = 24, XFSZ = 25, VTALRM = 26, PROF = 27, WINCH = 28, IO = 29, PWR = 30, SYS = 31,
}

local _M = { version = 0.03 }

-- The number of a signal's name; or nil and an error.
function _M.signum(name)
    local number = numbers[name]
    if not number then
        return nil, "unknown signal name: " .. name
    end
    return number
end

-- Sends a signal, by its name or number, to a process. True, or nil and an error.
function _M.kill(pid, signal)
    local number = signal
    if type(signal) == "string" then
        number = numbers[signal] or error("unknown signal name: " .. signal, 2)
    elseif type(signal) ~= "number" then
        error("bad signal arg type: " .. type(signal), 2)
    end
    if C.kill(tonumber(pid), number) == 0 then
        return true
    end
    return nil, ffi.string(C.strerror(ffi.errno()))
end

return _M
