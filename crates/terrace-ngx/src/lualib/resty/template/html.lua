-- A helper for templates that writes elements: html.li("text"), html.td{ id = 4 }("text"). Every field is an element's
-- name. Content and attribute values are escaped; an element without content closes itself.

local escape = require("resty.template").escape

local concat = table.concat
local pairs = pairs
local setmetatable = setmetatable
local sort = table.sort
local type = type

local _M = { _VERSION = "0.1.0" }


local function attribute_text(attributes)
    local parts = {}
    for name, value in pairs(attributes) do
        if type(name) == "string" then
            parts[#parts + 1] = " " .. name .. '="' .. escape(value) .. '"'
        end
    end
    sort(parts)
    return concat(parts)
end


local function element(name, attributes, content)
    if content == nil then
        return "<" .. name .. attributes .. " />"
    end
    return "<" .. name .. attributes .. ">" .. escape(content) .. "</" .. name .. ">"
end


local function writer_of(_, name)
    return function(argument)
        if type(argument) ~= "table" then
            return element(name, "", argument)
        end
        local attributes = attribute_text(argument)
        return function(content)
            return element(name, attributes, content)
        end
    end
end


return setmetatable(_M, { __index = writer_of })
