-- A client for memcached's text protocol under the interface that scripts know.
--
-- A method of one key has three parts: the request, what answers it, and what that means; a pipeline keeps the first
-- two apart in time.

local error, ipairs, pairs, select, setmetatable, tonumber, tostring, type =
    error, ipairs, pairs, select, setmetatable, tonumber, tostring, type
local find, match = string.find, string.match
local concat = table.concat
local new_table = require "table.new"
local escape_uri, unescape_uri, tcp = ngx.escape_uri, ngx.unescape_uri, ngx.socket.tcp

local NEST_MAX = 100

local _M = { _VERSION = "0.18" }
local mt = { __index = _M }

-- A connection object. `opts.key_transform` is a list of two functions that escape and unescape keys; by default those for
-- URIs. Answers nil and an error where there is no socket.
function _M.new(_, opts)
    local sock, err = tcp()
    if not sock then
        return nil, err
    end
    local escape, unescape = escape_uri, unescape_uri
    local transform = opts and opts.key_transform
    if transform then
        escape, unescape = transform[1], transform[2]
        if not escape or not unescape then
            return nil, "expecting key_transform = { escape, unescape } table"
        end
    end
    return setmetatable({
        sock = sock, escape_key = escape, unescape_key = unescape,
        -- Requests of the pipeline, and what reads their answers.
        _reqs = false, _readers = false,
    }, mt)
end

function _M.set_timeout(self, timeout)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    sock:settimeout(timeout)
    return 1
end

function _M.set_timeouts(self, connect_timeout, send_timeout, read_timeout)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    sock:settimeouts(connect_timeout, send_timeout, read_timeout)
    return 1
end

-- These are the socket's methods under the names of this library.
for name, of_socket in pairs {
    connect = "connect", sslhandshake = "sslhandshake", set_keepalive = "setkeepalive",
    get_reused_times = "getreusedtimes", close = "close",
} do
    _M[name] = function(self, ...)
        local sock = self.sock
        if not sock then
            return nil, "not initialized"
        end
        return sock[of_socket](sock, ...)
    end
end

-- A late answer would be taken for that of the next request, so the connection goes.
local function receive(sock, size)
    local data, err = sock:receive(size)
    if not data then
        if err == "timeout" then
            sock:close()
        end
        return nil, err
    end
    return data
end

-- Sends a request and reads what answers it; in a pipeline that comes later.
local function exchange(self, request, read)
    local sock = self.sock
    if not sock then
        return read(self, nil, "not initialized")
    end
    local requests = self._reqs
    if requests then
        local n = #requests + 1
        requests[n], self._readers[n] = request, read
        return 1
    end
    local bytes, err = sock:send(request)
    if not bytes then
        return read(self, nil, err)
    end
    return read(self, sock)
end

-- The data of `size` bytes behind a VALUE line.
local function read_data(sock, size)
    local data, err = receive(sock, tonumber(size))
    if not data then
        return nil, err
    end
    local ok
    ok, err = receive(sock, 2)
    if not ok then
        return nil, err
    end
    return data
end

-- The entry of one key: found, flags, cas unique, error.
local function read_entry(sock)
    local line, err = receive(sock)
    if not line then
        return nil, nil, nil, err
    elseif line == "END" then
        return nil
    end
    local flags, size, unique = match(line, "^VALUE %S+ (%d+) (%d+) ?(%d*)$")
    if not flags then
        return nil, nil, nil, line
    end
    local data
    data, err = read_data(sock, size)
    if not data then
        return nil, nil, nil, err
    end
    line, err = receive(sock)
    if not line then
        return nil, nil, nil, err
    elseif line ~= "END" then
        return nil, nil, nil, line
    end
    return data, flags, unique
end

local function read_get(_, sock, err)
    if not sock then
        return nil, nil, err
    end
    local data, flags, _, problem = read_entry(sock)
    return data, flags, problem
end

local function read_gets(_, sock, err)
    if not sock then
        return nil, nil, nil, err
    end
    return read_entry(sock)
end

-- The entries of many keys: key -> { value, flags, cas unique }.
local function read_entries(self, sock, err)
    if not sock then
        return nil, err
    end
    local results = {}
    while true do
        local line
        line, err = receive(sock)
        if not line then
            return nil, err
        elseif line == "END" then
            return results
        end
        local key, flags, size, unique = match(line, "^VALUE (%S+) (%d+) (%d+) ?(%d*)$")
        if not key then
            return nil, line
        end
        local data
        data, err = read_data(sock, size)
        if not data then
            return nil, err
        end
        results[self.unescape_key(key)] = { data, flags, unique ~= "" and unique or nil }
    end
end

local function retrieval(name, read_one)
    return function(self, key)
        if type(key) ~= "table" then
            return exchange(self, name .. " " .. self.escape_key(key) .. "\r\n", read_one)
        end
        local count = #key
        if count == 0 then
            return {}
        end
        local keys = new_table(count, 0)
        for i = 1, count do
            keys[i] = self.escape_key(key[i])
        end
        return exchange(self, name .. " " .. concat(keys, " ") .. "\r\n", read_entries)
    end
end

-- `get(key)` answers value, flags, error; three nils if there is none. `get(keys)` answers key -> { value, flags }, error.
_M.get = retrieval("get", read_get)
-- As get, with the entry's cas unique behind the flags.
_M.gets = retrieval("gets", read_gets)

