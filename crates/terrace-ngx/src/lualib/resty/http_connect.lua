-- Connecting for resty.http: TCP, a proxy's tunnel where one is configured, TLS, and a pool name that tells apart all
-- connections which must not be exchanged for one another.

local http_reader = require "terrace.http_reader"
local http_uri = require "terrace.http_uri"

local byte = string.byte
local concat = table.concat
local find = string.find
local gmatch = string.gmatch
local lower = string.lower
local match = string.match
local sub = string.sub
local tostring = tostring

local _M = { _VERSION = "0.1.0" }


-- Whether a comma separated list of hosts and domains says that a host is reached directly.
local function is_excluded(no_proxy, host)
    host = lower(host)
    for entry in gmatch(lower(no_proxy or ""), "[^,%s]+") do
        if byte(entry, 1) == 46 then
            entry = sub(entry, 2)
        end
        if entry == "*" or entry == host or sub(host, -#entry - 1) == "." .. entry then
            return true
        end
    end
    return false
end


-- The proxy for an endpoint: a table with uri and authorization, or nil.
local function proxy_for(options, scheme, host)
    if not options or not scheme or find(host, "^unix:") or is_excluded(options.no_proxy, host) then
        return nil
    end
    local uri = options[scheme .. "_proxy"]
    if not uri then
        return nil
    end
    return { uri = uri, authorization = options[scheme .. "_proxy_authorization"] }
end


-- Asks the proxy at the other end of a socket for a tunnel. Returns true, or nil and an error.
function _M.open_tunnel(sock, host, port, authorization)
    local target = host .. ":" .. port
    if find(target, "[%s%c]") or find(authorization or "", "[\r\n%z]") then
        return nil, "invalid tunnel target"
    end
    local ok, err = sock:send({
        "CONNECT ", target, " HTTP/1.1\r\nHost: ", target, "\r\n",
        authorization and "Proxy-Authorization: " .. authorization .. "\r\n" or "",
        "\r\n",
    })
    if not ok then
        return nil, err
    end
    local line_of, lines_err = http_reader.lines(sock)
    if not line_of then
        return nil, lines_err
    end
    local status, status_err = http_reader.read_head(line_of)
    if not status then
        return nil, status_err
    end
    if status < 200 or status > 299 then
        return nil, "proxy refused the tunnel with status " .. status
    end
    return true
end


local function pool_name(options, scheme, host, port, proxy)
    local parts = { scheme or "tcp", host, tostring(port) }
    if scheme == "https" then
        parts[#parts + 1] = tostring(options.ssl_server_name)
        parts[#parts + 1] = tostring(options.ssl_verify ~= false)
        parts[#parts + 1] = tostring(options.ssl_send_status_req)
        parts[#parts + 1] = tostring(options.ssl_client_cert)
    end
    if proxy then
        parts[#parts + 1] = proxy.uri
        parts[#parts + 1] = scheme == "https" and tostring(proxy.authorization) or ""
    end
    return concat(parts, ":")
end


local function handshake(sock, options, host)
    if options.ssl_client_cert then
        local ok, err = sock:setclientcert(options.ssl_client_cert, options.ssl_client_priv_key)
        if not ok then
            return nil, "client certificate refused: " .. tostring(err)
        end
    end
    local name = options.ssl_server_name
    if not name and not find(host, "^unix:") then
        name = match(host, "^%[(.*)%]$") or host
    end
    local verify = options.ssl_verify ~= false
    return sock:sslhandshake(options.ssl_reused_session, name, verify, options.ssl_send_status_req or false)
end


local function open_socket(sock, options, host, port, pool)
    local socket_options = { pool = pool, pool_size = options.pool_size, backlog = options.backlog }
    if find(host, "^unix:") then
        return sock:connect(host, socket_options)
    end
    return sock:connect(host, port, socket_options)
end


-- Connects a client's socket as its options say and notes the endpoint in the client. Returns true, or nil and an
-- error.
function _M.connect(client, options)
    local sock = client.sock
    local scheme, host, port = options.scheme, options.host, options.port
    if scheme then
        scheme = lower(scheme)
        if not http_uri.PORTS[scheme] then
            return nil, "unsupported scheme: " .. scheme
        end
    end
    if not host then
        return nil, "host not specified"
    end
    local is_unix = find(host, "^unix:") ~= nil
    port = port or (not is_unix and http_uri.PORTS[scheme or "http"] or nil)

    local proxy = proxy_for(options.proxy_opts or client.proxy_opts, scheme, host)
    local pool = options.pool or pool_name(options, scheme, host, port, proxy)
    local peer_host, peer_port = host, port
    if proxy then
        local proxy_scheme, proxy_host, proxy_port = http_uri.split(proxy.uri)
        if proxy_scheme ~= "http" then
            return nil, "invalid proxy uri: " .. tostring(proxy.uri)
        end
        peer_host, peer_port = proxy_host, proxy_port
    end
    local ok, err = open_socket(sock, options, peer_host, peer_port, pool)
    if not ok then
        return nil, err
    end

    client.scheme, client.host, client.port = scheme, host, port
    client.target_prefix, client.proxy_authorization = nil, nil
    if proxy and scheme == "http" then
        client.target_prefix = "http://" .. http_uri.host_field(scheme, host, port)
        client.proxy_authorization = proxy.authorization
    end
    if scheme ~= "https" or sock:getreusedtimes() > 0 then
        return true
    end
    if proxy then
        ok, err = _M.open_tunnel(sock, host, port, proxy.authorization)
    end
    if ok then
        ok, err = handshake(sock, options, host)
    end
    if not ok then
        sock:close()
        return nil, err
    end
    return true
end


return _M
