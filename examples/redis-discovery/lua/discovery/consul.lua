-- Asks Consul for the keys of a folder.

local cjson = require "cjson.safe"
local http = require "resty.http"
local settings = require "discovery.settings"

local at = settings.consul

local _M = {}

-- The body of a response, up to the limit.
local function read_body(answer)
    local parts, size = {}, 0
    while true do
        local part, err = answer.body_reader(8192)
        if err then
            return nil, err
        elseif not part then
            return table.concat(parts)
        end
        size = size + #part
        if size > at.answer_bytes_max then
            return nil, "the answer is too large"
        end
        parts[#parts + 1] = part
    end
end

local function ask(client)
    local ok, err = client:connect({ scheme = "http", host = at.host, port = at.port })
    if not ok then
        return nil, err
    end
    local answer
    answer, err = client:request({ path = "/v1/kv/" .. at.folder .. "?recurse=true" })
    if not answer then
        return nil, err
    end
    local body
    body, err = read_body(answer)
    if not body then
        return nil, err
    elseif answer.status == 404 then
        return nil, "there is no key in " .. at.folder
    elseif answer.status ~= 200 then
        return nil, "status " .. answer.status
    end
    client:set_keepalive(at.idle_timeout_ms, 1)
    return body
end

-- The values of the folder's keys, in the order of the keys; or nil and an error.
function _M.values()
    local client = http.new()
    client:set_timeouts(at.connect_timeout_ms, at.send_timeout_ms, at.read_timeout_ms)
    local body, err = ask(client)
    if not body then
        client:close()
        return nil, err
    end
    local entries = cjson.decode(body)
    if type(entries) ~= "table" then
        return nil, "the answer is no JSON"
    end
    local values = {}
    for _, entry in ipairs(entries) do
        -- The folder itself may be a key, without a value.
        local encoded = type(entry) == "table" and entry.Value
        if type(encoded) == "string" then
            values[#values + 1] = ngx.decode_base64(encoded)
        end
    end
    return values
end

return _M
