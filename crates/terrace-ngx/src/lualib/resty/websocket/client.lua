-- The client's end of a WebSocket.

local peer = require "terrace.websocket_peer"
local random_bytes = require("terrace.digest").random_bytes

local concat, find, ipairs, match, setmetatable, tostring, type =
    table.concat, string.find, ipairs, string.match, setmetatable, tostring, type
local encode_base64, tcp = ngx.encode_base64, ngx.socket.tcp

local PAYLOAD_BYTES_MAX_DEFAULT = 65536

local _M = { _VERSION = "0.13" }
local mt = { __index = _M }

peer.extend(_M, false)

-- Options: max_payload_len (65536), max_recv_len, max_send_len, send_unmasked, timeout (ms). Answers an object, or nil and
-- an error.
function _M.new(_, options)
    local sock, err = tcp()
    if not sock then
        return nil, err
    end
    options = options or {}
    if options.timeout then
        sock:settimeout(options.timeout)
    end
    local max = options.max_payload_len or PAYLOAD_BYTES_MAX_DEFAULT
    return setmetatable({
        sock = sock, masks = not options.send_unmasked, fatal = false, closed = false,
        max_recv_len = options.max_recv_len or max, max_send_len = options.max_send_len or max,
    }, mt)
end

-- Parts of `ws://host:port/path` and `ws://unix:/path:/path`.
local function read_uri(uri)
    local scheme, path, rest = match(uri, "^(wss?)://(unix:[^:]+):(.*)$")
    if scheme then
        return { is_tls = scheme == "wss", host = path, path = rest ~= "" and rest or "/" }
    end
    local host, port
    scheme, host, port, rest = match(uri, "^(wss?)://([^:/]+):?(%d*)(.*)$")
    if not scheme then
        return nil
    end
    local is_tls = scheme == "wss"
    return {
        is_tls = is_tls, host = host, port = port ~= "" and port + 0 or is_tls and 443 or 80,
        path = rest ~= "" and rest or "/",
    }
end

local function check_options(options)
    if options.server_name ~= nil and type(options.server_name) ~= "string" then
        return "SSL server_name must be a string"
    elseif options.headers ~= nil and type(options.headers) ~= "table" then
        return "custom headers must be a table"
    elseif options.host ~= nil and type(options.host) ~= "string" then
        return "custom host header must be a string"
    elseif options.key ~= nil and type(options.key) ~= "string" then
        return "custom Sec-WebSocket-Key must be a string"
    end
end

local function request_text(target, options, host)
    local lines = {
        "GET " .. target.path .. " HTTP/1.1",
        "Upgrade: websocket",
        "Host: " .. host,
        "Sec-WebSocket-Key: " .. (options.key or encode_base64(random_bytes(16))),
    }
    local protocols = options.protocols
    if protocols then
        lines[#lines + 1] = "Sec-WebSocket-Protocol: "
            .. (type(protocols) == "table" and concat(protocols, ",") or tostring(protocols))
    end
    lines[#lines + 1] = "Sec-WebSocket-Version: 13"
    if options.origin then
        lines[#lines + 1] = "Origin: " .. options.origin
    end
    lines[#lines + 1] = "Connection: Upgrade"
    for _, line in ipairs(options.headers or {}) do
        lines[#lines + 1] = line
    end
    return concat(lines, "\r\n") .. "\r\n\r\n"
end

local function start_tls(sock, target, options, host)
    if options.client_cert then
        local ok, err = sock:setclientcert(options.client_cert, options.client_priv_key)
        if not ok then
            return nil, "failed to set TLS client certificate: " .. err
        end
    end
    local ok, err = sock:sslhandshake(false, options.server_name or host or target.host, options.ssl_verify)
    if not ok then
        return nil, "ssl handshake failed: " .. err
    end
    return true
end

-- Connects and shakes hands. Answers 1, nil and the response's head, or "connection reused"; or nil and an error. Options:
-- protocols, origin, pool, pool_size, backlog, ssl_verify, headers, client_cert and client_priv_key, host, server_name, key.
function _M.connect(self, uri, options)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    options = options or {}
    local target = read_uri(uri)
    if not target then
        return nil, "bad websocket uri"
    end
    local err = check_options(options)
    if err then
        return nil, err
    end
    local ok
    local pool = { pool = options.pool, pool_size = options.pool_size, backlog = options.backlog }
    if target.port then
        ok, err = sock:connect(target.host, target.port, pool)
    else
        ok, err = sock:connect(target.host, pool)
    end
    if not ok then
        return nil, "failed to connect: " .. err
    end
    self.fatal, self.closed = false, false
    local reused
    reused, err = sock:getreusedtimes()
    if not reused then
        return nil, "failed to get reused times: " .. tostring(err)
    elseif reused > 0 then
        return 1, nil, "connection reused"
    end
    if target.is_tls then
        ok, err = start_tls(sock, target, options, options.host)
        if not ok then
            return nil, err
        end
    end
    local host = options.host or (target.port and target.host .. ":" .. target.port or "unix_sock")
    local bytes
    bytes, err = sock:send(request_text(target, options, host))
    if not bytes then
        return nil, "failed to send the handshake request: " .. err
    end
    local head
    head, err = sock:receiveuntil("\r\n\r\n")()
    if not head then
        return nil, "failed to receive response header: " .. err
    elseif not find(head, "^%s*HTTP/1%.1%s+") then
        return nil, "bad HTTP response status line: " .. head
    end
    return 1, nil, head
end

-- Into the pool; arguments as the socket's.
function _M.set_keepalive(self, ...)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return sock:setkeepalive(...)
end

-- Closes the connection, with a close frame if none was sent.
function _M.close(self)
    if self.fatal then
        return nil, "fatal error already happened"
    end
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    if not self.closed then
        local bytes, err = self:send_close()
        if not bytes then
            return nil, "failed to send close frame: " .. err
        end
    end
    return sock:close()
end

return _M
