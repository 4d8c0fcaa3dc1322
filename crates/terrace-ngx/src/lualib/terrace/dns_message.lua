-- DNS messages (RFC 1035): a question as bytes, and the records of a reply as tables.

local bit = require "bit"

local band, bor, lshift, rshift = bit.band, bit.bor, bit.lshift, bit.rshift
local byte, char, find, format, gmatch, sub = string.byte, string.char, string.find, string.format, string.gmatch, string.sub
local concat, ipairs = table.concat, ipairs

local A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, SPF = 1, 2, 5, 6, 12, 15, 16, 28, 33, 99
local CLASS_IN = 1
local LABEL_BYTES_MAX = 63
local NAME_BYTES_MAX = 255
-- A name that jumps more often than this goes round in circles.
local JUMPS_MAX = 128
local HEADER_BYTES = 12

local errors = { "format error", "server failure", "name error", "not implemented", "refused" }

local _M = {}

local function int2(n)
    return char(band(rshift(n, 8), 0xff), band(n, 0xff))
end

_M.int2 = int2

-- A query for one name, or nil and an error.
function _M.question(id, name, qtype, is_recursive)
    if find(name, "^%.") or find(name, "..", 1, true) or #name > NAME_BYTES_MAX then
        return nil, "bad name"
    end
    local labels, n = {}, 0
    for label in gmatch(name, "[^.]+") do
        if #label > LABEL_BYTES_MAX then
            return nil, "bad name"
        end
        n = n + 1
        labels[n] = char(#label) .. label
    end
    -- One question, no records.
    return int2(id) .. (is_recursive and "\1\0" or "\0\0") .. "\0\1\0\0\0\0\0\0" .. concat(labels) .. "\0" .. int2(qtype)
        .. int2(CLASS_IN)
end

local function read2(data, pos)
    local high, low = byte(data, pos, pos + 1)
    return low and high * 256 + low
end

local function read4(data, pos)
    local a, b, c, d = byte(data, pos, pos + 3)
    return d and ((a * 256 + b) * 256 + c) * 256 + d
end

-- The name at a place and the place behind it; or nil and an error.
local function read_name(data, pos)
    local labels, n, after, bytes = {}, 0, nil, 0
    for _ = 1, JUMPS_MAX + NAME_BYTES_MAX do
        local length = byte(data, pos)
        if not length then
            return nil, "truncated"
        elseif length == 0 then
            return concat(labels, "."), after or pos + 1
        elseif band(length, 0xc0) ~= 0 then
            local low = byte(data, pos + 1)
            if not low then
                return nil, "truncated"
            end
            after = after or pos + 2
            pos = bor(lshift(band(length, 0x3f), 8), low) + 1
        else
            bytes = bytes + length + 1
            if bytes > NAME_BYTES_MAX then
                break
            end
            n = n + 1
            labels[n] = sub(data, pos + 1, pos + length)
            pos = pos + length + 1
        end
    end
    return nil, "bad name"
end

-- What has the name as its whole value.
local function name_reader(field)
    return function(data, pos, length, record)
        local name, after = read_name(data, pos)
        if not name then
            return nil, after
        elseif after - pos ~= length then
            return nil, format("bad cname record length: %d ~= %d", after - pos, length)
        end
        record[field] = name
        return true
    end
end

local readers = { [CNAME] = name_reader("cname"), [NS] = name_reader("nsdname"), [PTR] = name_reader("ptrdname") }

readers[A] = function(data, pos, length, record)
    if length ~= 4 then
        return nil, "bad A record value length: " .. length
    end
    record.address = format("%d.%d.%d.%d", byte(data, pos, pos + 3))
    return true
end

readers[AAAA] = function(data, pos, length, record)
    if length ~= 16 then
        return nil, "bad AAAA record value length: " .. length
    end
    local groups = {}
    for i = 0, 7 do
        groups[i + 1] = format("%x", read2(data, pos + 2 * i))
    end
    record.address = concat(groups, ":")
    return true
end

readers[MX] = function(data, pos, length, record)
    if length < 3 then
        return nil, "bad MX record value length: " .. length
    end
    record.preference = read2(data, pos)
    return name_reader("exchange")(data, pos + 2, length - 2, record)
end

readers[SRV] = function(data, pos, length, record)
    if length < 7 then
        return nil, "bad SRV record value length: " .. length
    end
    record.priority, record.weight, record.port = read2(data, pos), read2(data, pos + 2), read2(data, pos + 4)
    local name, after = read_name(data, pos + 6)
    if not name then
        return nil, after
    elseif after - pos ~= length then
        return nil, format("bad srv record length: %d ~= %d", after - pos, length)
    end
    record.target = name
    return true
end

readers[SOA] = function(data, pos, length, record)
    local after
    record.mname, after = read_name(data, pos)
    if not record.mname then
        return nil, after
    end
    record.rname, after = read_name(data, after)
    if not record.rname then
        return nil, after
    elseif after - pos + 20 ~= length then
        return nil, format("bad SOA record value length: %d", length)
    end
    for i, field in ipairs { "serial", "refresh", "retry", "expire", "minimum" } do
        record[field] = read4(data, after + 4 * (i - 1))
    end
    return true
end

local function text_reader(field)
    return function(data, pos, length, record)
        local texts, last = {}, pos + length
        while pos < last do
            local size = byte(data, pos)
            if pos + size >= last then
                size = last - pos - 1
            end
            texts[#texts + 1] = sub(data, pos + 1, pos + size)
            pos = pos + 1 + size
        end
        record[field] = #texts > 1 and texts or texts[1] or ""
        return true
    end
end

readers[TXT], readers[SPF] = text_reader("txt"), text_reader("spf")

-- Reads records of a section into `answers` where they are wanted. The place behind them, or nil and an error.
local function read_section(answers, section, data, pos, count, is_wanted)
    for _ = 1, count do
        local name, after = read_name(data, pos)
        if not name then
            return nil, after
        end
        local length = read2(data, after + 8)
        if not length or after + 9 + length > #data then
            return nil, "truncated"
        end
        local kind = read2(data, after)
        local record = {
            section = section, name = name, type = kind, class = read2(data, after + 2), ttl = read4(data, after + 4),
        }
        pos = after + 10
        local read = readers[kind]
        if not read then
            record.rdata = sub(data, pos, pos + length - 1)
        else
            local ok, err = read(data, pos, length, record)
            if not ok then
                return nil, err
            end
        end
        if is_wanted then
            answers[#answers + 1] = record
        end
        pos = pos + length
    end
    return pos
end

-- The records of a reply to query `id`; its error as `errcode` and `errstr`. Or nil and an error.
function _M.reply(data, id, options)
    if #data < HEADER_BYTES then
        return nil, "truncated"
    elseif read2(data, 1) ~= id then
        return nil, "id mismatch"
    end
    local flags = read2(data, 3)
    if band(flags, 0x8000) == 0 then
        return nil, format("bad QR flag in the DNS response")
    elseif band(flags, 0x200) ~= 0 then
        return nil, "truncated"
    end
    local questions = read2(data, 5)
    if questions ~= 1 then
        return nil, format("bad number of questions in DNS response: %d", questions)
    end
    local name, pos = read_name(data, HEADER_BYTES + 1)
    if not name then
        return nil, pos
    end
    local class = read2(data, pos + 2)
    if class ~= CLASS_IN then
        return nil, format("unknown query class %d in DNS response", class or 0)
    end
    local answers = {}
    local code = band(flags, 0xf)
    if code ~= 0 then
        answers.errcode, answers.errstr = code, errors[code] or "unknown"
    end
    local wanted = { true, options.authority_section, options.additional_section }
    local err
    pos = pos + 4
    for section = 1, 3 do
        if section > 1 and not (wanted[2] or wanted[3]) then
            break
        end
        pos, err = read_section(answers, section, data, pos, read2(data, 5 + 2 * section), wanted[section])
        if not pos then
            return nil, err
        end
    end
    return answers
end

return _M
