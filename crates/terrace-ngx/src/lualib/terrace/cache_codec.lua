-- How the tiered caches keep the values of scripts: strings as they are, everything else behind a tag.

local cjson = require "cjson.safe"

local byte, sub = string.byte, string.sub
local tonumber, type = tonumber, type

-- A value that is no string begins with these two bytes and a letter; a string that begins with them is tagged too.
local TAG = "\0T"
local TAG_1, TAG_2 = byte(TAG, 1, 2)

local _M = {}

-- The text of a value, or nil and why there is none.
function _M.encode(value)
    local t = type(value)
    if t == "string" then
        if byte(value, 1) == TAG_1 and byte(value, 2) == TAG_2 then
            return TAG .. "s" .. value
        end
        return value
    elseif t == "number" then
        return TAG .. "n" .. ("%.17g"):format(value)
    elseif t == "boolean" then
        return TAG .. (value and "t" or "f")
    elseif t == "table" then
        local json, err = cjson.encode(value)
        if not json then
            return nil, "cannot encode the value: " .. err
        end
        return TAG .. "j" .. json
    end
    return nil, "cannot cache a value of type " .. t
end

function _M.decode(text)
    if byte(text, 1) ~= TAG_1 or byte(text, 2) ~= TAG_2 then
        return text
    end
    local kind, rest = sub(text, 3, 3), sub(text, 4)
    if kind == "s" then
        return rest
    elseif kind == "n" then
        return tonumber(rest)
    elseif kind == "t" then
        return true
    elseif kind == "f" then
        return false
    elseif kind == "j" then
        return cjson.decode(rest)
    end
    return text
end

return _M
