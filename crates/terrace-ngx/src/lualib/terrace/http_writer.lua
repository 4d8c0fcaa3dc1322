-- Writes HTTP/1 requests to a cosocket.
--
-- A request's framing is decided here: a string or a list of strings goes out with its own length, whatever the caller
-- said; an iterator with the caller's Content-Length, which must then be met, or chunked. Nothing that a caller passes
-- can end a line early: names, values and the method are checked, blanks and control bytes in the target are encoded.

local http_reader = require "terrace.http_reader"
local http_uri = require "terrace.http_uri"

local concat = table.concat
local encode_args = ngx.encode_args
local find = string.find
local format = string.format
local lower = string.lower
local pairs = pairs
local tonumber = tonumber
local tostring = tostring
local type = type

-- Bodies up to this size leave in one write with the head.
local JOINED_BODY_BYTES_MAX = 65536
-- Iterators may yield this many empty pieces in a row.
local EMPTY_PIECES_MAX = 1000

local METHODS_WITH_BODY = { POST = true, PUT = true, PATCH = true }

local _M = { _VERSION = "0.1.0", USER_AGENT = "terrace-http/0.1.0" }


local function add_line(lines, name, value)
    if type(value) == "table" then
        for i = 1, #value do
            local ok, err = add_line(lines, name, value[i])
            if not ok then
                return nil, err
            end
        end
        return true
    end
    value = tostring(value)
    if find(value, "[\r\n%z]") then
        return nil, "invalid header value: " .. name
    end
    lines[#lines + 1] = name .. ": " .. value .. "\r\n"
    return true
end


-- The target in origin form: path and query.
function _M.target_of(params)
    local target = params.path
    if target == nil or target == "" then
        target = "/"
    end
    local query = params.query
    if type(query) == "table" then
        query = encode_args(query)
    end
    if query and query ~= "" then
        target = target .. (find(target, "?", 1, true) and "&" or "?") .. query
    end
    return http_uri.clean_target(target)
end


local function list_length(list)
    local length = 0
    for i = 1, #list do
        local piece = list[i]
        length = length + (type(piece) == "table" and list_length(piece) or #tostring(piece))
    end
    return length
end


-- Decides how the body is delimited: "none", "sized" with a length, "chunked", or nil and an error.
local function framing_of(params, method, version, given)
    local body = params.body
    local kind = type(body)
    if body == nil then
        if given["content-length"] ~= nil or not METHODS_WITH_BODY[method] then
            return "none"
        end
        return "sized", 0
    elseif kind == "string" or kind == "number" then
        return "sized", #tostring(body)
    elseif kind == "table" then
        return "sized", list_length(body)
    elseif kind ~= "function" then
        return nil, "request body must be a string, a table or a function"
    end
    local length = given["content-length"]
    if length ~= nil and not http_reader.has_token(given["transfer-encoding"], "chunked") then
        length = tonumber(length)
        if not length or length < 0 then
            return nil, "invalid Content-Length"
        end
        return "sized", length
    end
    if version < 1.1 then
        return nil, "an iterated body needs a Content-Length in HTTP/1.0"
    end
    return "chunked"
end


local function is_kept_header(folded, framing)
    if folded == "transfer-encoding" then
        return false
    end
    return folded ~= "content-length" or framing == "none"
end


local function copy_headers(lines, headers, framing)
    for name, value in pairs(headers) do
        if type(name) ~= "string" or name == "" or find(name, "[%s%c:]") then
            return nil, "invalid header name"
        end
        if is_kept_header(lower(name), framing) then
            local ok, err = add_line(lines, name, value)
            if not ok then
                return nil, err
            end
        end
    end
    return true
end


local function folded_headers(headers)
    local folded = {}
    for name, value in pairs(headers) do
        if type(name) == "string" then
            folded[lower(name)] = value
        end
    end
    return folded
end


-- Prepares a request over a connection (a table with scheme, host, port, and for plain proxying target_prefix and
-- proxy_authorization). Returns a table with head, framing, length, body, method, keepalive, expects; or nil and an
-- error.
function _M.prepare(connection, params)
    local method = params.method or "GET"
    if type(method) ~= "string" or not find(method, "^[^%s%c:]+$") then
        return nil, "invalid method"
    end
    local version = tonumber(params.version or 1.1)
    if version ~= 1.1 and version ~= 1 then
        return nil, "unsupported HTTP version"
    end
    local headers = params.headers or {}
    local given = folded_headers(headers)
    local framing, length = framing_of(params, method, version, given)
    if not framing then
        return nil, length
    end

    local target = (connection.target_prefix or "") .. _M.target_of(params)
    local lines = { format("%s %s HTTP/%.1f\r\n", method, target, version) }
    if given.host == nil then
        local host = http_uri.host_field(connection.scheme, connection.host or "localhost", connection.port)
        add_line(lines, "Host", host)
    end
    if given["user-agent"] == nil then
        add_line(lines, "User-Agent", _M.USER_AGENT)
    end
    if connection.proxy_authorization and given["proxy-authorization"] == nil then
        add_line(lines, "Proxy-Authorization", connection.proxy_authorization)
    end
    local ok, err = copy_headers(lines, headers, framing)
    if not ok then
        return nil, err
    end
    if framing == "sized" then
        add_line(lines, "Content-Length", format("%d", length))
    elseif framing == "chunked" then
        add_line(lines, "Transfer-Encoding", "chunked")
    end
    lines[#lines + 1] = "\r\n"

    local keepalive = not http_reader.has_token(given.connection, "close")
    if version < 1.1 then
        keepalive = http_reader.has_token(given.connection, "keep-alive")
    end
    return {
        head = concat(lines),
        method = method,
        body = params.body,
        framing = framing,
        length = length,
        keepalive = keepalive,
        expects = params.body ~= nil and http_reader.has_token(given.expect, "100-continue"),
    }
end


-- Sends the pieces of an iterator, delimited as the request says. An iterator that fails or misses its length leaves a
-- broken request behind, so the caller must close the connection.
local function send_iterated(sock, request)
    local left, empties = request.length, 0
    while true do
        local piece, err = request.body()
        if piece == nil and err then
            return nil, err
        end
        if piece == nil then
            break
        end
        if piece == "" then
            empties = empties + 1
            if empties > EMPTY_PIECES_MAX then
                return nil, "request body yields nothing"
            end
        else
            empties = 0
            local out = piece
            if left then
                left = left - #piece
                if left < 0 then
                    return nil, "request body longer than its Content-Length"
                end
            else
                out = { format("%x\r\n", #piece), piece, "\r\n" }
            end
            local ok, send_err = sock:send(out)
            if not ok then
                return nil, send_err
            end
        end
    end
    if left and left > 0 then
        return nil, "request body shorter than its Content-Length"
    end
    return left and true or sock:send("0\r\n\r\n")
end


-- Sends a prepared request's body. Returns a true value, or nil and an error.
function _M.send_body(sock, request)
    local body = request.body
    if body == nil then
        return true
    end
    if type(body) == "function" then
        return send_iterated(sock, request)
    end
    return sock:send(body)
end


-- Sends a prepared request, head and body.
function _M.send(sock, request)
    local body = request.body
    if body ~= nil and type(body) ~= "function" and request.length <= JOINED_BODY_BYTES_MAX then
        return sock:send({ request.head, body })
    end
    local ok, err = sock:send(request.head)
    if not ok then
        return nil, err
    end
    return _M.send_body(sock, request)
end


return _M
