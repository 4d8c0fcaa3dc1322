-- The module zlib with the interface of lua-zlib: functions that are streams.

local bit = require "bit"
local ffi = require "ffi"
local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local error, setmetatable, tonumber, tostring, type = error, setmetatable, tonumber, tostring, type
local ffi_gc, ffi_new = ffi.gc, ffi.new

local LEVEL_DEFAULT = -1
local WINDOW_BITS_MAX = 15
-- Lets inflate find out whether it has gzip or zlib before it.
local EITHER = 32
local DONE, ENDED, FAILED = 0, 2, base.FAILED

-- zlib's numbers for what a stream is to do with what it holds back.
local flushes = { none = 0, sync = 2, full = 3, finish = 4 }

local _M = {
    _VERSION = "lua-zlib 1.2",
    _DESCRIPTION = "Streams of compressed data",
    NO_COMPRESSION = 0, BEST_SPEED = 1, BEST_COMPRESSION = 9, DEFAULT_COMPRESSION = -1,
}

local function bad_argument(position, name, what)
    error("bad argument #" .. position .. " to '" .. name .. "' (" .. what .. ")", 3)
end

local function number_argument(value, default, position, name)
    if value == nil then
        return default
    end
    return tonumber(value) or bad_argument(position, name, "number expected, got " .. type(value))
end

local totals = ffi_new("double[2]")

-- A stream as a function: `stream(input, flush)` answers output, whether that was the end, and the sums of bytes in and out.
local function stream(handle, name)
    if handle == nil then
        error("InvalidInput: the level or the window size is out of range", 3)
    end
    handle = ffi_gc(handle, native.zlib_free)
    local is_over, taken, made = false, 0, 0
    return function(input, flush)
        if type(input) == "number" then
            input = tostring(input)
        elseif input ~= nil and type(input) ~= "string" then
            bad_argument(1, "?", "string expected, got " .. type(input))
        end
        if is_over then
            if input == nil or input == "" then
                return "", true, taken, made
            end
            error("IllegalState: calling " .. name .. " function when stream was previously closed", 2)
        end
        local how = input == nil and 4 or (name == "inflate" and 2) or flushes[flush or "none"]
        if not how then
            bad_argument(2, "?", "invalid option '" .. tostring(flush) .. "'")
        end
        input = input or ""
        local code = native.zlib_run(handle, input, #input, how, totals, text)
        if code ~= DONE and code ~= ENDED then
            error(code == FAILED and take() or "InternalError: no stream", 2)
        end
        is_over, taken, made = code == ENDED, totals[0], totals[1]
        return take(), is_over, taken, made
    end
end

-- `level` 0 to 9; `window_bits` 8 to 15, negative for raw data, 16 more for gzip.
function _M.deflate(level, window_bits)
    return stream(native.zlib_deflate(number_argument(level, LEVEL_DEFAULT, 1, "deflate"),
        number_argument(window_bits, WINDOW_BITS_MAX, 2, "deflate")), "deflate")
end

-- Without `window_bits`, or with 0, gzip and zlib are told apart by their first byte.
function _M.inflate(window_bits)
    local bits = number_argument(window_bits, WINDOW_BITS_MAX + EITHER, 1, "inflate")
    if bits == 0 then
        bits = WINDOW_BITS_MAX + EITHER
    end
    return stream(native.zlib_inflate(bits), "inflate")
end

-- Checksum functions tell each other their state through this: function -> { value, count of bytes }.
local states = setmetatable({}, { __mode = "k" })

-- Multiplies a matrix over GF(2), given as 32 columns, with a vector.
local function times(matrix, vector)
    local sum, at = 0, 1
    while vector ~= 0 do
        if vector % 2 == 1 then
            sum = bit.bxor(sum, matrix[at])
        end
        vector = (vector - vector % 2) / 2
        at = at + 1
    end
    return sum % 4294967296
end

local function squared(matrix)
    local square = {}
    for i = 1, 32 do
        square[i] = times(matrix, matrix[i])
    end
    return square
end

-- The CRC of two strings one after the other: that of the first is shifted by the second's length in zeros.
local function combine_crc32(first, second, length)
    local matrix = { 0xedb88320 }
    for i = 0, 30 do
        matrix[i + 2] = 2 ^ i
    end
    -- One zero bit, made four; each further squaring doubles, so the first power in use is eight bits.
    matrix = squared(squared(matrix))
    while length > 0 do
        matrix = squared(matrix)
        if length % 2 == 1 then
            first = times(matrix, first)
        end
        length = (length - length % 2) / 2
    end
    return bit.bxor(first, second) % 4294967296
end

local ADLER_BASE = 65521

local function combine_adler32(first, second, length)
    local a1, a2 = first % 65536, second % 65536
    local b1, b2 = (first - a1) / 65536, (second - a2) / 65536
    local a = (a1 + a2 - 1) % ADLER_BASE
    local b = (b1 + b2 + (length % ADLER_BASE) * (a1 - 1)) % ADLER_BASE
    return b * 65536 + a
end

local function checksum(start, update, combine)
    return function(first, ...)
        -- Called as lzlib has it, with a value and more data, it is a plain function.
        if type(first) == "number" then
            local data = ...
            return update(first, data, #data)
        end
        local state = { start, 0, combine }
        local function compute(input)
            local other = states[input]
            if other and other[3] == combine then
                state[1] = combine(state[1], other[1], other[2])
                state[2] = state[2] + other[2]
            elseif type(input) == "function" then
                error("bad argument #1 to '?' (expected the result of the same checksum)", 2)
            elseif input ~= nil then
                input = tostring(input)
                state[1] = update(state[1], input, #input)
                state[2] = state[2] + #input
            end
            return state[1]
        end
        states[compute] = state
        return compute
    end
end

-- `crc32()(data)` is the checksum; each function goes on from what it had, and takes another one's as data.
_M.crc32 = checksum(0, function(...) return native.zlib_crc32(...) end, combine_crc32)
_M.adler32 = checksum(1, function(...) return native.zlib_adler32(...) end, combine_adler32)

-- What lzlib has: a whole string at once.
function _M.compress(data, level, _, window_bits)
    return (_M.deflate(level, window_bits)(data, "finish"))
end

function _M.decompress(data, window_bits)
    return (_M.inflate(window_bits)(data))
end

-- The interface's level: major, minor, patch.
function _M.version()
    return 1, 3, 1
end

return _M
