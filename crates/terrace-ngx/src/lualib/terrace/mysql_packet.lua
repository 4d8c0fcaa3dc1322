-- Packets of MySQL's client protocol: framing, the integers and strings in them, and the kinds of answers.

local bit = require "bit"

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local byte, char, find, sub = string.byte, string.char, string.find, string.sub

local PAYLOAD_BYTES_MAX = 0xffffff

local _M = { OK = "OK", ERR = "ERR", EOF = "EOF", DATA = "DATA", LOCAL_INFILE = "LOCALINFILE" }

-- Little-endian integers at a place.
function _M.int2(data, pos)
    local a, b = byte(data, pos, pos + 1)
    if not b then
        return 0, pos + 2
    end
    return bor(a, lshift(b, 8)), pos + 2
end

function _M.int3(data, pos)
    local a, b, c = byte(data, pos, pos + 2)
    if not c then
        return 0, pos + 3
    end
    return bor(a, lshift(b, 8), lshift(c, 16)), pos + 3
end

local function int4(n)
    return char(band(n, 0xff), band(rshift(n, 8), 0xff), band(rshift(n, 16), 0xff), band(rshift(n, 24), 0xff))
end

-- Four bytes of an integer.
_M.int4_bytes = int4

local function int3_bytes(n)
    return char(band(n, 0xff), band(rshift(n, 8), 0xff), band(rshift(n, 16), 0xff))
end

-- An integer whose first byte tells its length, and the place behind it; nil is SQL's NULL. Beyond 2^53 it is not exact.
local function lenenc(data, pos)
    local first = byte(data, pos)
    if not first then
        return nil, pos + 1
    elseif first < 251 then
        return first, pos + 1
    elseif first == 251 then
        return nil, pos + 1
    end
    local length = first == 252 and 2 or first == 253 and 3 or 8
    local value = 0
    for i = pos + length, pos + 1, -1 do
        value = value * 256 + (byte(data, i) or 0)
    end
    return value, pos + 1 + length
end

_M.lenenc = lenenc

-- A string behind its length, and the place behind it; nil is NULL.
function _M.string(data, pos)
    local length = byte(data, pos)
    if length and length < 251 then
        pos = pos + 1
    else
        length, pos = lenenc(data, pos)
        if not length then
            return nil, pos
        end
    end
    return sub(data, pos, pos + length - 1), pos + length
end

-- A string that ends in NUL, and the place behind that; nil where there is no NUL.
function _M.zero_string(data, pos)
    local at = find(data, "\0", pos, true)
    if not at then
        return nil, pos
    end
    return sub(data, pos, at - 1), at + 1
end

-- Sends a payload of any length. `db` carries the socket and the number of the packet sent or received last.
function _M.send(db, payload)
    local pieces, n = {}, 0
    local length, from = #payload, 1
    repeat
        local part = length - from + 1
        if part > PAYLOAD_BYTES_MAX then
            part = PAYLOAD_BYTES_MAX
        end
        db.packet_no = band(db.packet_no + 1, 0xff)
        pieces[n + 1] = int3_bytes(part) .. char(db.packet_no)
        pieces[n + 2] = (from == 1 and part == length) and payload or sub(payload, from, from + part - 1)
        n = n + 2
        from = from + part
    until part < PAYLOAD_BYTES_MAX
    return db.sock:send(pieces)
end

local function receive_one(db)
    local sock = db.sock
    local header, err = sock:receive(4)
    if not header then
        return nil, "failed to receive packet header: " .. err
    end
    local a, b, c, number = byte(header, 1, 4)
    local length = bor(a, lshift(b, 8), lshift(c, 16))
    if length > db._max_packet_size then
        return nil, "packet size too big: " .. length
    end
    db.packet_no = number
    if length == 0 then
        return "", 0
    end
    local payload
    payload, err = sock:receive(length)
    if not payload then
        return nil, "failed to read packet content: " .. err
    end
    return payload, length
end

-- The next payload, or nil and an error.
local function receive(db)
    local payload, length = receive_one(db)
    if not payload then
        return nil, length
    elseif length == 0 then
        return nil, "empty packet"
    elseif length < PAYLOAD_BYTES_MAX then
        return payload
    end
    local total = length
    while length == PAYLOAD_BYTES_MAX do
        local part
        part, length = receive_one(db)
        if not part then
            return nil, length
        end
        total = total + length
        if total > db._max_packet_size then
            return nil, "packet size too big: " .. total
        end
        payload = payload .. part
    end
    return payload
end

_M.receive = receive

-- The next payload and its kind, or nil and an error.
function _M.receive_kind(db)
    local payload, err = receive(db)
    if not payload then
        return nil, err
    end
    local first = byte(payload)
    if first == 0x00 then
        return payload, _M.OK
    elseif first == 0xff then
        return payload, _M.ERR
    elseif first == 0xfe and #payload < 9 then
        return payload, _M.EOF
    elseif first == 0xfb then
        return payload, _M.LOCAL_INFILE
    end
    return payload, _M.DATA
end

-- Text, number and SQL state of an error.
function _M.read_error(payload)
    local code, pos = _M.int2(payload, 2)
    local state
    if sub(payload, pos, pos) == "#" then
        state = sub(payload, pos + 1, pos + 5)
        pos = pos + 6
    end
    return sub(payload, pos), code, state
end

return _M
