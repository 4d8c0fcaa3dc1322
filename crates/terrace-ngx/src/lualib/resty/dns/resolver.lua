-- A DNS client under the interface that scripts know: UDP with retransmission to one name server after the other, TCP where
-- a reply is truncated.

local message = require "terrace.dns_message"

local byte, find, gmatch, gsub, rep, reverse, sub =
    string.byte, string.find, string.gmatch, string.gsub, string.rep, string.reverse, string.sub
local concat, random = table.concat, math.random
local ipairs, setmetatable, tostring, type = ipairs, setmetatable, tostring, type
local udp, tcp = ngx.socket.udp, ngx.socket.tcp
local random_bytes = require("terrace.digest").random_bytes

local PORT_DEFAULT = 53
local RETRANS_DEFAULT = 5
local TIMEOUT_MS_DEFAULT = 2000
local DATAGRAM_BYTES_MAX = 4096
-- Late replies to queries before are read away up to this number.
local MISMATCHES_MAX = 128

local _M = {
    _VERSION = "0.23",
    TYPE_A = 1, TYPE_NS = 2, TYPE_CNAME = 5, TYPE_SOA = 6, TYPE_PTR = 12, TYPE_MX = 15, TYPE_TXT = 16, TYPE_AAAA = 28,
    TYPE_SRV = 33, TYPE_SPF = 99,
    CLASS_IN = 1,
    SECTION_AN = 1, SECTION_NS = 2, SECTION_AR = 3,
}
local mt = { __index = _M }

