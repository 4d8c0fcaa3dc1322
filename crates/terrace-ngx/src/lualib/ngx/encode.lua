-- ngx.escape_uri, ngx.encode_args, ngx.encode_base64, ngx.md5 and their kin; module ngx.base64.

local ffi = require "ffi"
local base = require "terrace.base"
local table_new = require "table.new"

local native, take, text = base.native, base.take, base.text
local ffi_string = ffi.string
local concat = table.concat
local error, next, tostring, type = error, next, tostring, type

-- What names and values native functions list, and the table made of it: repeated names have their values in a table,
-- names without a value have `true`.
local list = ffi.new("terrace_pairs")
base.list = list

local function collect(into)
    local count, all = list.count, list.list
    local made = into or table_new(0, count)
    for i = 0, count - 1 do
        local pair = all[i]
        local name = ffi_string(pair.name, pair.name_len)
        local value
        if pair.value_len < 0 then
            value = true
        else
            value = ffi_string(pair.value, pair.value_len)
        end
        local old = made[name]
        if old == nil then
            made[name] = value
        elseif type(old) == "table" then
            old[#old + 1] = value
        else
            made[name] = { old, value }
        end
    end
    if list.truncated ~= 0 then
        return made, "truncated"
    end
    return made
end
base.collect = collect

local function string_of(value)
    if type(value) == "string" then
        return value
    end
    return value and tostring(value) or ""
end

function ngx.escape_uri(value, kind)
    value = string_of(value)
    if kind == nil then
        kind = 2
    elseif type(kind) ~= "number" then
        error("\"type\" is not a number", 3)
    elseif kind < 0 or kind > 6 then
        error("\"type\" " .. kind .. " out of range", 3)
    end
    if native.escape_uri(value, #value, kind, text) ~= 0 then
        return value
    end
    return take()
end

function ngx.unescape_uri(value)
    value = string_of(value)
    if native.unescape_uri(value, #value, text) ~= 0 then
        return value
    end
    return take()
end

local function escape(value)
    if native.escape_uri(value, #value, 2, text) ~= 0 then
        return value
    end
    return take()
end

-- Appends `name=value`, or the name alone for `true`.
local function append(parts, n, name, value, level)
    local t = type(value)
    if t == "boolean" then
        if not value then
            return n
        end
        parts[n + 1] = name
    elseif t == "string" then
        parts[n + 1] = name .. "=" .. escape(value)
    elseif t == "number" then
        parts[n + 1] = name .. "=" .. escape(tostring(value))
    else
        error("attempt to use " .. t .. " as query arg value", level + 1)
    end
    return n + 1
end

-- The query string of a table; `level` is that of the caller for errors.
local function encode_args(args, level)
    local parts, n = {}, 0
    for name, value in next, args do
        if type(name) ~= "string" then
            error("attempt to use a non-string key in the \"args\" option table", level + 1)
        end
        name = escape(name)
        if type(value) == "table" then
            for _, one in next, value do
                n = append(parts, n, name, one, level + 1)
            end
        else
            n = append(parts, n, name, value, level + 1)
        end
    end
    return concat(parts, "&")
end
base.encode_args = encode_args

function ngx.encode_args(args)
    if type(args) ~= "table" then
        error("bad argument #1 to 'encode_args' (table expected, got "
            .. (args == nil and "no value" or type(args)) .. ")", 2)
    end
    -- In parentheses, as a tail call would not count as a level.
    return (encode_args(args, 2))
end

local ARGS_MAX = 100

function ngx.decode_args(query, max)
    local t = type(query)
    if t == "number" then
        query = tostring(query)
    elseif t ~= "string" then
        error("bad argument #1 to 'decode_args' (string expected, got " .. (query == nil and "no value" or t) .. ")", 2)
    end
    native.decode_args(query, #query, max or ARGS_MAX, list)
    return collect()
end

function ngx.encode_base64(value, no_padding)
    value = string_of(value)
    if no_padding and no_padding ~= true then
        error("bad no_padding: boolean expected, got " .. type(no_padding), 2)
    end
    native.encode_base64(value, #value, no_padding and 1 or 0, text)
    return take()
end

local function decode_base64(value, kind)
    if type(value) ~= "string" then
        error("string argument only", 3)
    end
    if native.decode_base64(value, #value, kind, text) ~= 0 then
        return nil
    end
    return take()
end

function ngx.decode_base64(value)
    return (decode_base64(value, 0))
end

function ngx.decode_base64mime(value)
    return (decode_base64(value, 3))
end

local base64 = {}

function base64.encode_base64url(value)
    if type(value) ~= "string" then
        return nil, "must provide a string"
    end
    native.encode_base64(value, #value, 2, text)
    return take()
end

function base64.decode_base64url(value)
    if type(value) ~= "string" then
        return nil, "must provide a string"
    end
    if native.decode_base64(value, #value, 2, text) ~= 0 then
        return nil, "invalid input"
    end
    return take()
end

package.loaded["ngx.base64"] = base64

local digest = ffi.new("unsigned char[40]")

function ngx.md5(value)
    value = string_of(value)
    native.md5_hex(value, #value, digest)
    return ffi_string(digest, 32)
end

function ngx.md5_bin(value)
    value = string_of(value)
    native.md5(value, #value, digest)
    return ffi_string(digest, 16)
end

function ngx.sha1_bin(value)
    value = string_of(value)
    native.sha1(value, #value, digest)
    return ffi_string(digest, 20)
end

local function expect_string(value, position, name)
    local t = type(value)
    if t == "number" then
        return tostring(value)
    elseif t ~= "string" then
        error("bad argument #" .. position .. " to '" .. name .. "' (string expected, got "
            .. (value == nil and "no value" or t) .. ")", 3)
    end
    return value
end

function ngx.hmac_sha1(key, value)
    key, value = expect_string(key, 1, "hmac_sha1"), expect_string(value, 2, "hmac_sha1")
    native.hmac_sha1(key, #key, value, #value, digest)
    return ffi_string(digest, 20)
end

-- OpenResty has two functions that differ in which lengths they are fast for.
function ngx.crc32_short(value)
    value = string_of(value)
    return native.crc32(value, #value)
end

ngx.crc32_long = ngx.crc32_short

function ngx.quote_sql_str(value)
    value = expect_string(value, 1, "quote_sql_str")
    native.quote_sql(value, #value, text)
    return take()
end
