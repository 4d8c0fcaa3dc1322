-- What both ends of a WebSocket can do: send and receive frames on `self.sock`. `self.fatal` is set once the socket failed.

local protocol = require "resty.websocket.protocol"

local char, floor, find, type = string.char, math.floor, string.find, type

local TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
local STATUS_MAX = 0x7fff

local _M = {}

-- Adds the methods to a class, whose peers must mask their frames where `is_server`.
function _M.extend(class, is_server)
    function class.set_timeout(self, timeout)
        local sock = self.sock
        if not sock then
            return nil, nil, "not initialized yet"
        end
        return sock:settimeout(timeout)
    end

    -- Payload, type and "again"; a close frame's text, "close" and status; or nil, nil and an error.
    function class.recv_frame(self)
        if self.fatal then
            return nil, nil, "fatal error already happened"
        elseif not self.sock then
            return nil, nil, "not initialized yet"
        end
        local data, kind, err = protocol.recv_frame(self.sock, self.max_recv_len, is_server)
        -- After a timeout one may try again.
        if not data and not find(err, ": timeout", 1, true) then
            self.fatal = true
        end
        return data, kind, err
    end

    -- Any frame; answers how many bytes were sent, or nil and an error.
    function class.send_frame(self, fin, opcode, payload)
        if self.fatal then
            return nil, "fatal error already happened"
        elseif self.closed then
            return nil, "already closed"
        elseif not self.sock then
            return nil, "not initialized yet"
        end
        local bytes, err = protocol.send_frame(self.sock, fin, opcode, payload, self.max_send_len, self.masks)
        if not bytes then
            self.fatal = true
        end
        return bytes, err
    end

    function class.send_text(self, data)
        return self:send_frame(true, TEXT, data)
    end

    function class.send_binary(self, data)
        return self:send_frame(true, BINARY, data)
    end

    function class.send_ping(self, data)
        return self:send_frame(true, PING, data)
    end

    function class.send_pong(self, data)
        return self:send_frame(true, PONG, data)
    end

    -- A close frame, with a status and a text if given.
    function class.send_close(self, code, message)
        local payload
        if code then
            if type(code) ~= "number" or code > STATUS_MAX then
                return nil, "bad status code"
            end
            payload = char(floor(code / 256), code % 256) .. (message or "")
        end
        local bytes, err = self:send_frame(true, CLOSE, payload)
        if not bytes then
            self.fatal = true
        elseif not is_server then
            self.closed = true
        end
        return bytes, err
    end
end

return _M
