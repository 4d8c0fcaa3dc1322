-- ngx.log and print.

local base = require "terrace.base"

local native = base.native
local concat, select, tonumber, tostring, type = table.concat, select, tonumber, tostring, type
local error, getinfo, getmetatable = error, debug.getinfo, getmetatable
local gsub = string.gsub
local null = ngx.null

local function text_of(value, position, name)
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
        error("bad argument #" .. position .. " to '" .. name .. "' (expected table to have __tostring metamethod)", 4)
    end
    error("bad argument #" .. position .. " to '" .. name .. "' (string, number, boolean, or nil expected, got " .. t .. ")", 4)
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

local function write(name, level, ...)
    if native.log_enabled(level) == 0 then
        return
    end
    local parts = { where() }
    for i = 1, select("#", ...) do
        parts[i + 1] = text_of((select(i, ...)), i, name)
    end
    local line = concat(parts)
    native.log(level, line, #line)
end

function ngx.log(level, ...)
    local given = level
    level = tonumber(level)
    if not level then
        error("bad argument #1 to 'log' (number expected, got " .. type(given) .. ")", 2)
    elseif level < 0 or level > 8 then
        error("bad argument #1 to 'log' (bad log level: " .. tostring(level) .. ")", 2)
    end
    write("log", level, ...)
end

function print(...)
    write("print", ngx.NOTICE, ...)
end
