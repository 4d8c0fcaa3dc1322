-- WebSocket frames (RFC 6455, section 5) on a socket.

local bit = require "bit"
local ffi = require "ffi"
local random_bytes = require("terrace.digest").random_bytes

local band, bor, bxor, rshift = bit.band, bit.bor, bit.bxor, bit.rshift
local byte, char, sub = string.byte, string.char, string.sub
local floor, random, tostring, type = math.floor, math.random, tostring, type

-- Messages up to this length are masked in a buffer that stays.
local BUFFER_BYTES = 65536
local CONTROL_BYTES_MAX = 125
local CLOSE = 8

local _M = { _VERSION = "0.13" }

local types = { [0] = "continuation", [1] = "text", [2] = "binary", [8] = "close", [9] = "ping", [10] = "pong" }

-- Opcode -> what recv_frame calls it.
_M.types = types

local shared = ffi.new("uint8_t[?]", BUFFER_BYTES)

-- `data` exclusive-or the four bytes of `mask`, by turns.
local function masked(data, mask)
    local length = #data
    local out = length <= BUFFER_BYTES and shared or ffi.new("uint8_t[?]", length)
    ffi.copy(out, data, length)
    local a, b, c, d = byte(mask, 1, 4)
    local whole = length - length % 4
    for i = 0, whole - 1, 4 do
        out[i] = bxor(out[i], a)
        out[i + 1] = bxor(out[i + 1], b)
        out[i + 2] = bxor(out[i + 2], c)
        out[i + 3] = bxor(out[i + 3], d)
    end
    for i = whole, length - 1 do
        out[i] = bxor(out[i], (byte(mask, i % 4 + 1)))
    end
    return ffi.string(out, length)
end

-- The payload's length behind the first two bytes; or nil and an error.
local function read_length(sock, short)
    if short < 126 then
        return short
    elseif short == 126 then
        local data, err = sock:receive(2)
        if not data then
            return nil, "failed to receive the 2 byte payload length: " .. (err or "unknown")
        end
        local high, low = byte(data, 1, 2)
        return high * 256 + low
    end
    local data, err = sock:receive(8)
    if not data then
        return nil, "failed to receive the 8 byte payload length: " .. (err or "unknown")
    end
    local a, b, c, d, e, f, g, h = byte(data, 1, 8)
    if a ~= 0 or b ~= 0 or c ~= 0 or d ~= 0 or e >= 128 then
        return nil, "payload len too large"
    end
    return ((e * 256 + f) * 256 + g) * 256 + h
end

-- What is wrong with the first two bytes, or nothing.
local function problem(first, second, force_masking)
    local opcode = band(first, 0x0f)
    if band(first, 0x70) ~= 0 then
        return "bad RSV1, RSV2, or RSV3 bits"
    elseif opcode >= 0x3 and opcode <= 0x7 then
        return "reserved non-control frames"
    elseif opcode >= 0xb then
        return "reserved control frames"
    elseif force_masking and band(second, 0x80) == 0 then
        return "frame unmasked"
    elseif band(opcode, 0x8) ~= 0 then
        if band(second, 0x7f) > CONTROL_BYTES_MAX then
            return "too long payload for control frame"
        elseif band(first, 0x80) == 0 then
            return "fragmented control frame"
        end
    end
end

-- One frame: payload, type, and "again" where more of the message follows; of a close frame the text, "close" and the
-- status. Or nil, nil and an error.
function _M.recv_frame(sock, max_payload_len, force_masking)
    local head, err = sock:receive(2)
    if not head then
        return nil, nil, "failed to receive the first 2 bytes: " .. (err or "unknown")
    end
    local first, second = byte(head, 1, 2)
    err = problem(first, second, force_masking)
    if err then
        return nil, nil, err
    end
    local opcode, is_masked = band(first, 0x0f), band(second, 0x80) ~= 0
    local length
    length, err = read_length(sock, band(second, 0x7f))
    if not length then
        return nil, nil, err
    elseif length > max_payload_len then
        return nil, nil, "exceeding max payload len"
    end
    local payload = ""
    local rest = is_masked and length + 4 or length
    if rest > 0 then
        payload, err = sock:receive(rest)
        if not payload then
            return nil, nil, "failed to read masking-len and payload: " .. (err or "unknown")
        end
        if is_masked then
            payload = masked(sub(payload, 5), sub(payload, 1, 4))
        end
    end
    if opcode ~= CLOSE then
        return payload, types[opcode], band(first, 0x80) == 0 and "again" or nil
    elseif length == 0 then
        return "", "close", nil
    elseif length == 1 then
        return nil, nil, "close frame with a body must carry a 2-byte status code"
    end
    local high, low = byte(payload, 1, 2)
    return sub(payload, 3), "close", high * 256 + low
end

local function length_bytes(length, mask_bit)
    if length <= 125 then
        return char(bor(length, mask_bit))
    elseif length <= 65535 then
        return char(bor(126, mask_bit), band(rshift(length, 8), 0xff), band(length, 0xff))
    end
    return char(bor(127, mask_bit), 0, 0, 0, 0, band(floor(length / 16777216), 0xff), band(rshift(length, 16), 0xff),
        band(rshift(length, 8), 0xff), band(length, 0xff))
end

-- A frame's bytes; or nil and an error.
function _M.build_frame(fin, opcode, payload_len, payload, masking)
    if payload_len > 0x7fffffff then
        return nil, "payload too big"
    end
    local head = char(fin and bor(0x80, opcode) or opcode) .. length_bytes(payload_len, masking and 0x80 or 0)
    if not masking then
        return head .. payload
    end
    local mask = random_bytes(4) or char(random(0, 255), random(0, 255), random(0, 255), random(0, 255))
    return head .. mask .. masked(payload, mask)
end

-- Sends a frame; answers how many bytes that took, or nil and an error.
function _M.send_frame(sock, fin, opcode, payload, max_payload_len, masking)
    if not payload then
        payload = ""
    elseif type(payload) ~= "string" then
        payload = tostring(payload)
    end
    local length = #payload
    if length > max_payload_len then
        return nil, "payload too big"
    elseif band(opcode, 0x8) ~= 0 then
        if length > CONTROL_BYTES_MAX then
            return nil, "too much payload for control frame"
        elseif not fin then
            return nil, "fragmented control frame"
        end
    end
    local frame, err = _M.build_frame(fin, opcode, length, payload, masking)
    if not frame then
        return nil, "failed to build frame: " .. err
    end
    local bytes
    bytes, err = sock:send(frame)
    if not bytes then
        return nil, "failed to send frame: " .. err
    end
    return bytes
end

return _M
