-- Kafka's wire format: big-endian integers, strings, message sets and record batches, and a reader of responses.

local bit = require "bit"
local ffi = require "ffi"

local band, bor, bxor, lshift, rshift, arshift = bit.band, bit.bor, bit.bxor, bit.lshift, bit.rshift, bit.arshift
local byte, char, sub = string.byte, string.char, string.sub
local concat, floor, setmetatable = table.concat, math.floor, setmetatable
local crc32 = ngx.crc32_long

local _M = {}

local function int16(n)
    return char(band(arshift(n, 8), 0xff), band(n, 0xff))
end

local function int32(n)
    return char(band(arshift(n, 24), 0xff), band(arshift(n, 16), 0xff), band(arshift(n, 8), 0xff), band(n, 0xff))
end

-- Of a number below 2^53, or a negative one above -2^31.
local function int64(n)
    if n < 0 then
        return "\255\255\255\255" .. int32(n)
    end
    local low = n % 4294967296
    return int32((n - low) / 4294967296) .. int32(low)
end

-- A string behind its length of two bytes; nil is a length of -1.
local function string16(text)
    if text == nil then
        return "\255\255"
    end
    return int16(#text) .. text
end

local function bytes32(text)
    if text == nil then
        return "\255\255\255\255"
    end
    return int32(#text) .. text
end

_M.int8, _M.int16, _M.int32, _M.int64 = char, int16, int32, int64
_M.string16, _M.bytes32 = string16, bytes32

-- A zigzag varint.
local function varint(n)
    n = n >= 0 and n * 2 or -n * 2 - 1
    if n < 128 then
        return char(n)
    end
    local out = {}
    while n >= 128 do
        local low = n % 128
        out[#out + 1] = char(low + 128)
        n = (n - low) / 128
    end
    out[#out + 1] = char(n)
    return concat(out)
end

local castagnoli = ffi.new("uint32_t[256]")
for i = 0, 255 do
    local value = i
    for _ = 1, 8 do
        value = bxor(rshift(value, 1), band(value, 1) == 1 and 0x82f63b78 or 0)
    end
    castagnoli[i] = value
end

local function crc32c(data)
    local crc = -1
    for i = 1, #data do
        crc = bxor(castagnoli[band(bxor(crc, byte(data, i)), 0xff)], rshift(crc, 8))
    end
    return bit.bnot(crc)
end

-- Messages of magic 0 or 1 (which has times): `queue` is { key, message, key, message, … } up to `last`. An empty key is none.
function _M.message_set(queue, last, magic, now_ms)
    local out, n = {}, 0
    local head = char(magic, 0) .. (magic == 1 and int64(now_ms) or "")
    for i = 1, last, 2 do
        local key = queue[i]
        local body = head .. bytes32(key ~= "" and key or nil) .. bytes32(queue[i + 1])
        out[n + 1] = int64((i - 1) / 2)
        out[n + 2] = int32(#body + 4)
        out[n + 3] = int32(crc32(body))
        out[n + 4] = body
        n = n + 4
    end
    return concat(out)
end

-- The same as one batch of magic 2.
function _M.record_batch(queue, last, now_ms)
    local count = last / 2
    local records, n = {}, 0
    for i = 1, last, 2 do
        local key, value = queue[i], queue[i + 1]
        local body = "\0\0" .. varint((i - 1) / 2) .. (key ~= "" and varint(#key) .. key or varint(-1)) .. varint(#value)
            .. value .. "\0"
        records[n + 1], records[n + 2] = varint(#body), body
        n = n + 2
    end
    -- Attributes, last offset's delta, both times, no producer's id, epoch or sequence.
    local tail = "\0\0" .. int32(count - 1) .. int64(now_ms) .. int64(now_ms) .. int64(-1) .. int16(-1) .. int32(-1)
        .. int32(count) .. concat(records)
    -- The leader's epoch, magic and checksum come ahead of what it covers.
    return int64(0) .. int32(#tail + 9) .. int32(-1) .. "\2" .. int32(crc32c(tail)) .. tail
end

local reader = {}
local reader_mt = { __index = reader }

-- A reader of a response. What is beyond its end reads as zeros and empty strings, and sets `is_short`.
function _M.reader(data)
    return setmetatable({ data = data, pos = 1, is_short = false }, reader_mt)
end

local function missing(self)
    self.is_short = true
    return 0
end

function reader.int8(self)
    local value = byte(self.data, self.pos)
    self.pos = self.pos + 1
    if not value then
        return missing(self)
    end
    return value < 128 and value or value - 256
end

function reader.int16(self)
    local a, b = byte(self.data, self.pos, self.pos + 1)
    self.pos = self.pos + 2
    if not b then
        return missing(self)
    end
    return a < 128 and a * 256 + b or a * 256 + b - 65536
end

function reader.int32(self)
    local a, b, c, d = byte(self.data, self.pos, self.pos + 3)
    self.pos = self.pos + 4
    if not d then
        return missing(self)
    end
    return bor(lshift(a, 24), lshift(b, 16), lshift(c, 8), d)
end

-- As a cdata integer.
function reader.int64(self)
    local high, low = self:int32(), self:int32()
    return high * 4294967296LL + low % 4294967296
end

function reader.string16(self)
    local length = self:int16()
    if length < 0 then
        return nil
    end
    local text = sub(self.data, self.pos, self.pos + length - 1)
    self.pos = self.pos + length
    if #text < length then
        self.is_short = true
    end
    return text
end

function reader.bytes32(self)
    local length = self:int32()
    if length < 0 then
        return nil
    end
    local text = sub(self.data, self.pos, self.pos + length - 1)
    self.pos = self.pos + length
    if #text < length then
        self.is_short = true
    end
    return text
end

-- How many items an array has; never more than the bytes that are left could hold.
function reader.count(self)
    local count = self:int32()
    local left = #self.data - self.pos + 1
    if count > left then
        self.is_short = true
        return floor(left)
    end
    return count > 0 and count or 0
end

return _M
