-- What the log says of a request.

local settings = require "access_log.settings"

local VERSIONS = { [0.9] = "0.9", [1] = "1.0", [1.1] = "1.1", [2] = "2.0", [3] = "3.0" }

local _M = {}

local function escape(character)
    return ("%%%02X"):format(character:byte())
end

-- A text of bounded length; of a value that is there more than once, the first. Bytes that need not be UTF-8 are escaped
-- as in a URI, as JSON must be UTF-8.
local function short(value)
    if type(value) == "table" then
        value = value[1]
    end
    if type(value) ~= "string" then
        return nil
    end
    return (value:sub(1, settings.value_length_max):gsub("[\128-\255]", escape))
end

-- Of the headers or arguments, those that are texts, cut to length.
local function pick(values, names)
    local picked = {}
    for _, name in ipairs(names) do
        picked[name:lower()] = short(values[name])
    end
    return picked
end

-- The record of this request as a table, and the key by which records keep their order: the product, or nil.
function _M.make()
    local var = ngx.var
    local args = {}
    for name, value in pairs(ngx.req.get_uri_args(settings.arguments_max)) do
        args[short(name)] = short(value) or ""
    end
    local record = {
        time = ngx.req.start_time(),
        duration_s = tonumber(var.request_time),
        client = var.remote_addr,
        method = short(ngx.req.get_method()),
        path = short(var.uri),
        args = args,
        http_version = VERSIONS[ngx.req.http_version()],
        headers = pick(ngx.req.get_headers(), settings.headers),
        status = ngx.status,
        bytes_sent = tonumber(var.bytes_sent),
    }
    return record, args.productId
end

return _M
