-- An HTTP client over cosockets under the name and interface that scripts know.
--
-- This file owns the exchange: what state a connection is in, which response may be read now, and whether the
-- connection may be used again. Connecting is in resty.http_connect, the wire formats are in terrace.http_reader and
-- http_writer.
--
-- Invariant: a connection goes back to its pool only when every response on it has been read to its end and neither
-- side asked for it to be closed.

local http_connect = require "resty.http_connect"
local http_reader = require "terrace.http_reader"
local http_response = require "terrace.http_response"
local http_uri = require "terrace.http_uri"
local http_writer = require "terrace.http_writer"

local find = string.find
local getmetatable = getmetatable
local lower = string.lower
local ngx = ngx
local pairs = pairs
local rawget = rawget
local rawset = rawset
local setmetatable = setmetatable
local type = type

local INTERIM_RESPONSES_MAX = 16
local CLIENT_CHUNK_BYTES_DEFAULT = 65536
local RELAY_CHUNK_BYTES_DEFAULT = 65536

local HOP_BY_HOP = {
    ["connection"] = true,
    ["keep-alive"] = true,
    ["proxy-authenticate"] = true,
    ["proxy-authorization"] = true,
    ["proxy-connection"] = true,
    ["te"] = true,
    ["trailer"] = true,
    ["trailers"] = true,
    ["transfer-encoding"] = true,
    ["upgrade"] = true,
}

local _M = { _VERSION = "0.1.0", _USER_AGENT = http_writer.USER_AGENT }
local mt = { __index = _M }
local response_mt = { __index = http_response }


-- A client without a connection, or nil and an error.
function _M.new(_)
    local sock, err = ngx.socket.tcp()
    if not sock then
        return nil, err
    end
    return setmetatable({ sock = sock, keepalive = true, unread = 0 }, mt)
end


-- Sets one timeout for all later operations, in milliseconds.
function _M.set_timeout(self, timeout_ms)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    sock:settimeout(timeout_ms)
    return true
end


-- Sets the timeouts of later operations, in milliseconds.
function _M.set_timeouts(self, connect_timeout_ms, send_timeout_ms, read_timeout_ms)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    sock:settimeouts(connect_timeout_ms, send_timeout_ms, read_timeout_ms)
    return true
end


-- Remembers the proxies for connect and request_uri; the table is copied.
function _M.set_proxy_options(self, options)
    if not options then
        self.proxy_opts = nil
        return
    end
    local copy = {}
    for name, value in pairs(options) do
        copy[name] = value
    end
    self.proxy_opts = copy
end


local function start_connection(self)
    self.keepalive = true
    self.unread = 0
    self.broken = false
    self.reading = nil
    self.line_of = nil
end


-- connect(options): TCP, proxy and TLS as the options say. connect(host, port, options) and connect("unix:path",
-- options): TCP only. Returns true, or nil and an error.
function _M.connect(self, ...)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    start_connection(self)
    local first, second = ...
    if type(first) == "table" then
        return http_connect.connect(self, first)
    end
    self.scheme, self.host = nil, first
    self.port = type(second) ~= "table" and second or nil
    self.target_prefix, self.proxy_authorization = nil, nil
    return sock:connect(...)
end


-- Connects to a proxy; for https it also opens the tunnel, over which ssl_handshake then runs.
function _M.connect_proxy(self, proxy_uri, scheme, host, port, authorization)
    local proxy_scheme, proxy_host, proxy_port = http_uri.split(proxy_uri)
    if not proxy_scheme then
        return nil, "invalid proxy uri"
    end
    if proxy_scheme ~= "http" then
        return nil, "unsupported proxy scheme: " .. proxy_scheme
    end
    local ok, err = self:connect(proxy_host, proxy_port)
    if not ok then
        return nil, err
    end
    self.host, self.port = host, port
    if scheme == "https" then
        ok, err = http_connect.open_tunnel(self.sock, host, port, authorization)
        if not ok then
            self:close()
            return nil, err
        end
    end
    return 1
end


-- A TLS handshake on the connection, with the arguments of the cosocket's.
function _M.ssl_handshake(self, ...)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return sock:sslhandshake(...)
end


-- Gives the connection to the pool and returns 1, or closes it where it cannot be used again and returns 2 and
-- "connection must be closed"; nil and an error when the socket fails.
function _M.set_keepalive(self, ...)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    if self.keepalive and not self.broken and self.unread == 0 then
        return sock:setkeepalive(...)
    end
    local ok, err = sock:close()
    if not ok and err ~= "closed" then
        return nil, err
    end
    return 2, "connection must be closed"
end


-- How often the connection has been taken from the pool.
function _M.get_reused_times(self)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return sock:getreusedtimes()
end


-- Closes the connection.
function _M.close(self)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return sock:close()
end


-- { scheme, host, port, path, query } of a URI, or nil and an error. The path holds the query unless `query_in_path` is
-- false.
function _M.parse_uri(_, uri, query_in_path)
    local scheme_default
    if type(uri) == "string" and find(uri, "^//") then
        scheme_default = ngx.var.scheme
    end
    local scheme, host, port, path, query = http_uri.split(uri, scheme_default)
    if not scheme then
        return nil, host
    end
    if query_in_path == false then
        return { scheme, host, port, path, query or "" }
    end
    return { scheme, host, port, query and query ~= "" and path .. "?" .. query or path }
