-- A client for Redis under the interface that scripts know: every command is a method, replies are Lua values.
--
-- A status is a string, an integer a number, a bulk a string or ngx.null, an array a table, an error `false` and its
-- text (inside of an array or a pipeline: `{ false, text }`). Failures of the connection are nil and their text.

local error, pairs, select, setmetatable, tonumber, tostring, type =
    error, pairs, select, setmetatable, tonumber, tostring, type
local byte, find, sub, upper = string.byte, string.find, string.sub, string.upper
local concat, remove = table.concat, table.remove
local new_table = require "table.new"
local null, tcp = ngx.null, ngx.socket.tcp

-- Methods that are made on first use are kept up to this number, since their names may come from anywhere.
local METHODS_MAX = 1000
local PIPELINE_COMMANDS_DEFAULT = 4

local STATUS, INTEGER, BULK, ARRAY, ERROR = 43, 58, 36, 42, 45

local _M = { _VERSION = "0.32" }
local mt = { __index = _M }

-- A connection object, not connected yet; or nil and an error.
function _M.new(_)
    local sock, err = tcp()
    if not sock then
        return nil, err
    end
    return setmetatable({
        _sock = sock,
        -- Whether a channel is subscribed to, how many of each kind, and messages that came between replies.
        _subscribed = false,
        _channels = false,
        _messages = false,
        -- Commands of the pipeline.
        _reqs = false,
        _module_prefix = false,
    }, mt)
end

local function sock_or_raise(self)
    return self._sock or error("not initialized", 3)
end

-- Milliseconds, for all that follows.
function _M.set_timeout(self, timeout)
    sock_or_raise(self):settimeout(timeout)
end

function _M.set_timeouts(self, connect_timeout, send_timeout, read_timeout)
    sock_or_raise(self):settimeouts(connect_timeout, send_timeout, read_timeout)
end

local function bad_argument(position, name, expected, got)
    error("bad argument #" .. position .. " " .. name .. ": " .. expected .. " expected, got " .. got, 4)
end

local function check_options(options, position)
    local t = type(options)
    if t ~= "nil" and t ~= "table" then
        bad_argument(position, "opts", "nil or table", t)
    end
end

-- Host, port (nil for a Unix socket) and options out of connect's arguments.
local function read_target(host, port, options)
    if type(host) ~= "string" then
        bad_argument(1, "host", "string", type(host))
    end
    if sub(host, 1, 5) == "unix:" then
        check_options(port, 2)
        return nil, port
    end
    local number = tonumber(port)
    if not number then
        bad_argument(2, "port", "number", type(port))
    end
    check_options(options, 3)
    return number, options
end

-- `connect(host, port, options?)` or `connect("unix:/path", options?)`. Options: ssl, ssl_verify, server_name, pool,
-- pool_size, backlog. Answers 1, or nil and an error.
function _M.connect(self, host, port, options)
    local sock = self._sock
    if not sock then
        return nil, "not initialized"
    end
    port, options = read_target(host, port, options)
    self._subscribed, self._channels, self._messages = false, false, false
    local ok, err
    if port then
        ok, err = sock:connect(host, port, options)
    else
        ok, err = sock:connect(host, options)
    end
    if not ok then
        return nil, err
    end
    if options and options.ssl and sock:getreusedtimes() == 0 then
        ok, err = sock:sslhandshake(false, options.server_name, options.ssl_verify)
        if not ok then
            return ok, "failed to do ssl handshake: " .. tostring(err)
        end
    end
    return 1
end

-- Puts the connection into the pool; arguments as the socket's.
function _M.set_keepalive(self, ...)
    local sock = self._sock
    if not sock then
        return nil, "not initialized"
    elseif self._subscribed then
        return nil, "subscribed state"
    end
    return sock:setkeepalive(...)
end

function _M.get_reused_times(self)
    local sock = self._sock
    if not sock then
        return nil, "not initialized"
    end
    return sock:getreusedtimes()
end

function _M.close(self)
    local sock = self._sock
    if not sock then
        return nil, "not initialized"
    end
    return sock:close()
end

-- A late reply would be taken for that of the next command: the connection goes, unless messages are waited for.
local function lost(self, sock, err)
    if err == "timeout" and not self._subscribed then
        sock:close()
    end
    return nil, err
end

local read_reply

local function read_array(self, sock, count)
    local items = new_table(count < 1024 and count or 1024, 0)
    local n = 0
    for _ = 1, count do
        local item, err = read_reply(self, sock)
        if item == nil then
            return nil, err
        end
        n = n + 1
        items[n] = item or { false, err }
    end
    return items
