-- ngx.sleep.

local base = require "terrace.base"

local native, await = base.native, base.await
local error, tonumber, type = error, tonumber, type

function ngx.sleep(seconds)
    local n = tonumber(seconds)
    if not n then
        error("bad argument #1 to 'sleep' (number expected, got " .. type(seconds) .. ")", 2)
    end
    if native.sleep(n) ~= 1 then
        error("invalid sleep duration \"" .. n .. "\"", 2)
    end
    return await()
end
