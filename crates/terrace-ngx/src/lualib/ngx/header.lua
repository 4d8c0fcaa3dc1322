-- ngx.header, ngx.status, ngx.resp.

local base = require "terrace.base"

local native, take, refuse, text = base.native, base.take, base.refuse_here, base.text
local getters, setters = base.getters, base.setters
local ffi_string = require("ffi").string
local error, tonumber, tostring, type = error, tonumber, tostring, type
local gsub, lower, find = string.gsub, string.lower, string.find

function getters.status()
    local status = native.status()
    if status < 0 then
        refuse(status, 2)
    end
    return status
end

function setters.status(value)
    local status = tonumber(value)
    if not status then
        error("bad status: " .. tostring(value), 3)
    end
    local code = native.set_status(status)
    if code <= -100 then
        refuse(code, 2)
    end
end

local function field_name(key)
    if type(key) ~= "string" then
        key = tostring(key)
    end
    if find(key, "_", 1, true) and native.transform_underscores() == 1 then
        key = gsub(key, "_", "-")
    end
    return key
end

local function check(code, level)
    if code <= -100 then
        refuse(code, level + 1)
    end
end

local function put(key, value, append, level)
    local code = native.header_set(key, #key, value, #value, append)
    if code == -3 then
        error("failed to set header " .. key .. " (error: " .. ngx.ERROR .. ")", level + 2)
    end
    check(code, level + 1)
end

local function assign(key, value, level)
    local t = type(value)
    if t == "nil" then
        check(native.header_clear(key, #key), level)
    elseif t == "table" then
        check(native.header_clear(key, #key), level)
        for i = 1, #value do
            put(key, tostring(value[i]), 1, level)
        end
    else
        put(key, tostring(value), 0, level)
    end
end

ngx.header = setmetatable({}, {
    __index = function(_, key)
        key = field_name(key)
        local code = native.header_get(key, #key, 0, text)
        if code < 0 then
            check(code, 1)
            return nil
        end
        local first = take()
        if native.header_get(key, #key, 1, text) < 0 then
            return first
        end
        local all, n = { first, take() }, 2
        while native.header_get(key, #key, n, text) == 0 do
            n = n + 1
            all[n] = take()
        end
        return all
    end,
    __newindex = function(_, key, value)
        assign(field_name(key), value, 2)
    end,
})

ngx.resp = {}

local lower_keys = {
    __index = function(headers, key)
        return type(key) == "string" and rawget(headers, lower((gsub(key, "_", "-")))) or nil
    end,
}

function ngx.resp.get_headers(max, raw)
    max = max or 100
    local headers, n = {}, 0
    local code = native.header_at(0, text, text + 1)
    check(code, 1)
    while code == 0 do
        local key, value = ffi_string(text[0].data, text[0].len), ffi_string(text[1].data, text[1].len)
        if not raw then
            key = lower(key)
        end
        local old = headers[key]
        if old == nil then
            headers[key] = value
        elseif type(old) == "table" then
            old[#old + 1] = value
        else
            headers[key] = { old, value }
        end
        n = n + 1
        code = native.header_at(n, text, text + 1)
        if max > 0 and n >= max and code == 0 then
            local line = "lua exceeding response header limit " .. n + 1 .. " > " .. max
            native.log(ngx.DEBUG, line, #line)
            return raw and headers or setmetatable(headers, lower_keys), "truncated"
        end
    end
    return raw and headers or setmetatable(headers, lower_keys)
end

-- ngx.resp.add_header of the module ngx.resp.
function ngx.resp.add_header(key, value)
    key = field_name(key)
    local values = type(value) == "table" and value or { value }
    for i = 1, #values do
        put(key, tostring(values[i]), 1, 1)
    end
end

-- ngx.resp.set_status of the same module: a status with words of its own.
local function set_status(status, reason)
    ngx.status = status
    check(native.set_reason(reason, #reason), 1)
end

-- ngx.resp.bypass_if_checks of the same module: the request's conditions make neither 304 nor 412.
local function bypass_if_checks()
    check(native.bypass_conditions(), 1)
end

package.loaded["ngx.resp"] = {
    add_header = ngx.resp.add_header, set_status = set_status, bypass_if_checks = bypass_if_checks,
}