end


local function has_no_body(method, status)
    return method == "HEAD" or status == 204 or status == 304 or status == 101
        or (method == "CONNECT" and status >= 200 and status <= 299)
end


local function finish(self, response, trailers)
    response.trailers = trailers
    self.unread = self.unread - 1
    self.reading = nil
end


-- The reader for a response's body, or nil and an error. Says in the client what the framing means for keep-alive.
local function body_reader_of(self, request, response)
    local headers = response.headers
    if has_no_body(request.method, response.status) then
        finish(self, response)
        return http_reader.no_body
    end
    local function on_end(trailers)
        finish(self, response, trailers)
    end
    local length = http_reader.content_length(headers)
    local encoding = headers["Transfer-Encoding"]
    if encoding ~= nil then
        -- RFC 9112, section 6.3: Transfer-Encoding overrides Content-Length, and both together smell of smuggling.
        if length ~= nil then
            self.keepalive = false
        end
        if http_reader.has_token(encoding, "chunked") then
            return http_reader.chunked_body(self.sock, self.line_of, on_end)
        end
    elseif length == false then
        return nil, "invalid Content-Length"
    elseif length == 0 then
        on_end()
        return http_reader.no_body
    elseif length then
        return http_reader.sized_body(self.sock, length, on_end)
    end
    self.keepalive = false
    return http_reader.unsized_body(self.sock, on_end)
end


local function is_persistent(request, version, headers)
    if not request.keepalive then
        return false
    end
    local connection = headers["Connection"]
    if version >= 1.1 then
        return not http_reader.has_token(connection, "close")
    end
    return http_reader.has_token(connection, "keep-alive")
end


-- Reads heads up to the final one; an interim 100 is returned when `stop_at_continue` says so.
local function read_head(self, stop_at_continue)
    if not self.line_of then
        local line_of, err = http_reader.lines(self.sock)
        if not line_of then
            return nil, err
        end
        self.line_of = line_of
    end
    for _ = 1, INTERIM_RESPONSES_MAX do
        local status, reason, version, headers = http_reader.read_head(self.line_of)
        if not status then
            return nil, reason
        end
        if status >= 200 or status == 101 or (status == 100 and stop_at_continue) then
            return status, reason, version, headers
        end
    end
    return nil, "too many interim responses"
end


local function fail(self, err)
    self.broken = true
    return nil, err
end


-- Fills a response with the next message on the connection.
local function fill_response(self, request, response, status, reason, version, headers)
    response.status = status
    response.reason = reason
    response.version = version
    response.headers = headers
    self.reading = response
    local is_tunnel = status == 101 or request.method == "CONNECT"
    if is_tunnel or not is_persistent(request, version, headers) then
        self.keepalive = false
    end
    local reader, err = body_reader_of(self, request, response)
    if not reader then
        return fail(self, err)
    end
    response.has_body = reader ~= http_reader.no_body
    response.body_reader = reader
    return response
end


local function read_response(self, request, response)
    if self.reading then
        return fail(self, "previous response not read")
    end
    local status, reason, version, headers = read_head(self)
    if not status then
        return fail(self, reason)
    end
    return fill_response(self, request, response, status, reason, version, headers)
end


local function send_request(self, params, pipelined)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local request, err = http_writer.prepare(self, params)
    if not request then
        return nil, err
    end
    if pipelined and request.expects then
        return nil, "a pipelined request cannot expect 100-continue"
    end
    self.unread = self.unread + 1
    local ok
    if request.expects then
        ok, err = sock:send(request.head)
    else
        ok, err = http_writer.send(sock, request)
    end
    if not ok then
        return fail(self, err)
    end
    return request
end


-- With Expect: 100-continue the body follows when the server asks for it; a final answer before that ends the exchange
-- and leaves the connection unusable, since the server may still expect the body.
local function request_expecting(self, request, response)
    local status, reason, version, headers = read_head(self, true)
    if not status then
        return fail(self, reason)
    end
    if status ~= 100 then
        self.keepalive = false
        return fill_response(self, request, response, status, reason, version, headers)
    end
    local ok, err = http_writer.send_body(self.sock, request)
    if not ok then
        return fail(self, err)
    end
    return read_response(self, request, response)
end


-- Sends a request on the connection and reads the response's head. Returns the response, or nil and an error.
function _M.request(self, params)
    if self.reading then
        return nil, "previous response not read"
    end
    local request, err = send_request(self, params or {})
    if not request then
        return nil, err
    end
    local response = setmetatable({}, response_mt)
    if request.expects then
        return request_expecting(self, request, response)
    end
    return read_response(self, request, response)
end


local LAZY_FIELDS = {
    status = true,
    reason = true,
    version = true,
    headers = true,
    has_body = true,
    body_reader = true,
}

