-- What a backend keeps under a key: JSON, which flag 1 says is compressed, with zlib's header or gzip's.

local cjson = require "cjson.safe"
local settings = require "bridge.settings"
local zlib = require "zlib"

local PLAIN, COMPRESSED = 0, 1

local _M = {}

-- In steps, so that a small value cannot become a huge one.
local function inflate(data)
    local stream, parts, size = zlib.inflate(), {}, 0
    local step = settings.inflate_step_bytes
    for at = 1, #data, step do
        local ok, part, is_end = pcall(stream, data:sub(at, at + step - 1))
        if not ok then
            return nil, "does not inflate"
        end
        size = size + #part
        if size > settings.message_bytes_max then
            return nil, "is too large"
        end
        parts[#parts + 1] = part
        if is_end then
            return table.concat(parts)
        end
    end
    return nil, "is cut off"
end

-- The JSON in one line; or nil and what is wrong with it.
function _M.read(data, flags)
    local err
    if flags == COMPRESSED then
        data, err = inflate(data)
        if not data then
            return nil, err
        end
    elseif flags ~= PLAIN then
        return nil, "has flags " .. tostring(flags)
    end
    if cjson.decode(data) == nil then
        return nil, "is no JSON"
    end
    -- Line ends stand only between JSON's words.
    return (data:gsub("[\r\n]+", " "))
end

return _M
