-- How a client proves to MySQL that it knows a password: the plugins' answers to the server's scramble, and the exchange
-- of packets around them.

local base = require "terrace.base"
local bit = require "bit"
local packet = require "terrace.mysql_packet"
local sha256_class = require "resty.sha256"

local native, take, text = base.native, base.take, base.text
local band, bxor = bit.band, bit.bxor
local byte, char, concat, sub = string.byte, string.char, table.concat, string.sub
local floor, select, sha1 = math.floor, select, ngx.sha1_bin

local ROUNDS_MAX = 10

local _M = {}

local function sha256(...)
    local digest = sha256_class:new()
    for i = 1, select("#", ...) do
        digest:update((select(i, ...)))
    end
    return digest:final()
end

-- Both strings' bytes, exclusive-or; the second is repeated.
local function xor(text, mask)
    local out = {}
    for i = 1, #text do
        out[i] = char(bxor(byte(text, i), byte(mask, (i - 1) % #mask + 1)))
    end
    return concat(out)
end

-- The hash of servers before 4.1: two numbers below 2^31.
local function old_hash(text)
    local a, b, add = 1345345333, 0x12345671, 7
    for i = 1, #text do
        local c = byte(text, i)
        if c ~= 32 and c ~= 9 then
            -- Numbers stay below 2^53: the sum is small, and the product is taken modulo 2^32 in halves.
            local low = band(a, 63) + add
            local product = (low * c + a % 16777216 * 256) % 4294967296
            a = bxor(a, product) % 4294967296
            b = (b + bxor(b * 256 % 4294967296, a) % 4294967296) % 4294967296
            add = add + c
        end
    end
    return band(a, 0x7fffffff), band(b, 0x7fffffff)
end

local function old_answer(password, scramble)
    scramble = sub(scramble, 1, 8)
    local a1, b1 = old_hash(password)
    local a2, b2 = old_hash(scramble)
    local range = 0x3fffffff
    local first, second = bxor(a1, a2) % range, bxor(b1, b2) % range
    local function random()
        first = (first * 3 + second) % range
        second = (first + second + 33) % range
        return first / range
    end
    local out = {}
    for i = 1, 8 do
        out[i] = floor(random() * 31 + 64)
    end
    local extra = floor(random() * 31)
    for i = 1, 8 do
        out[i] = char(bxor(out[i], extra))
    end
    return concat(out) .. "\0"
end

local function can_send_clear(db)
    return db.is_tls or db.is_unix
end

-- Plugin -> what it sends first; nil and an error where it cannot.
local answers = {}

function answers.mysql_native_password(_, password, scramble)
    local stage = sha1(password)
    return xor(stage, sha1(sub(scramble, 1, 20) .. sha1(stage)))
end

function answers.caching_sha2_password(_, password, scramble)
    local stage = sha256(password)
    return xor(stage, sha256(sha256(stage), sub(scramble, 1, 20)))
end

function answers.sha256_password(db, password)
    -- Without TLS the server's key is asked for.
    return db.is_tls and password .. "\0" or "\1"
end

function answers.mysql_old_password(_, password, scramble)
    return old_answer(password, scramble)
end

function answers.mysql_clear_password(db, password)
    if not can_send_clear(db) then
        return nil, "auth plugin mysql_clear_password needs ssl"
    end
    return password .. "\0"
end

-- What to send first for a plugin.
function _M.answer(db, plugin, password, scramble)
    if password == "" then
        return plugin == "sha256_password" and "\0" or ""
    end
    local answer = answers[plugin]
    if not answer then
        return nil, "unknown plugin: " .. plugin
    end
    return answer(db, password, scramble)
end

-- The password for the holder of the public key, which `pem` has.
local function encrypted(password, scramble, pem)
    local secret = xor(password .. "\0", sub(scramble, 1, 20))
    local code = native.rsa_oaep(pem, #pem, secret, #secret, text)
    if code ~= 0 then
        return nil, "encode password packet: " .. take()
    end
    return take()
end

-- Answers what a plugin asks besides; true where there is nothing to send.
local function continue(db, plugin, password, scramble, data)
    local first = byte(data)
    if plugin == "caching_sha2_password" then
        if first == 3 then
            return true
        elseif first == 4 then
            return can_send_clear(db) and password .. "\0" or "\2"
        end
    end
    if plugin == "caching_sha2_password" or plugin == "sha256_password" then
        return encrypted(password, scramble, data)
    end
    return nil, "malformed packet"
end

-- Reads what the server says of the first answer, until it is satisfied. Answers true, or nil, error, number and state.
function _M.finish(db, plugin, password, scramble)
    for _ = 1, ROUNDS_MAX do
        local payload, kind = packet.receive_kind(db)
        if not payload then
            return nil, "failed to receive the result packet: " .. kind
        elseif kind == packet.OK then
            return true
        elseif kind == packet.ERR then
            return nil, packet.read_error(payload)
        end
        local reply, err
        local first = byte(payload)
        if first == 0xfe then
            -- A switch to another plugin; without a name it is the one before 4.1.
            local pos = 2
            plugin = "mysql_old_password"
            if #payload > 1 then
                plugin, pos = packet.zero_string(payload, 2)
                if not plugin then
                    return nil, "malformed packet"
                end
                scramble = sub(payload, pos)
            end
            reply, err = _M.answer(db, plugin, password, scramble)
        elseif first == 1 then
            reply, err = continue(db, plugin, password, scramble, sub(payload, 2))
        else
            return nil, "bad packet type: " .. kind
        end
        if not reply then
            return nil, err
        elseif reply ~= true then
            local bytes
            bytes, err = packet.send(db, reply)
            if not bytes then
                return nil, "failed to send client authentication packet: " .. err
            end
        end
    end
    return nil, "malformed packet"
end

return _M
