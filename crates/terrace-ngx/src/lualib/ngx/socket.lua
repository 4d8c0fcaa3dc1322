-- ngx.socket: tcp, stream, connect. A socket is a table with the native socket at [1]; scripts may add fields.

local ffi = require "ffi"
local base = require "terrace.base"

local native, take, refuse, await, text = base.native, base.take, base.refuse, base.await, base.text
local tcp_new, tcp_free, tcp_timeouts, tcp_connect, tcp_send, tcp_receive, tcp_keepalive =
    native.tcp_new, native.tcp_free, native.tcp_timeouts, native.tcp_connect, native.tcp_send, native.tcp_receive,
    native.tcp_keepalive
local ffi_gc, ffi_new, ffi_string = ffi.gc, ffi.new, ffi.string
local error, next, pairs, select, setmetatable, tonumber, tostring, type =
    error, next, pairs, select, setmetatable, tonumber, tostring, type
local find, floor, match = string.find, math.floor, string.match

local FAILED = base.FAILED
local LINE, BYTES, ANY, ALL = 0, 1, 2, 3
local REACHED = 2
local NEST_MAX = 100

local methods = {}
local socket_mt = { __index = methods }

local refusals = {
    [-2] = "closed", [-3] = "socket busy connecting", [-4] = "socket busy reading", [-5] = "socket busy writing",
    [-7] = "socket busy",
}

-- What a code that refuses a call means to the script.
local function refused(code)
    local err = refusals[code]
    if err then
        return nil, err
    elseif code == FAILED then
        return nil, take()
    elseif code == -6 then
        error("bad request", 3)
    end
    refuse(code, 2)
end

-- For a method that was called with something else than its socket.
local function no_socket(self, name)
    error("bad argument #1 to '" .. name .. "' (table expected, got " .. type(self) .. ")", 3)
end

local function tcp()
    if native.phase() == 1 then
        refuse(base.BAD_CONTEXT)
    end
    return setmetatable({ ffi_gc(tcp_new(), tcp_free) }, socket_mt)
end

local function check_timeout(ms)
    ms = tonumber(ms) or 0
    if ms < 0 or ms >= 2147483648 then
        error("bad timeout value", 3)
    end
    return ms
end

function methods.settimeout(self, ms)
    ms = check_timeout(ms)
    tcp_timeouts(self[1], ms, ms, ms)
end

function methods.settimeouts(self, connect_ms, send_ms, read_ms)
    tcp_timeouts(self[1], check_timeout(connect_ms), check_timeout(send_ms), check_timeout(read_ms))
end

local function bad_argument(n, name, what)
    error("bad argument #" .. n .. " to '" .. name .. "' (" .. what .. ")", 4)
end

-- The options of connect: pool's name, its size, its backlog.
local function read_options(options, position)
    local size, backlog, pool = options.pool_size, options.backlog, options.pool
    if size ~= nil then
        local n = tonumber(size)
        if not n then
            bad_argument(position, "connect", "bad \"pool_size\" option type: " .. type(size))
        elseif n <= 0 then
            bad_argument(position, "connect", "bad \"pool_size\" option value: " .. n)
        end
        size = n
    end
    backlog = tonumber(backlog)
    if backlog and backlog < 0 then
        bad_argument(position, "connect", "bad \"backlog\" option value: " .. backlog)
    end
    local t = type(pool)
    if t == "number" then
        pool = tostring(pool)
    elseif t ~= "string" and t ~= "nil" then
        bad_argument(position, "connect", "bad \"pool\" option type: " .. t)
    end
    return pool, size or 0, backlog or -1
end

