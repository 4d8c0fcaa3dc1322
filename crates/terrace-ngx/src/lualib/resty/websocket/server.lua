-- The server's end of a WebSocket: takes the request's connection over.

local peer = require "terrace.websocket_peer"

local find, lower, setmetatable, tostring, type = string.find, string.lower, setmetatable, tostring, type
local encode_base64, flush, header, req, send_headers, sha1 =
    ngx.encode_base64, ngx.flush, ngx.header, ngx.req, ngx.send_headers, ngx.sha1_bin

local GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
local PAYLOAD_BYTES_MAX_DEFAULT = 65535

local _M = { _VERSION = "0.13" }
local mt = { __index = _M }

peer.extend(_M, true)

local function first(value)
    if type(value) == "table" then
        return value[1]
    end
    return value
end

-- What the request's fields ask for; or nil and an error.
local function read_request()
    if req.http_version() ~= 1.1 then
        return nil, "bad http version"
    end
    local fields = req.get_headers()
    local upgrade = first(fields.upgrade)
    if not upgrade or lower(upgrade) ~= "websocket" then
        return nil, "bad \"upgrade\" request header: " .. tostring(upgrade)
    end
    local connection = first(fields.connection)
    if not connection or not find(lower(connection), "upgrade", 1, true) then
        return nil, "bad \"connection\" request header"
    end
    local key = first(fields["sec-websocket-key"])
    if not key then
        return nil, "bad \"sec-websocket-key\" request header"
    end
    if first(fields["sec-websocket-version"]) ~= "13" then
        return nil, "bad \"sec-websocket-version\" request header"
    end
    return key, first(fields["sec-websocket-protocol"])
end

-- Shakes hands; answers an object, or nil and an error. Options: max_payload_len (65535), max_recv_len, max_send_len,
-- send_masked, timeout (ms).
function _M.new(_, options)
    options = options or {}
    if ngx.headers_sent then
        return nil, "response header already sent"
    end
    req.read_body()
    local key, protocol = read_request()
    if not key then
        return nil, protocol
    end
    if protocol then
        header["Sec-WebSocket-Protocol"] = protocol
    end
    header.Upgrade = "websocket"
    header["Connection"] = "upgrade"
    header["Sec-WebSocket-Accept"] = encode_base64(sha1(key .. GUID))
    header["Content-Type"] = nil
    ngx.status = 101
    local ok, err = send_headers()
    if not ok then
        return nil, "failed to send response header: " .. (err or "unknown")
    end
    ok, err = flush(true)
    if not ok then
        return nil, "failed to flush response header: " .. (err or "unknown")
    end
    local sock
    sock, err = req.socket(true)
    if not sock then
        return nil, err
    end
    if options.timeout then
        sock:settimeout(options.timeout)
    end
    local max = options.max_payload_len or PAYLOAD_BYTES_MAX_DEFAULT
    return setmetatable({
        sock = sock, masks = options.send_masked or false, fatal = false, closed = false,
        max_recv_len = options.max_recv_len or max, max_send_len = options.max_send_len or max,
    }, mt)
end

return _M