-- A resolver, or nil and an error. Options: nameservers { "host" or { "host", port }, … }, retrans (5), timeout (2000 ms),
-- no_recurse, no_random.
function _M.new(_, options)
    if not options then
        return nil, "no options table specified"
    end
    local servers = options.nameservers
    if not servers or #servers == 0 then
        return nil, "no nameservers specified"
    end
    local timeout = options.timeout or TIMEOUT_MS_DEFAULT
    local socks = {}
    for i, server in ipairs(servers) do
        local host, port = server, PORT_DEFAULT
        if type(server) == "table" then
            host, port = server[1], server[2] or PORT_DEFAULT
        end
        local sock, err = udp()
        if not sock then
            return nil, "failed to create udp socket: " .. err
        end
        local ok
        ok, err = sock:setpeername(host, port)
        if not ok then
            return nil, "failed to set peer name: " .. err
        end
        sock:settimeout(timeout)
        socks[i] = { udp = sock, host = host, port = port }
    end
    return setmetatable({
        cur = options.no_random and 1 or random(1, #socks),
        socks = socks,
        retrans = options.retrans or RETRANS_DEFAULT,
        timeout = timeout,
        no_recurse = options.no_recurse,
    }, mt)
end

-- Gives the sockets back.
function _M.destroy(self)
    for _, server in ipairs(self.socks or {}) do
        server.udp:close()
    end
    self.socks, self.cur = nil, nil
end

function _M.set_timeout(self, timeout)
    if not self.socks then
        return nil, "not initialized"
    end
    self.timeout = timeout
    for _, server in ipairs(self.socks) do
        server.udp:settimeout(timeout)
    end
    return true
end

local function next_server(self)
    local server = self.socks[self.cur]
    self.cur = self.cur % #self.socks + 1
    return server
end

-- What nobody who does not see the query can guess.
local function new_id()
    local bytes = random_bytes(2)
    if not bytes then
        return random(0, 65535)
    end
    local high, low = byte(bytes, 1, 2)
    return high * 256 + low
end

local function address(server)
    return tostring(server.host) .. ":" .. tostring(server.port)
end

local function ask_by_tcp(self, server, query, id, options)
    local sock, err = tcp()
    if not sock then
        return nil, "failed to create tcp socket: " .. err
    end
    sock:settimeout(self.timeout)
    local where = "TCP server " .. address(server) .. ": "
    local ok
    ok, err = sock:connect(server.host, server.port)
    if not ok then
        return nil, "failed to connect to " .. where .. err
    end
    local bytes
    bytes, err = sock:send(message.int2(#query) .. query)
    if not bytes then
        return nil, "failed to send query to " .. where .. err
    end
    local length
    length, err = sock:receive(2)
    if not length then
        return nil, "failed to receive the reply length field from " .. where .. err
    end
    local high, low = byte(length, 1, 2)
    local data
    data, err = sock:receive(high * 256 + low)
    if not data then
        return nil, "failed to receive the reply message body from " .. where .. err
    end
    sock:close()
    local answers
    answers, err = message.reply(data, id, options)
    if not answers then
        return nil, "failed to parse the reply from the " .. where .. err
    end
    return answers
end

-- One transmission. Answers the records; or nil, an error, and whether another try is worth it.
local function ask_by_udp(self, server, query, id, options)
    local sock = server.udp
    local ok, err = sock:send(query)
    if not ok then
        return nil, "failed to send request to UDP server " .. address(server) .. ": " .. err, true
    end
    for _ = 1, MISMATCHES_MAX do
        local data
        data, err = sock:receive(DATAGRAM_BYTES_MAX)
        if not data then
            return nil, "failed to receive reply from UDP server " .. address(server) .. ": " .. err, true
        end
        local answers
        answers, err = message.reply(data, id, options)
        if answers then
            return answers
        elseif err == "truncated" then
            return ask_by_tcp(self, server, query, id, options)
        elseif err ~= "id mismatch" then
            return nil, err
        end
    end
    return nil, err
end

-- The records for a name, or nil and an error. Options: qtype (A), authority_section, additional_section. The errors of
-- single tries go into `tries`, if there is such a table, which is the third value then.
function _M.query(self, name, options, tries)
    if not self.socks then
        return nil, "not initialized"
    end
    options = options or {}
    local id = new_id()
    local query, err = message.question(id, name, options.qtype or _M.TYPE_A, not self.no_recurse)
    if not query then
        return nil, err
    end
    if tries then
        tries[1] = nil
    end
    for try = 1, self.retrans do
        local answers, is_worth_another
        answers, err, is_worth_another = ask_by_udp(self, next_server(self), query, id, options)
        if answers then
            return answers, nil, tries
        end
        if tries then
            tries[try], tries[try + 1] = err, nil
        end
        if not is_worth_another then
            break
        end
    end
    return nil, err, tries
end

-- The same by TCP alone.
function _M.tcp_query(self, name, options)
    if not self.socks then
        return nil, "not initialized"
    end
    options = options or {}
    local id = new_id()
    local query, err = message.question(id, name, options.qtype or _M.TYPE_A, not self.no_recurse)
    if not query then
        return nil, err
    end
    return ask_by_tcp(self, next_server(self), query, id, options)
end

-- The longest run of zero groups becomes `::`; what has one already stays.
function _M.compress_ipv6_addr(text)
    if find(text, "::", 1, true) then
        return text
    end
    local groups, best, best_length, run = {}, nil, 1, 0
    for group in gmatch(text, "[^:]+") do
        groups[#groups + 1] = group
        run = find(group, "^0+$") and run + 1 or 0
        if run > best_length then
            best, best_length = #groups - run + 1, run
        end
    end
    if not best then
        return text
    end
    return concat(groups, ":", 1, best - 1) .. "::" .. concat(groups, ":", best + best_length)
end

-- `::` becomes the zero groups it stands for.
function _M.expand_ipv6_addr(text)
    local at = find(text, "::", 1, true)
    if not at then
        return text
    end
    local before, after = sub(text, 1, at - 1), sub(text, at + 2)
    local _, given = gsub(before .. ":" .. after, "[^:]+", "")
    local zeros = sub(rep("0:", 8 - given), 1, -2)
    return (before ~= "" and before .. ":" or "") .. zeros .. (after ~= "" and ":" .. after or "")
end

-- The name under which an address's own name stands.
function _M.arpa_str(text)
    if not find(text, ":", 1, true) then
        return (gsub(text, "^(%d+)%.(%d+)%.(%d+)%.(%d+)$", "%4.%3.%2.%1.in-addr.arpa"))
    end
    local digits = gsub(_M.expand_ipv6_addr(text), "[^:]+", function(group)
        return rep("0", 4 - #group) .. group
    end)
    digits = gsub(digits, ":", "")
    return (gsub(reverse(digits), ".", "%0.")) .. "ip6.arpa"
end

function _M.reverse_query(self, text)
    return self:query(self.arpa_str(text), { qtype = self.TYPE_PTR })
end

return _M
