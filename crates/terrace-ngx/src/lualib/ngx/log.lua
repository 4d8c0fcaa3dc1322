-- ngx.log and print.

local base = require "terrace.base"

local native = base.native
local concat, select, tostring, type = table.concat, select, tostring, type
local error, getinfo, getmetatable = error, debug.getinfo, getmetatable
local gsub = string.gsub
local null = ngx.null

local function text_of(value, position)
    local t = type(value)
    if t == "string" then
        return value
    elseif t == "number" or t == "boolean" or t == "nil" then
        return tostring(value)
    elseif value == null then
        return "null"
    elseif t == "table" then
        local mt = getmetatable(value)
        if mt and mt.__tostring then
            return tostring(value)
        end
        error("bad argument #" .. position .. " to 'log' (expected table to have __tostring metamethod)", 4)
    end
    error("bad argument #" .. position .. " to 'log' (string, number, boolean, or nil expected, got " .. t .. ")", 4)
end

-- `[lua] file.lua:12: name(): ` of the code that logs, as OpenResty prints it.
local function where()
    local info = getinfo(4, "nSl")
    if not info then
        return "[lua] "
    end
    local source = gsub(info.short_src, "^.*/", "")
    local name = info.name and (info.name .. "(): ") or ""
    return "[lua] " .. source .. ":" .. info.currentline .. ": " .. name
end

local function write(level, ...)
    if native.log_enabled(level) == 0 then
        return
    end
    local parts = { where() }
    for i = 1, select("#", ...) do
        parts[i + 1] = text_of((select(i, ...)), i)
    end
    local line = concat(parts)
    native.log(level, line, #line)
end

function ngx.log(level, ...)
    if type(level) ~= "number" or level < 0 or level > 8 then
        error("bad argument #1 to 'log' (bad log level: " .. tostring(level) .. ")", 2)
    end
    write(level, ...)
end

function print(...)
    local values = { ... }
    for i = 1, select("#", ...) do
        values[i] = tostring(values[i])
    end
    write(ngx.NOTICE, unpack(values))
end
