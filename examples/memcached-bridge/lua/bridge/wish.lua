-- What a request asks for. Many clients send the same arguments, so what they mean is kept in a dictionary.

local cjson = require "cjson.safe"
local settings = require "bridge.settings"

local _M = {}

-- A whole number from 1 to `most`.
local function count(value, name, default, most)
    if value == nil then
        return default
    end
    local number = type(value) == "string" and #value <= 10 and value:find("^%d+$") and tonumber(value)
    if not number or number < 1 or number > most then
        return nil, name .. " is not a number from 1 to " .. most
    end
    return number
end

-- The first message of each backend: one number for all, or one for each, as in from=12,40.
local function positions(value)
    local list = {}
    for part in (type(value) == "string" and value or "1"):gmatch("[^,]+") do
        local number, err = count(part, "from", nil, 1e9)
        if not number or #list == #settings.backends then
            return nil, err or "from has more numbers than there are backends"
        end
        list[#list + 1] = number
    end
    for i = #list + 1, #settings.backends do
        if #list ~= 1 and i == #list + 1 then
            return nil, "from has fewer numbers than there are backends"
        end
        list[i] = list[1]
    end
    return list
end

local function parse()
    local args, err = ngx.req.get_uri_args(10)
    if err then
        return nil, "too many arguments"
    end
    local topic = args.topic
    if type(topic) ~= "string" or #topic > 64 or not topic:find("^[%w_-]+$") then
        return nil, "topic is missing or malformed"
    end
    local from, limit, wait_s
    from, err = positions(args.from)
    if from then
        limit, err = count(args.limit, "limit", settings.limit_default, settings.limit_max)
    end
    if limit then
        wait_s, err = count(args.wait, "wait", settings.wait_s_default, settings.wait_s_max)
    end
    if not wait_s then
        return nil, err
    end
    return { prefix = topic .. ".", from = from, limit = limit, wait_s = wait_s }
end

-- The wish of this request: { prefix (of the keys), from (a number for each backend), limit, wait_s }; or nil and why
-- there is none.
function _M.read()
    local text = ngx.var.args or ""
    if #text > settings.arguments_length_max then
        return nil, "the arguments are too long"
    end
    local keys = ngx.shared.memcachekey
    local kept = keys:get(text)
    if kept then
        return cjson.decode(kept)
    end
    local wish, err = parse()
    if wish then
        local stored, failure = keys:set(text, cjson.encode(wish), settings.keys_s)
        if not stored then
            ngx.log(ngx.WARN, "memcachekey: ", failure)
        end
    end
    return wish, err
end

return _M
