-- A client for MySQL and MariaDB under the interface that scripts know: text queries over the client protocol.
--
-- Integers up to 32 bits, decimals and floating-point values are numbers, 64-bit integers and all else strings, NULL is
-- ngx.null.

local auth = require "terrace.mysql_auth"
local bit = require "bit"
local new_table = require "table.new"
local packet = require "terrace.mysql_packet"

local band, bor = bit.band, bit.bor
local byte, char, rep, sub = string.byte, string.char, string.rep, string.sub
local setmetatable, tonumber = setmetatable, tonumber
local null, tcp = ngx.null, ngx.socket.tcp
local lenenc, read_string = packet.lenenc, packet.string
local OK, ERR, EOF, DATA = packet.OK, packet.ERR, packet.EOF, packet.DATA

local PORT_DEFAULT = 3306
local PACKET_BYTES_MAX_DEFAULT = 1024 * 1024
local ROWS_DEFAULT = 4

local COM_QUIT, COM_QUERY = "\1", "\3"
local MORE_RESULTS_EXIST = 8
local CLIENT_SSL, CLIENT_PLUGIN_AUTH, CLIENT_PLUGIN_AUTH_LENENC = 0x800, 0x80000, 0x200000
-- LONG_PASSWORD, FOUND_ROWS, LONG_FLAG, CONNECT_WITH_DB, ODBC, IGNORE_SPACE, PROTOCOL_41, INTERACTIVE, IGNORE_SIGPIPE,
-- TRANSACTIONS, RESERVED, SECURE_CONNECTION, MULTI_STATEMENTS, MULTI_RESULTS.
local CLIENT_FLAGS = 0x3f74f

local CONNECTED, COMMAND_SENT = 1, 2

-- Column types whose text is a number.
local converters = {
    [0x00] = tonumber, [0x01] = tonumber, [0x02] = tonumber, [0x03] = tonumber, [0x04] = tonumber, [0x05] = tonumber,
    [0x09] = tonumber, [0x0d] = tonumber, [0xf6] = tonumber,
}

-- The default collation of each character set.
local charsets = {
    _default = 0, big5 = 1, dec8 = 3, cp850 = 4, hp8 = 6, koi8r = 7, latin1 = 8, latin2 = 9, swe7 = 10, ascii = 11,
    ujis = 12, sjis = 13, hebrew = 16, tis620 = 18, euckr = 19, koi8u = 22, gb2312 = 24, greek = 25, cp1250 = 26,
    gbk = 28, latin5 = 30, armscii8 = 32, utf8 = 33, ucs2 = 35, cp866 = 36, keybcs2 = 37, macce = 38, macroman = 39,
    cp852 = 40, latin7 = 41, utf8mb4 = 45, cp1251 = 51, utf16 = 54, utf16le = 56, cp1256 = 57, cp1257 = 59, utf32 = 60,
    binary = 63, geostd8 = 92, cp932 = 95, eucjpms = 97, gb18030 = 248,
}

local _M = { _VERSION = "0.29" }
local mt = { __index = _M }

-- A connection object, not connected yet; or nil and an error.
function _M.new(_)
    local sock, err = tcp()
    if not sock then
        return nil, err
    end
    return setmetatable({ sock = sock, packet_no = -1 }, mt)
end

function _M.set_timeout(self, timeout)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return sock:settimeout(timeout)
end

function _M.set_timeouts(self, connect_timeout, send_timeout, read_timeout)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return sock:settimeouts(connect_timeout, send_timeout, read_timeout)
end

-- The server's greeting: capabilities, scramble and plugin go into a table; or nil, error, number and state.
local function read_greeting(self)
    local payload, kind = packet.receive_kind(self)
    if not payload then
        return nil, kind
    elseif kind == ERR then
        return nil, packet.read_error(payload)
    end
    self.protocol_ver = byte(payload)
    if self.protocol_ver ~= 10 then
        return nil, "unsupported protocol version " .. self.protocol_ver
    end
    local version, pos = packet.zero_string(payload, 2)
    if not version then
        return nil, "bad handshake initialization packet: bad server version"
    end
    self._server_ver = version
    -- The connection's number, then the first eight bytes of the scramble and a filler.
    local scramble = sub(payload, pos + 4, pos + 11)
    if #scramble < 8 then
        return nil, "1st part of scramble not found"
    end
    pos = pos + 13
    local low, high
    low, pos = packet.int2(payload, pos)
    -- The server's character set and status.
    high, pos = packet.int2(payload, pos + 3)
    self.capabilities = bor(low, high * 65536)
    local length = byte(payload, pos) or 0
    pos = pos + 11
    local rest = length - 8 > 13 and length - 8 or 13
    local second = sub(payload, pos, pos + rest - 2)
    if #second < 12 then
        return nil, "2nd part of scramble not found"
    end
    local plugin
    if band(self.capabilities, CLIENT_PLUGIN_AUTH) ~= 0 then
        plugin = packet.zero_string(payload, pos + rest) or sub(payload, pos + rest)
    end
    return { scramble = scramble .. second, plugin = plugin ~= "" and plugin or "mysql_native_password" }