-- A line that is what was hoped for is 1; any other an error.
local function line_reader(wanted)
    return function(_, sock, err)
        if not sock then
            return nil, err
        end
        local line
        line, err = receive(sock)
        if not line then
            return nil, err
        elseif line == wanted then
            return 1
        end
        return nil, line
    end
end

local read_stored, read_deleted, read_ok, read_touched =
    line_reader("STORED"), line_reader("DELETED"), line_reader("OK"), line_reader("TOUCHED")

local function flatten(pieces, value, depth)
    if depth > NEST_MAX then
        error("bad argument (the table is nested too deeply)", 0)
    end
    for _, piece in ipairs(value) do
        if type(piece) == "table" then
            flatten(pieces, piece, depth + 1)
        else
            pieces[#pieces + 1] = tostring(piece)
        end
    end
    return pieces
end

local function value_text(value)
    if type(value) == "table" then
        return concat(flatten({}, value, 1))
    end
    return type(value) == "string" and value or tostring(value)
end

local function storage(name)
    return function(self, key, value, exptime, flags)
        value = value_text(value)
        return exchange(self, name .. " " .. self.escape_key(key) .. " " .. (flags or 0) .. " " .. (exptime or 0) .. " "
            .. #value .. "\r\n" .. value .. "\r\n", read_stored)
    end
end

-- `set(key, value, exptime?, flags?)`: 1, or nil and an error. A value may be a table of strings.
for _, name in ipairs { "set", "add", "replace", "append", "prepend" } do
    _M[name] = storage(name)
end

-- Stores where the entry still is the one that `gets` gave.
function _M.cas(self, key, value, unique, exptime, flags)
    value = value_text(value)
    return exchange(self, "cas " .. self.escape_key(key) .. " " .. (flags or 0) .. " " .. (exptime or 0) .. " " .. #value
        .. " " .. unique .. "\r\n" .. value .. "\r\n", read_stored)
end

function _M.delete(self, key)
    return exchange(self, "delete " .. self.escape_key(key) .. "\r\n", read_deleted)
end

function _M.touch(self, key, exptime)
    return exchange(self, "touch " .. self.escape_key(key) .. " " .. tostring(exptime) .. "\r\n", read_touched)
end

function _M.flush_all(self, time)
    return exchange(self, time and "flush_all " .. time .. "\r\n" or "flush_all\r\n", read_ok)
end

function _M.verbosity(self, level)
    return exchange(self, "verbosity " .. tostring(level) .. "\r\n", read_ok)
end

local function read_number(_, sock, err)
    if not sock then
        return nil, err
    end
    local line
    line, err = receive(sock)
    if not line then
        return nil, err
    elseif find(line, "^%d+ *$") then
        return match(line, "^%d+")
    end
    return nil, line
end

-- The new value, as text; or nil and an error.
function _M.incr(self, key, delta)
    return exchange(self, "incr " .. self.escape_key(key) .. " " .. tostring(delta) .. "\r\n", read_number)
end

function _M.decr(self, key, delta)
    return exchange(self, "decr " .. self.escape_key(key) .. " " .. tostring(delta) .. "\r\n", read_number)
end

local function read_lines(_, sock, err)
    if not sock then
        return nil, err
    end
    local lines = {}
    while true do
        local line
        line, err = receive(sock)
        if not line then
            return nil, err
        elseif line == "END" or line == "RESET" then
            return lines
        elseif find(line, "ERROR", 1, true) and not find(line, "^STAT ") then
            return nil, line
        end
        lines[#lines + 1] = line
    end
end

-- The list of lines; what is general, or what `args` asks for.
function _M.stats(self, args)
    return exchange(self, args and "stats " .. args .. "\r\n" or "stats\r\n", read_lines)
end

local function read_version(_, sock, err)
    if not sock then
        return nil, err
    end
    local line
    line, err = receive(sock)
    if not line then
        return nil, err
    end
    local version = match(line, "^VERSION (.+)$")
    if not version then
        return nil, line
    end
    return version
end

function _M.version(self)
    return exchange(self, "version\r\n", read_version)
end

-- Asks the server to close the connection.
function _M.quit(self)
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    end
    local bytes, err = sock:send("quit\r\n")
    if not bytes then
        return nil, err
    end
    return 1
end

-- Collects the requests that follow. Answers an error, or nothing.
function _M.init_pipeline(self, n)
    if self._reqs then
        return "already init pipeline"
    elseif n ~= nil and type(n) ~= "number" then
        return "bad n arg: number expected, but got " .. type(n)
    end
    self._reqs, self._readers = new_table(n or 4, 0), new_table(n or 4, 0)
end

function _M.cancel_pipeline(self)
    self._reqs, self._readers = false, false
end

-- Sends what was collected; answers a list with one list of each request's values.
function _M.commit_pipeline(self)
    local requests, readers = self._reqs, self._readers
    if not requests then
        return nil, "no pipeline"
    end
    self._reqs, self._readers = false, false
    local sock = self.sock
    if not sock then
        return nil, "not initialized"
    elseif #requests == 0 then
        return nil, "no more cmds"
    end
    local bytes, err = sock:send(requests)
    if not bytes then
        return nil, err
    end
    local results = new_table(#readers, 0)
    local function keep(i, ...)
        local value = {}
        for at = 1, select("#", ...) do
            value[at] = (select(at, ...))
        end
        results[i] = value
    end
    for i = 1, #readers do
        keep(i, readers[i](self, sock))
    end
    return results
end

return _M
