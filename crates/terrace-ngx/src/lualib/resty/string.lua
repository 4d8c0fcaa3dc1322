-- String helpers that go with the digest modules: binary to hexadecimal and text to number.

local ffi = require "ffi"

local byte = string.byte
local ffi_new = ffi.new
local ffi_string = ffi.string
local find = string.find
local tonumber = tonumber

-- Integers above this are not exact in a Lua number.
local INTEGER_MAX = 9007199254740992
-- Inputs up to this length share one output buffer.
local SHARED_INPUT_BYTES_MAX = 256

local _M = { _VERSION = "0.1.0" }

local digits = ffi_new("const char[17]", "0123456789abcdef")
local shared = ffi_new("char[?]", SHARED_INPUT_BYTES_MAX * 2)


-- The lower-case hexadecimal form of a string.
function _M.to_hex(s)
    local length = #s
    local out = shared
    if length > SHARED_INPUT_BYTES_MAX then
        out = ffi_new("char[?]", length * 2)
    end
    for i = 1, length do
        local value = byte(s, i)
        local low = value % 16
        out[i * 2 - 2] = digits[(value - low) / 16]
        out[i * 2 - 1] = digits[low]
    end
    return ffi_string(out, length * 2)
end


-- The number that a string of decimal digits spells, or -1 for anything else (empty and too large included).
function _M.atoi(s)
    if not find(s, "^%d+$") then
        return -1
    end
    local value = tonumber(s)
    if value > INTEGER_MAX then
        return -1
    end
    return value
end


return _M