end

function read_reply(self, sock)
    local line, err = sock:receive()
    if not line then
        return lost(self, sock, err)
    end
    local kind = byte(line)
    if kind == BULK then
        local size = tonumber(sub(line, 2))
        if not size then
            return nil, "bad bulk length in the reply"
        elseif size < 0 then
            return null
        end
        local data
        data, err = sock:receive(size)
        if data then
            local ok
            ok, err = sock:receive(2)
            if ok then
                return data
            end
        end
        if err == "timeout" then
            sock:close()
        end
        return nil, err
    elseif kind == STATUS then
        return sub(line, 2)
    elseif kind == INTEGER then
        return tonumber(sub(line, 2))
    elseif kind == ARRAY then
        local count = tonumber(sub(line, 2))
        if not count then
            return nil, "bad array length in the reply"
        elseif count < 0 then
            return null
        end
        return read_array(self, sock, count)
    elseif kind == ERROR then
        return false, sub(line, 2)
    end
    return nil, "unknown prefix: \"" .. tostring(kind) .. "\""
end

local function is_message(self, reply)
    return self._subscribed and type(reply) == "table" and (reply[1] == "message" or reply[1] == "pmessage")
end

-- The reply to a command; messages that come before it are kept for read_reply.
local function exchange(self, sock, request)
    local pipeline = self._reqs
    if pipeline then
        pipeline[#pipeline + 1] = request
        return
    end
    local bytes, err = sock:send(request)
    if not bytes then
        return nil, err
    end
    local reply
    reply, err = read_reply(self, sock)
    while is_message(self, reply) do
        local messages = self._messages or {}
        messages[#messages + 1] = reply
        self._messages = messages
        reply, err = read_reply(self, sock)
    end
    return reply, err
end

local function bulk(value)
    if type(value) ~= "string" then
        value = tostring(value)
    end
    return "$" .. #value .. "\r\n" .. value .. "\r\n"
end

-- A command of any number of arguments.
local function long_request(name, count, ...)
    local pieces = new_table(count + 2, 0)
    pieces[1] = "*" .. count + 1 .. "\r\n"
    pieces[2] = bulk(name)
    for i = 1, count do
        pieces[i + 2] = bulk((select(i, ...)))
    end
    return concat(pieces)
end

-- The same with more arguments than one would like to select one after the other.
local function list_request(name, arguments, count)
    local pieces = new_table(count + 2, 0)
    pieces[1] = "*" .. count + 1 .. "\r\n"
    pieces[2] = bulk(name)
    for i = 1, count do
        pieces[i + 2] = bulk(arguments[i])
    end
    return concat(pieces)
end

local function any_request(name, ...)
    local count = select("#", ...)
    if count <= 8 then
        return long_request(name, count, ...)
    end
    return list_request(name, { ... }, count)
end

local function prefixed(self, name, ...)
    name = self._module_prefix .. "." .. name
    self._module_prefix = false
    return exchange(self, self._sock, any_request(upper(name), ...))
end

-- The method of a command. What is the same for each call is put together here.
local function command(name)
    local label = bulk(name)
    local with_none, with_one, with_two = "*1\r\n" .. label, "*2\r\n" .. label .. "$", "*3\r\n" .. label .. "$"
    return function(self, ...)
        local sock = self._sock
        if not sock then
            return nil, "not initialized"
        elseif self._module_prefix then
            return prefixed(self, name, ...)
        end
        local count = select("#", ...)
        local request
        if count == 1 then
            local a = ...
            a = type(a) == "string" and a or tostring(a)
            request = with_one .. #a .. "\r\n" .. a .. "\r\n"
        elseif count == 2 then
            local a, b = ...
            a = type(a) == "string" and a or tostring(a)
            b = type(b) == "string" and b or tostring(b)
            request = with_two .. #a .. "\r\n" .. a .. "\r\n$" .. #b .. "\r\n" .. b .. "\r\n"
        elseif count == 0 then
            request = with_none
        else
            request = any_request(name, ...)
        end
        return exchange(self, sock, request)
    end
end

local subscribed_by = { subscribe = "subscribe", psubscribe = "psubscribe" }
local ended_by = { unsubscribe = "subscribe", punsubscribe = "psubscribe" }

-- Keeps count of channels by what a reply says of them.
local function note_subscription(self, reply)
    local kind = type(reply) == "table" and reply[1]
    local channels = self._channels or { subscribe = 0, psubscribe = 0 }
    self._channels = channels
    if subscribed_by[kind] then
        channels[kind] = channels[kind] + 1
    elseif ended_by[kind] then
        local pair = ended_by[kind]
        channels[pair] = channels[pair] - 1
        local messages = self._messages
        local message = kind == "unsubscribe" and "message" or "pmessage"
        for i = messages and #messages or 0, 1, -1 do
            if messages[i][1] == message and messages[i][2] == reply[2] then
                remove(messages, i)
            end
        end
        if reply[3] == 0 then
            self._subscribed = false
        end
    end
end

-- Runs a command that gets a reply for each channel: one channel's reply as it is, more as a list.
local function subscription(name, run)
    local pair = ended_by[name]
    return function(self, ...)
        if pair and not self._subscribed then
            return nil, "not subscribed"
        elseif not pair then
            self._subscribed = true
        end
        local wanted = select("#", ...)
        local reply, err = run(self, ...)
        if not reply then
            return nil, err
        end
        note_subscription(self, reply)
        local is_over = wanted == 1 or not pair and wanted == 0 or pair and self._channels[pair] <= 0
        if is_over then
            return reply
        end
        local replies = { reply }
        while wanted == 0 or #replies < wanted do
            reply, err = read_reply(self, self._sock)
            if not reply then
                return nil, err
            end
            if is_message(self, reply) then
                self._messages = self._messages or {}
                self._messages[#self._messages + 1] = reply
            else
                replies[#replies + 1] = reply
                note_subscription(self, reply)
                if pair and wanted == 0 and self._channels[pair] <= 0 then
                    break
                end
            end
        end
        return replies
    end
end

for _, name in pairs { "subscribe", "psubscribe", "unsubscribe", "punsubscribe" } do
    _M[name] = subscription(name, command(name))
end

-- The next message of a channel that is subscribed to.
function _M.read_reply(self)
    local sock = self._sock
    if not sock then
        return nil, "not initialized"
    elseif not self._subscribed then
        return nil, "not subscribed"
    end
    local messages = self._messages
    if messages and messages[1] then
        return remove(messages, 1)
    end
    local reply, err = read_reply(self, sock)
    if reply then
        note_subscription(self, reply)
    end
    return reply, err
end

local hmset = command("hmset")

-- `hmset(key, field, value, …)` or `hmset(key, { field = value, … })`.
function _M.hmset(self, key, ...)
    if select("#", ...) ~= 1 then
        return hmset(self, key, ...)
    end
    local fields = ...
    if type(fields) ~= "table" then
        return hmset(self, key, fields)
    end
    local flat, n = { key }, 1
    for field, value in pairs(fields) do
        flat[n + 1], flat[n + 2] = field, value
        n = n + 2
    end
    if not self._sock then
        return nil, "not initialized"
    end
    return exchange(self, self._sock, list_request("hmset", flat, n))
end

-- Collects the commands that follow, of which there are about `n`.
function _M.init_pipeline(self, n)
    self._reqs = new_table(n or PIPELINE_COMMANDS_DEFAULT, 0)
end

function _M.cancel_pipeline(self)
    self._reqs = false
end

-- Sends what was collected and answers the list of replies.
function _M.commit_pipeline(self)
    local requests = self._reqs
    if not requests then
        return nil, "no pipeline"
    end
    self._reqs = false
    local sock = self._sock
    if not sock then
        return nil, "not initialized"
    end
    local count = #requests
    if count == 0 then
        return {}
    end
    local bytes, err = sock:send(requests)
    if not bytes then
        return nil, err
    end
    local replies = new_table(count, 0)
    for i = 1, count do
        local reply
        reply, err = read_reply(self, sock)
        if reply == nil then
            if err == "timeout" then
                sock:close()
            end
            return nil, err
        end
        replies[i] = reply or { false, err }
    end
    return replies
end

-- { "a", 1, "b", 2 } becomes { a = 1, b = 2 }.
function _M.array_to_hash(_, list)
    local hash = {}
    for i = 1, #list, 2 do
        hash[list[i]] = list[i + 1]
    end
    return hash
end

-- Makes methods of commands; any other is made when it is first used.
function _M.add_commands(...)
    for i = 1, select("#", ...) do
        local name = select(i, ...)
        _M[name] = command(name)
    end
end

-- `red:bf():add(…)` is then the command `BF.ADD`.
function _M.register_module_prefix(prefix)
    _M[prefix] = function(self)
        self._module_prefix = prefix
        return self
    end
end

local made = 0

setmetatable(_M, {
    __index = function(_, name)
        if type(name) ~= "string" or not find(name, "^%a") then
            return nil
        end
        local method = command(name)
        if made < METHODS_MAX then
            made = made + 1
            _M[name] = method
        end
        return method
    end,
})

return _M
