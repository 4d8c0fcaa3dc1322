-- One exchange with a Kafka broker: a connection out of the pool, a request, its response.

local wire = require "terrace.kafka_wire"

local byte, tostring, type = string.byte, tostring, type
local tcp = ngx.socket.tcp

-- Responses to what is asked here are small; what is larger is no Kafka.
local RESPONSE_BYTES_MAX = 64 * 1024 * 1024
local SASL_HANDSHAKE, SASL_AUTHENTICATE = 17, 36

local _M = {}

-- A request with its header.
function _M.request(api_key, version, correlation_id, client_id, body)
    local head = wire.int16(api_key) .. wire.int16(version) .. wire.int32(correlation_id) .. wire.string16(client_id)
    return wire.int32(#head + #body) .. head .. body
end

local function exchange(sock, request)
    local bytes, err = sock:send(request)
    if not bytes then
        return nil, err, true
    end
    local head
    head, err = sock:receive(4)
    if not head then
        if err == "timeout" then
            sock:close()
        end
        return nil, err
    end
    local a, b, c, d = byte(head, 1, 4)
    local length = ((a * 256 + b) * 256 + c) * 256 + d
    if length > RESPONSE_BYTES_MAX or length < 4 then
        sock:close()
        return nil, "bad length of a response: " .. length
    end
    local data
    data, err = sock:receive(length)
    if not data then
        if err == "timeout" then
            sock:close()
        end
        return nil, err
    end
    local reader = wire.reader(data)
    -- The correlation's number; there is one request at a time.
    reader:int32()
    return reader
end

-- Tells who we are by SASL PLAIN.
local function authenticate(sock, sasl, client_id)
    local mechanism = sasl.mechanism or "PLAIN"
    if mechanism ~= "PLAIN" then
        return nil, "unsupported SASL mechanism: " .. tostring(mechanism)
    end
    local reader, err = exchange(sock, _M.request(SASL_HANDSHAKE, 1, 0, client_id, wire.string16(mechanism)))
    if not reader then
        return nil, err
    elseif reader:int16() ~= 0 then
        return nil, "the broker refuses SASL PLAIN"
    end
    local proof = "\0" .. sasl.user .. "\0" .. sasl.password
    reader, err = exchange(sock, _M.request(SASL_AUTHENTICATE, 0, 0, client_id, wire.bytes32(proof)))
    if not reader then
        return nil, err
    end
    if reader:int16() ~= 0 then
        return nil, reader:string16() or "authentication failed"
    end
    return true
end

local function prepare(sock, config, broker)
    if config.ssl and sock:getreusedtimes() == 0 then
        local ok, err = sock:sslhandshake(false, broker.host, config.ssl_verify)
        if not ok then
            return nil, "failed to do SSL handshake with " .. tostring(broker.host) .. ":" .. tostring(broker.port)
                .. ": " .. tostring(err)
        end
    end
    local sasl = broker.sasl_config
    if type(sasl) == "table" and sock:getreusedtimes() == 0 then
        return authenticate(sock, sasl, config.client_id)
    end
    return true
end

-- Sends a request to { host, port, sasl_config? } and reads the response. Answers a reader; or nil, an error and whether the
-- broker cannot have got the request.
function _M.ask(config, broker, request)
    local sock, err = tcp()
    if not sock then
        return nil, err, true
    end
    sock:settimeout(config.socket_timeout)
    local host = broker.host
    if config.resolver then
        host = config.resolver(host) or host
    end
    local ok
    ok, err = sock:connect(host, broker.port)
    if not ok then
        return nil, err, true
    end
    ok, err = prepare(sock, config, broker)
    if not ok then
        sock:close()
        return nil, err, true
    end
    local reader, is_unsent
    reader, err, is_unsent = exchange(sock, request)
    if not reader then
        return nil, err, is_unsent
    end
    sock:setkeepalive(config.keepalive_timeout, config.keepalive_size)
    return reader
end

return _M