-- A pipelined response reads itself when one of its fields is first asked for; a failure leaves it without a status.
local function lazy_index(response, name)
    local state = getmetatable(response)
    if LAZY_FIELDS[name] and not state.started then
        state.started = true
        local ok, err = read_response(state.client, state.request, response)
        if not ok then
            rawset(response, "status", nil)
            rawset(response, "error", err)
        end
        return rawget(response, name)
    end
    return http_response[name]
end


-- Sends several requests at once. Returns a list of responses, which must be read in order and to their ends.
function _M.request_pipeline(self, requests)
    if self.reading then
        return nil, "previous response not read"
    end
    local responses = {}
    for i = 1, #requests do
        local request, err = send_request(self, requests[i], true)
        if not request then
            return nil, err
        end
        responses[i] = setmetatable({}, {
            __index = lazy_index,
            client = self,
            request = request,
            started = false,
        })
    end
    return responses
end


local CONNECT_FIELDS = {
    "scheme", "host", "port", "pool", "pool_size", "backlog", "proxy_opts", "ssl_verify", "ssl_server_name",
    "ssl_send_status_req", "ssl_reused_session", "ssl_client_cert", "ssl_client_priv_key",
}

-- Splits request_uri's arguments into connect options and request parameters. A path in the parameters that holds its
-- own query replaces the URI's query too.
local function split_params(self, uri, params)
    local parts, err = self:parse_uri(uri, false)
    if not parts then
        return nil, err
    end
    local options = {}
    for i = 1, #CONNECT_FIELDS do
        local name = CONNECT_FIELDS[i]
        options[name] = params[name]
    end
    options.scheme = options.scheme or parts[1]
    options.host = options.host or parts[2]
    options.port = options.port or (not params.scheme and parts[3] or nil)
    local query = params.query
    if query == nil and not (params.path and find(params.path, "?", 1, true)) then
        query = parts[5]
    end
    return options, {
        method = params.method,
        version = params.version,
        path = params.path or parts[4],
        query = query,
        headers = params.headers,
        body = params.body,
    }
end


-- One whole exchange: connect, send, read everything, and keep the connection or close it. The response also has
-- `body`.
function _M.request_uri(self, uri, params)
    params = params or {}
    local options, request = split_params(self, uri, params)
    if not options then
        return nil, request
    end
    local ok, err = self:connect(options)
    if not ok then
        return nil, err
    end
    local response, body
    response, err = self:request(request)
    if response then
        body, err = response:read_body()
    end
    if not body then
        self:close()
        return nil, err
    end
    response.body = body
    response:read_trailers()
    if params.keepalive == false then
        self:close()
    else
        self:set_keepalive(params.keepalive_timeout, params.keepalive_pool)
    end
    return response
end


-- A function that reads the client's request body in pieces (of `chunk_size` bytes unless told otherwise), from the
-- given socket or the request's own. Returns nil when there is no body, nil and an error when it cannot be read.
function _M.get_client_body_reader(_, chunk_size, sock)
    chunk_size = chunk_size or CLIENT_CHUNK_BYTES_DEFAULT
    if not sock then
        local err
        sock, err = ngx.req.socket()
        if not sock then
            if err == "no body" then
                return nil
            end
            return nil, err
        end
    end
    local headers = ngx.req.get_headers()
    local length = http_reader.content_length(headers)
    local reader
    if http_reader.has_token(headers["Transfer-Encoding"], "chunked") then
        local line_of, err = http_reader.lines(sock)
        if not line_of then
            return nil, err
        end
        reader = http_reader.chunked_body(sock, line_of, http_reader.no_body)
    elseif length then
        reader = http_reader.sized_body(sock, length, http_reader.no_body)
    else
        return nil
    end
    return function(size_max)
        return reader(size_max or chunk_size)
    end
end


local function end_to_end(headers)
    local kept = {}
    for name, value in pairs(headers) do
        if not HOP_BY_HOP[lower(name)] then
            kept[name] = value
        end
    end
    return kept
end


-- Sends the current client's request, with its URI as rewritten, on over the connection.
function _M.proxy_request(self, chunk_size)
    local body, err = self:get_client_body_reader(chunk_size)
    if not body and err then
        return nil, err
    end
    return self:request({
        method = ngx.req.get_method(),
        path = http_uri.encode_path(ngx.var.uri),
        query = ngx.var.args,
        body = body,
        headers = end_to_end(ngx.req.get_headers(0)),
    })
end


-- Answers the current client with a response.
function _M.proxy_response(_, response, chunk_size)
    if not response then
        ngx.log(ngx.ERR, "nothing to answer with: no response")
        return
    end
    ngx.status = response.status
    for name, value in pairs(response.headers) do
        if not HOP_BY_HOP[lower(name)] then
            ngx.header[name] = value
        end
    end
    local reader = response.body_reader
    while true do
        local piece, err = reader(chunk_size or RELAY_CHUNK_BYTES_DEFAULT)
        if not piece then
            if err then
                ngx.log(ngx.ERR, err)
            end
            return
        end
        local ok, print_err = ngx.print(piece)
        if not ok then
            ngx.log(ngx.ERR, print_err)
            return
        end
        ngx.flush(true)
    end
end


return _M
