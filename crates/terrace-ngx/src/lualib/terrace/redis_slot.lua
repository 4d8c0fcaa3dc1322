-- The hash slot of a key in a Redis cluster: CRC16 (XMODEM: polynomial 0x1021, start 0) modulo 16384, of the key's hash
-- tag if it has one.

local bit = require "bit"
local ffi = require "ffi"

local band, bxor, lshift, rshift = bit.band, bit.bxor, bit.lshift, bit.rshift
local byte, find = string.byte, string.find

local SLOTS = 16384

local rows = ffi.new("uint16_t[256]")
for i = 0, 255 do
    local crc = lshift(i, 8)
    for _ = 1, 8 do
        crc = lshift(crc, 1)
        if band(crc, 0x10000) ~= 0 then
            crc = bxor(crc, 0x11021)
        end
    end
    rows[i] = crc
end

local _M = { SLOTS = SLOTS }

local function crc16(text, from, to)
    local crc = 0
    for i = from, to do
        crc = bxor(band(lshift(crc, 8), 0xffff), rows[bxor(rshift(crc, 8), byte(text, i))])
    end
    return crc
end

-- CRC16 of a whole string.
function _M.crc16(text)
    return crc16(text, 1, #text)
end

-- The slot, 0 to 16383. A hash tag is what stands between the first `{` and the next `}`, unless that is nothing.
function _M.of(key)
    local from, to = 1, #key
    local open = find(key, "{", 1, true)
    if open then
        local close = find(key, "}", open + 1, true)
        if close and close > open + 1 then
            from, to = open + 1, close - 1
        end
    end
    return band(crc16(key, from, to), SLOTS - 1)
end

return _M
