-- What this worker's VM uses of its limits (`lua_max_memory`, `lua_max_running_time`).

local ffi = require "ffi"
local native = require("terrace.base").native

local _M = {}

local usage = ffi.new("double[4]")

-- Bytes held and allowed (0: any number), allocations refused, runs that were ended because they took too long.
function _M.memory()
    native.vm_usage(usage)
    return { held = usage[0], max = usage[1], refused = usage[2], ended = usage[3] }
end

return _M