function methods.connect(self, host, port, options)
    local t = type(host)
    if t == "number" then
        host = tostring(host)
    elseif t ~= "string" then
        error("bad argument #1 to 'connect' (string expected, got " .. t .. ")", 2)
    end
    local pool, size, backlog
    if type(port) == "table" then
        pool, size, backlog = read_options(port, 2)
        port = nil
    elseif type(options) == "table" then
        pool, size, backlog = read_options(options, 3)
    else
        size, backlog = 0, -1
    end
    port = tonumber(port)
    if port then
        port = floor(port)
        if port < 0 or port > 65535 then
            return nil, "bad port number: " .. port
        end
    elseif find(host, "^[uU][nN][iI][xX]:") then
        port = -1
    else
        return nil, "missing the port number"
    end
    local code = tcp_connect(self[1], host, #host, port, pool, pool and #pool or 0, size, backlog, text)
    if code == 0 then
        return 1
    elseif code == 1 then
        return await()
    end
    return refused(code)
end

local function bad_piece(what)
    error("bad argument #1 to 'send' (" .. what .. ")", 0)
end

local function check_array(value, count)
    for key in pairs(value) do
        if type(key) ~= "number" or key < 1 or key > count or key % 1 ~= 0 then
            bad_piece("non-array table found")
        end
    end
end

-- Hands the pieces of a nested array over; `first` says whether none was yet.
local function put_pieces(u, value, first, depth)
    local count = #value
    if next(value, count > 0 and count or nil) ~= nil then
        check_array(value, count)
    end
    for i = 1, count do
        local piece = value[i]
        local t = type(piece)
        if t == "string" then
            native.tcp_piece(u, piece, #piece, first)
        elseif t == "number" then
            piece = tostring(piece)
            native.tcp_piece(u, piece, #piece, first)
        elseif t == "table" then
            if depth >= NEST_MAX then
                bad_piece("the table is nested too deeply")
            end
            put_pieces(u, piece, first, depth + 1)
        else
            bad_piece("bad data type " .. t .. " found")
        end
        first = 0
    end
end

local function send_table(u, data)
    native.tcp_piece(u, nil, 0, 1)
    put_pieces(u, data, 0, 1)
    local code = native.tcp_send_pieces(u, text)
    if code == 0 then
        return tonumber(text[0].len)
    elseif code == 1 then
        return await()
    end
    return refused(code)
end

function methods.send(self, ...)
    local count = select("#", ...)
    if count ~= 1 then
        error("expecting 2 arguments (including the object), but got " .. count + 1, 2)
    elseif type(self) ~= "table" then
        no_socket(self, "send")
    end
    local data = ...
    local t = type(data)
    if t == "table" then
        return send_table(self[1], data)
    elseif t == "number" or t == "boolean" or t == "nil" then
        data = tostring(data)
    elseif t ~= "string" then
        error("bad argument #1 to 'send' (string, number, boolean, nil, or array table expected, got " .. t .. ")", 2)
    end
    local code = tcp_send(self[1], data, #data, text)
    if code == 0 then
        return #data
    elseif code == 1 then
        return await()
    end
    return refused(code)
end

-- The error and what was received before it.
local function failed()
    local err, partial = text[0], text[1]
    return nil, ffi_string(err.data, err.len), ffi_string(partial.data, partial.len)
end

local function receive(u, kind, size)
    local code = tcp_receive(u, kind, size, text)
    if code == 0 then
        return take()
    elseif code == 1 then
        return await()
    elseif code == FAILED then
        return failed()
    end
    return refused(code)
end

function methods.receive(self, pattern)
    if type(self) ~= "table" then
        no_socket(self, "receive")
    end
    if pattern == nil or pattern == "*l" then
        return receive(self[1], LINE, 0)
    elseif pattern == "*a" then
        return receive(self[1], ALL, 0)
    end
    local size = tonumber(pattern)
    if size then
        if size < 0 then
            error("bad argument #1 to 'receive' (bad number argument)", 2)
        end
        return receive(self[1], BYTES, floor(size))
    elseif type(pattern) ~= "string" then
        error("bad argument #1 to 'receive' (bad argument)", 2)
    elseif match(pattern, "^%*.$") then
        error("bad argument #1 to 'receive' (bad pattern argument)", 2)
    end
    error("bad argument #1 to 'receive' (bad pattern argument: " .. pattern .. ")", 2)
end

function methods.receiveany(self, max)
    local size = tonumber(max)
    if not size or size < 1 then
        error("bad argument #1 to 'receiveany' (bad max argument)", 2)
    end
    return receive(self[1], ANY, floor(size))
end

function methods.receiveuntil(self, pattern, options)
    if type(self) ~= "table" then
        no_socket(self, "receiveuntil")
    end
    local inclusive = 0
    if options ~= nil then
        if type(options) ~= "table" then
            error("bad argument #2 to 'receiveuntil' (table expected, got " .. type(options) .. ")", 2)
        end
        local option = options.inclusive
        if option ~= nil and type(option) ~= "boolean" then
            error("bad \"inclusive\" option value type: " .. type(option), 2)
        end
        inclusive = option and 1 or 0
    end
    if type(pattern) == "number" then
        pattern = tostring(pattern)
    elseif type(pattern) ~= "string" then
        error("bad argument #1 to 'receiveuntil' (string expected, got " .. type(pattern) .. ")", 2)
    end
    if pattern == "" then
        return nil, "pattern is empty"
    end
    local u, is_over = self[1], false
    return function(size)
        local piece = 0
        if size ~= nil then
            piece = tonumber(size)
            if not piece then
                error("bad argument #1 to '?' (number expected, got " .. type(size) .. ")", 2)
            end
            piece = piece > 0 and floor(piece) or 0
        end
        if is_over then
            is_over = false
            return nil, nil, nil
        end
        local code = native.tcp_until(u, pattern, #pattern, inclusive, piece, text)
        if code == 1 then
            local data, reached, partial = await()
            if not data then
                return nil, reached, partial
            end
            is_over = piece > 0 and reached
            return data
        elseif code == 0 or code == REACHED then
            is_over = piece > 0 and code == REACHED
            return take()
        elseif code == FAILED then
            return failed()
        end
        return refused(code)
    end
end

function methods.close(self)
    if type(self) ~= "table" then
        no_socket(self, "close")
    end
    local code = native.tcp_close(self[1])
    if code == 0 then
        return 1
    end
    return refused(code)
end

local function whole_number(value, position)
    local n = tonumber(value)
    if not n then
        error("bad argument #" .. position .. " to 'setkeepalive' (number expected, got " .. type(value) .. ")", 3)
    end
    return floor(n)
end

function methods.setkeepalive(self, timeout_ms, size)
    if type(self) ~= "table" then
        no_socket(self, "setkeepalive")
    end
    if timeout_ms ~= nil then
        timeout_ms = whole_number(timeout_ms, 1)
    end
    if size ~= nil then
        size = whole_number(size, 2)
        if size <= 0 then
            error("bad argument #2 to 'setkeepalive' (bad \"pool_size\" option value: " .. size .. ")", 2)
        end
    end
    local code = tcp_keepalive(self[1], timeout_ms or -1, size or 0, text)
    if code == 0 then
        return 1
    end
    return refused(code)
end

function methods.getreusedtimes(self)
    if type(self) ~= "table" then
        no_socket(self, "getreusedtimes")
    end
    local count = native.tcp_reused(self[1])
    if count >= 0 then
        return count
    end
    return refused(count)
end

function methods.bind(self, address, port)
    address = tostring(address)
    port = port ~= nil and tonumber(port) or 0
    if not port then
        return nil, "expecting port to be a number"
    elseif port < 0 or port > 65535 then
        return nil, "bad port number: " .. port
    elseif native.tcp_bind(self[1], address, #address, port) ~= 0 then
        return nil, "bad address"
    end
    return 1
end

local options = {
    ["keepalive"] = 1, ["reuseaddr"] = 2, ["tcp-nodelay"] = 3, ["sndbuf"] = 4, ["rcvbuf"] = 5, ["keepintvl"] = 6,
    ["keepcnt"] = 7,
}
local option_value = ffi_new("int[1]")

function methods.setoption(self, option, value)
    if option == nil then
        return nil, "missing the \"option\" argument"
    elseif value == nil then
        return nil, "missing the \"value\" argument"
    elseif not options[option] then
        return nil, "unsupported option " .. tostring(option)
    end
    if type(value) == "boolean" then
        value = value and 1 or 0
    end
    local n = tonumber(value)
    if not n or n < 0 then
        return nil, "bad value of option " .. option
    end
    local code = native.tcp_option(self[1], options[option], n, option_value, text)
    if code == 0 then
        return true
    end
    return refused(code)
end

function methods.getoption(self, option)
    if option == nil then
        return nil, "missing the \"option\" argument"
    elseif not options[option] then
        return nil, "unsupported option " .. tostring(option)
    end
    local code = native.tcp_option(self[1], options[option], -1, option_value, text)
    if code == 0 then
        return option_value[0]
    end
    return refused(code)
end

function methods.getfd(self)
    local fd = native.tcp_fd(self[1])
    if fd >= 0 then
        return fd
    end
    return refused(fd)
end

-- A socket's own certificate, key and authorities for the next handshakes, as OpenResty numbers them.
local CERTIFICATE, KEY, TRUSTED = 6, 7, 10
local wishes = ffi_new("terrace_tls_wishes")

local function is_of(value, name)
    return type(value) == "cdata" and ffi.istype(name, value)
end

function methods.setclientcert(self, certificate, key)
    if not certificate and not key then
        self[CERTIFICATE], self[KEY] = nil, nil
        return true
    elseif not certificate or not key then
        return nil, "client certificate must be supplied with corresponding private key"
    elseif not is_of(certificate, "struct terrace_certs *") then
        return nil, "bad cert arg: cdata expected, got " .. type(certificate)
    elseif not is_of(key, "struct terrace_key *") then
        return nil, "bad pkey arg: cdata expected, got " .. type(key)
    end
    self[CERTIFICATE], self[KEY] = certificate, key
    return true
end

-- The store is what ngx.ssl.parse_pem_cert gives: there is no OpenSSL whose X509_STORE could be meant.
function methods.settrustedstore(self, store)
    if store ~= nil and not is_of(store, "struct terrace_certs *") then
        return nil, "bad store arg: cdata expected, got " .. type(store)
    end
    local state = native.tcp_is_tls(self[1])
    if state == FAILED then
        return nil, "closed"
    elseif state == 0 then
        return nil, "ssl handshake already done; trusted store cannot be set"
    end
    self[TRUSTED] = store
    return true
end

local function session_of(u)
    local session = native.tcp_session(u)
    if session == nil then
        return nil
    end
    return ffi_gc(session, native.tls_session_free)
end

function methods.sslhandshake(self, session, name, verify, send_status_req, ...)
    local extra = select("#", ...)
    if extra > 0 then
        error("ngx.socket sslhandshake: expecting 1 ~ 5 arguments (including the object), but seen " .. 5 + extra, 2)
    end
    local u, keeps = self[1], session ~= false
    if name ~= nil and name ~= false then
        if type(name) == "number" then
            name = tostring(name)
        elseif type(name) ~= "string" then
            error("bad argument #2 to 'sslhandshake' (string expected, got " .. type(name) .. ")", 2)
        end
        wishes.name, wishes.name_len = name, #name
    else
        wishes.name, wishes.name_len = nil, 0
    end
    wishes.verifies = verify and 1 or 0
    wishes.keeps_session = keeps and 1 or 0
    wishes.session = is_of(session, "struct terrace_session *") and session or nil
    wishes.certificates, wishes.key, wishes.trusted = self[CERTIFICATE], self[KEY], self[TRUSTED]
    local code = native.tcp_handshake(u, wishes, text)
    if code == 1 then
        if verify then
            self[TRUSTED] = nil
        end
        local ok, err = await()
        if not ok then
            return nil, err
        end
    elseif code ~= 0 then
        return refused(code)
    end
    if keeps then
        return session_of(u) or session or true
    end
    return true
end

function methods.getsslsession(self)
    local state = native.tcp_is_tls(self[1])
    if state == FAILED then
        return nil, "closed"
    elseif state ~= 0 then
        return nil, "no ssl connection"
    end
    local session = session_of(self[1])
    if not session then
        return nil, "no session is kept"
    end
    return session
end

-- There is no OpenSSL object that C code could work on.
local function no_pointer(self)
    local state = native.tcp_is_tls(self[1])
    if state == FAILED then
        return nil, "closed"
    elseif state ~= 0 then
        return nil, "no ssl connection"
    end
    return nil, "not supported: TLS is not OpenSSL's"
end

methods.getsslpointer = no_pointer
methods.getsslctx = no_pointer

-- ngx.req.socket: the body's socket only receives; a raw one is the client's connection.
local body_methods = {
    receive = methods.receive, receiveany = methods.receiveany, receiveuntil = methods.receiveuntil,
    settimeout = methods.settimeout, settimeouts = methods.settimeouts, getfd = methods.getfd,
}
local raw_methods = { send = methods.send }
for name, method in pairs(body_methods) do
    raw_methods[name] = method
end
local body_mt, raw_mt = { __index = body_methods }, { __index = raw_methods }
local request_code = ffi_new("int[1]")

function ngx.req.socket(...)
    local count = select("#", ...)
    if count > 1 then
        error("expecting 0 or 1 argument, but got " .. count, 2)
    end
    local raw = (...) and true or false
    local socket = native.tcp_request(raw and 1 or 0, request_code, text)
    local code = request_code[0]
    if code == 0 then
        return setmetatable({ ffi_gc(socket, tcp_free) }, raw and raw_mt or body_mt)
    elseif code == FAILED then
        return nil, take()
    elseif code == -2 then
        error("attempt to read the request body in a subrequest", 2)
    end
    refuse(code)
end

ngx.socket = { tcp = tcp, stream = tcp }

function ngx.socket.connect(...)
    local sock = tcp()
    local ok, err = sock:connect(...)
    if ok then
        return sock
    end
    return nil, err
end

return { refused = refused, check_timeout = check_timeout }
