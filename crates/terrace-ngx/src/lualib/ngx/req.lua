-- ngx.req but for the body; module ngx.req.

local base = require "terrace.base"

local native, take, refuse, text = base.native, base.take, base.refuse_here, base.text
local list, collect = base.list, base.collect
local error, rawget, setmetatable, tostring, type = error, rawget, setmetatable, tostring, type
local find, format, gsub, lower = string.find, string.format, string.gsub, string.lower
local clear = require "table.clear"
local leave = require("terrace.sched").exit

local req = {}
ngx.req = req

-- How many arguments or fields are listed when the caller names no number.
local COUNT_MAX = 100

local function check(code, level)
    if code < 0 then
        refuse(code, level or 2)
    end
end

function req.get_uri_args(max, into)
    if into then
        clear(into)
    end
    local code = native.req_uri_args(max or COUNT_MAX, list)
    if code ~= 0 then
        refuse(code)
    end
    return collect(into)
end

local lower_keys = {
    __index = function(headers, key)
        if type(key) ~= "string" then
            return nil
        end
        key = lower(key)
        local value = rawget(headers, key)
        if value == nil and find(key, "_", 1, true) then
            value = rawget(headers, (gsub(key, "_", "-")))
        end
        return value
    end,
}

function req.get_headers(max, raw)
    local code = native.req_headers(max or COUNT_MAX, raw and 1 or 0, list)
    if code ~= 0 then
        refuse(code)
    end
    local headers, truncated = collect()
    if not raw then
        setmetatable(headers, lower_keys)
    end
    if truncated then
        return headers, truncated
    end
    return headers
end

-- Sets or adds a field; errors are the API's caller's.
local function set_header(name, value, append)
    if name == nil then
        error("bad 'name' argument: string expected, got nil", 3)
    end
    name = tostring(name)
    if value == nil then
        if append then
            error("bad 'value' argument: string or table expected, got nil", 3)
        end
        check(native.req_clear_header(name, #name), 3)
    elseif type(value) == "table" then
        local count = #value
        if count == 0 then
            if append then
                error("bad 'value' argument: non-empty table expected", 3)
            end
            check(native.req_clear_header(name, #name), 3)
        end
        for i = 1, count do
            local one = tostring(value[i])
            check(native.req_set_header(name, #name, one, #one, (append or i > 1) and 1 or 0), 3)
        end
    else
        value = tostring(value)
        check(native.req_set_header(name, #name, value, #value, append and 1 or 0), 3)
    end
end

function req.set_header(name, value)
    set_header(name, value, false)
end

function req.clear_header(name)
    name = tostring(name)
    check(native.req_clear_header(name, #name))
end

package.loaded["ngx.req"] = {
    add_header = function(name, value)
        set_header(name, value, true)
    end,
}

function req.get_method()
    check(native.req_method(text))
    return take()
end

function req.set_method(method)
    if type(method) ~= "number" then
        error("bad method number", 2)
    end
    local code = native.req_set_method(method)
    if code == -1 then
        error("unsupported HTTP method: " .. method, 2)
    end
    check(code)
end

local function expect(value, expected, position, name)
    if type(value) ~= expected then
        error("bad argument #" .. position .. " to '" .. name .. "' (" .. expected .. " expected, got "
            .. type(value) .. ")", 3)
    end
end

local function in_hex(byte)
    return format("\\x%02X", byte:byte())
end

local REWRITES = 8 + 2048

function req.set_uri(uri, jump, binary)
    if type(uri) == "number" then
        uri = tostring(uri)
    end
    expect(uri, "string", 1, "set_uri")
    if uri == "" then
        error("attempt to use zero-length uri", 2)
    end
    if jump ~= nil then
        expect(jump, "boolean", 2, "set_uri")
    end
    if binary ~= nil then
        expect(binary, "boolean", 3, "set_uri")
    end
    if not binary then
        local byte = native.unsafe_uri_byte(uri, #uri)
        if byte >= 0 then
            error(format("unsafe byte \"0x%02x\" in uri \"%s\" (maybe you want to set the 'binary' argument?)", byte,
                (gsub(uri, "[%z\1-\31\127\"\\]", in_hex))), 2)
        end
    end
    if jump and bit.band(native.phase(), REWRITES) == 0 then
        base.refuse(base.BAD_CONTEXT)
    end
    check(native.req_set_uri(uri, #uri))
    if jump then
        native.jump()
        return leave(0)
    end
end

function req.set_uri_args(args)
    local t = type(args)
    if t == "table" then
        args = base.encode_args(args, 2)
    elseif t == "number" then
        args = tostring(args)
    elseif t ~= "string" then
        error("bad argument #1 to 'set_uri_args' (string, number, or table expected, but got " .. t .. ")", 2)
    end
    check(native.req_set_args(args, #args))
end

function req.raw_header(without_line)
    check(native.req_raw_header(without_line and 1 or 0, text))
    return take()
end

function req.http_version()
    local version = native.req_version()
    check(version)
    return version
end

function req.start_time()
    local began = native.req_start_time()
    check(began)
    return began
end

function req.is_internal()
    local internal = native.req_is_internal()
    check(internal)
    return internal == 1
end