end

local function start_tls(self, flags, charset)
    if band(self.capabilities, CLIENT_SSL) == 0 then
        return nil, "ssl disabled on server"
    end
    local bytes, err = packet.send(self, packet.int4_bytes(bor(flags, CLIENT_SSL))
        .. packet.int4_bytes(self._max_packet_size) .. char(charset) .. rep("\0", 23))
    if not bytes then
        return nil, "failed to send client authentication packet: " .. err
    end
    local ok
    ok, err = self.sock:sslhandshake(false, nil, self.ssl_verify)
    if not ok then
        return nil, "failed to do ssl handshake: " .. (err or "")
    end
    self.is_tls = true
    return true
end

local function log_in(self, options, charset)
    local greeting, err, code, state = read_greeting(self)
    if not greeting then
        return nil, err, code, state
    end
    local flags = bor(CLIENT_FLAGS, band(self.capabilities, CLIENT_PLUGIN_AUTH),
        band(self.capabilities, CLIENT_PLUGIN_AUTH_LENENC))
    if self.use_ssl then
        local ok
        ok, err = start_tls(self, flags, charset)
        if not ok then
            return nil, err
        end
        flags = bor(flags, CLIENT_SSL)
    end
    local password, plugin = options.password or "", greeting.plugin
    local answer
    answer, err = auth.answer(self, plugin, password, greeting.scramble)
    if not answer then
        -- The server may know another plugin for this user, so the one that is always there is tried.
        plugin = "mysql_native_password"
        answer = auth.answer(self, plugin, password, greeting.scramble)
    end
    local bytes
    bytes, err = packet.send(self, packet.int4_bytes(flags) .. packet.int4_bytes(self._max_packet_size) .. char(charset)
        .. rep("\0", 23) .. self.user .. "\0" .. char(#answer) .. answer .. self.database .. "\0" .. plugin .. "\0")
    if not bytes then
        return nil, "failed to send client authentication packet: " .. err
    end
    return auth.finish(self, plugin, password, greeting.scramble)
end

local function dial(self, options)
    local sock, host = self.sock, options.host
    local pool_options = { pool_size = options.pool_size, backlog = options.backlog, pool = options.pool }
    local name = self.user .. ":" .. self.database .. ":"
    if host then
        local port = options.port or PORT_DEFAULT
        pool_options.pool = pool_options.pool or name .. host .. ":" .. port
        return sock:connect(host, port, pool_options)
    end
    local path = options.path
    pool_options.pool = pool_options.pool or name .. path
    if sub(path, 1, 5) ~= "unix:" then
        path = "unix:" .. path
    end
    self.is_unix = true
    return sock:connect(path, pool_options)
end

-- Options: host and port (3306) or path, database, user, password, charset, max_packet_size (1 MiB), ssl, ssl_verify,
-- pool, pool_size, backlog, compact_arrays. Answers 1; or nil, an error, and the server's number and SQL state for it.
function _M.connect(self, options)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local charset = charsets[options.charset or "_default"]
    if not charset then
        return nil, "charset '" .. options.charset .. "' is not supported"
    end
    self._max_packet_size = options.max_packet_size or PACKET_BYTES_MAX_DEFAULT
    self.compact = options.compact_arrays
    self.database, self.user = options.database or "", options.user or ""
    self.ssl_verify = options.ssl_verify
    self.use_ssl = options.ssl or options.ssl_verify
    self.is_unix, self.is_tls, self.state = false, false, nil
    if not options.host and not options.path then
        return nil, "neither \"host\" nor \"path\" options are specified"
    end
    local ok, err = dial(self, options)
    if not ok then
        return nil, "failed to connect: " .. err
    end
    if sock:getreusedtimes() > 0 then
        self.state = CONNECTED
        return 1
    end
    self.packet_no = -1
    local code, state
    ok, err, code, state = log_in(self, options, charset)
    if not ok then
        return nil, err, code, state
    end
    self.state = CONNECTED
    return 1
end

function _M.set_keepalive(self, ...)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    elseif self.state ~= CONNECTED then
        return nil, "cannot be reused in the current connection state: " .. (self.state or "nil")
    end
    self.state = nil
    return sock:setkeepalive(...)
end

function _M.get_reused_times(self)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    return sock:getreusedtimes()
end

function _M.close(self)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    if self.state then
        self.state, self.packet_no = nil, -1
        packet.send(self, COM_QUIT)
    end
    return sock:close()
end

-- The server's version as it tells it; nil where there was no connection.
function _M.server_ver(self)
    return self._server_ver
end

function _M.set_compact_arrays(self, value)
    self.compact = value
end

-- Sends a query; answers how many bytes that took.
function _M.send_query(self, query)
    local sock = self.sock
    if self.state ~= CONNECTED then
        return nil, "cannot send query in the current context: " .. (self.state or "nil")
    elseif not sock then
        return nil, "not initialized"
    end
    self.packet_no = -1
    local bytes, err = packet.send(self, COM_QUERY .. query)
    if not bytes then
        return nil, err
    end
    self.state = COMMAND_SENT
    return bytes
end

-- What an OK packet tells, and whether more results follow.
local function read_ok(payload)
    local affected, insert_id, pos
    affected, pos = lenenc(payload, 2)
    insert_id, pos = lenenc(payload, pos)
    local status, warnings
    status, pos = packet.int2(payload, pos)
    warnings, pos = packet.int2(payload, pos)
    local message
    if pos <= #payload then
        local length, from = lenenc(payload, pos)
        -- Servers put the text's length ahead of it.
        message = sub(payload, length == #payload - from + 1 and from or pos)
    end
    return {
        affected_rows = affected, insert_id = insert_id, server_status = status, warning_count = warnings,
        message = message ~= "" and message or nil,
    }, band(status, MORE_RESULTS_EXIST) ~= 0
end

-- Names and converters of a result's columns; or nil, error, number and state.
local function read_columns(self, count)
    local names, converts = new_table(count, 0), new_table(count, 0)
    for i = 1, count do
        local payload, kind = packet.receive_kind(self)
        if not payload then
            return nil, kind
        elseif kind == ERR then
            return nil, packet.read_error(payload)
        elseif kind ~= DATA then
            return nil, "bad field packet type: " .. kind
        end
        -- Catalog, schema, table and its real name come ahead of the name.
        local pos = 1
        for _ = 1, 4 do
            local _, after = read_string(payload, pos)
            pos = after
        end
        names[i], pos = read_string(payload, pos)
        local _, after = read_string(payload, pos)
        -- A length, the character set, the column's length, and then its type.
        converts[i] = converters[byte(payload, after + 7)] or false
    end
    local payload, kind = packet.receive_kind(self)
    if not payload then
        return nil, kind
    elseif kind ~= EOF then
        return nil, "unexpected packet type " .. kind .. " while eof packet is expected"
    end
    return names, converts
end

local function read_row(payload, names, converts, is_compact)
    local count = #names
    local row = is_compact and new_table(count, 0) or new_table(0, count)
    local pos = 1
    for i = 1, count do
        local value
        value, pos = read_string(payload, pos)
        if value == nil then
            value = null
        else
            local convert = converts[i]
            if convert then
                value = convert(value)
            end
        end
        row[is_compact and i or names[i]] = value
    end
    return row
end

local function read_rows(self, payload, expected)
    local names, converts, code, state = read_columns(self, (lenenc(payload, 1)))
    if not names then
        return nil, converts, code, state
    end
    local is_compact = self.compact
    local rows, n = new_table(expected or ROWS_DEFAULT, 0), 0
    while true do
        local row, kind = packet.receive_kind(self)
        if not row then
            return nil, kind
        elseif kind == EOF then
            local status = packet.int2(row, 4)
            if band(status, MORE_RESULTS_EXIST) ~= 0 then
                return rows, "again"
            end
            self.state = CONNECTED
            return rows
        elseif kind == ERR then
            self.state = CONNECTED
            return nil, packet.read_error(row)
        end
        n = n + 1
        -- A row may begin with any byte: an empty string or NULL, say.
        rows[n] = read_row(row, names, converts, is_compact)
    end
end

-- The next result of a query: rows, or what a statement did; then "again" where more follow. Else nil, error, number and
-- state. About `expected` rows are made room for.
function _M.read_result(self, expected)
    if self.state ~= COMMAND_SENT then
        return nil, "cannot read result in the current context: " .. (self.state or "nil")
    elseif not self.sock then
        return nil, "not initialized"
    end
    local payload, kind = packet.receive_kind(self)
    if not payload then
        return nil, kind
    elseif kind == ERR then
        self.state = CONNECTED
        return nil, packet.read_error(payload)
    elseif kind == OK then
        local result, has_more = read_ok(payload)
        if has_more then
            return result, "again"
        end
        self.state = CONNECTED
        return result
    elseif kind ~= DATA then
        self.state = CONNECTED
        return nil, "packet type " .. kind .. " not supported"
    end
    return read_rows(self, payload, expected)
end

-- send_query and the first read_result.
function _M.query(self, query, expected)
    local bytes, err = self:send_query(query)
    if not bytes then
        return nil, "failed to send query: " .. err
    end
    return self:read_result(expected)
end

return _M
