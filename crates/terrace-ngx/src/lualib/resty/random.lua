-- Random bytes, tokens and numbers from the operating system's source. "Strong" and "pseudo" bytes are the same here.

local digest = require "terrace.digest"
local resty_string = require "resty.string"

local byte = string.byte
local concat = table.concat
local floor = math.floor
local random_bytes = digest.random_bytes
local sub = string.sub
local to_hex = resty_string.to_hex
local type = type

local TOKEN_LENGTH_DEFAULT = 16
local TOKEN_LENGTH_MAX = 65536
local NUMBER_MAX_DEFAULT = 2147483647
-- Each try fails with a probability below one half.
local TRIES_MAX = 128
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

local _M = { _VERSION = "0.1.0" }


-- `length` random bytes, or nil. The second argument is either a flag (strong bytes) or the word "hex".
function _M.bytes(length, format)
    local bytes = random_bytes(length)
    if bytes and format == "hex" then
        return to_hex(bytes)
    end
    return bytes
end


-- A uniform integer from 0 to range - 1: values past the last whole multiple of the range are drawn again.
local function below(range)
    local bits_max = 9007199254740992
    local limit = bits_max - bits_max % range
    for _ = 1, TRIES_MAX do
        local bytes = random_bytes(7)
        if not bytes then
            return nil
        end
        local b1, b2, b3, b4, b5, b6, b7 = byte(bytes, 1, 7)
        local value = b1 % 32
        value = ((((((value * 256 + b2) * 256 + b3) * 256 + b4) * 256 + b5) * 256 + b6) * 256) + b7
        if value < limit then
            return value % range
        end
    end
    return nil
end


-- A random integer between min and max, both included; number(max) starts at 1, number() covers 0 to 2^31 - 1.
function _M.number(min, max)
    if not min then
        min, max = 0, NUMBER_MAX_DEFAULT
    elseif not max then
        min, max = 1, min
    end
    min, max = floor(min), floor(max)
    if max < min then
        return nil, "interval is empty"
    end
    local value = below(max - min + 1)
    if not value then
        return nil, "no randomness"
    end
    return min + value
end


-- A token of `length` characters drawn from `chars` (a string or a list of strings), joined with `separator`.
function _M.token(length, chars, separator)
    length = length or TOKEN_LENGTH_DEFAULT
    chars = chars or ALPHABET
    local choices = #chars
    if choices == 0 or type(length) ~= "number" or length < 0 or length > TOKEN_LENGTH_MAX then
        return nil, "bad argument"
    end
    local parts = {}
    for i = 1, length do
        local at = below(choices)
        if not at then
            return nil, "no randomness"
        end
        parts[i] = type(chars) == "table" and chars[at + 1] or sub(chars, at + 1, at + 1)
    end
    return concat(parts, separator)
end


return _M
