-- ndk.set_var: the functions behind set_escape_uri, set_md5 and their kin, callable from Lua.

local base = require "terrace.base"

local native, take, refuse, text = base.native, base.take, base.refuse, base.text
local error, setmetatable, tostring, type = error, setmetatable, tostring, type

local functions = {}

local function make(name)
    return function(argument)
        if type(argument) ~= "string" then
            argument = argument == nil and "" or tostring(argument)
        end
        local code = native.set_var(name, #name, argument, #argument, text)
        if code == 0 then
            return take()
        elseif code == -100 then
            refuse(code)
        end
        error("calling directive " .. name .. " failed with code -1", 2)
    end
end

ndk = {
    set_var = setmetatable({}, {
        __index = function(_, name)
            if type(name) ~= "string" then
                name = tostring(name)
            end
            local f = functions[name]
            if f then
                return f
            end
            if native.set_var(name, #name, nil, 0, text) ~= 0 then
                error("ndk.set_var: directive \"" .. name .. "\" not found or does not use ndk_set_var_value", 2)
            end
            f = make(name)
            functions[name] = f
            return f
        end,
        __newindex = function()
            error("not allowed", 2)
        end,
    }),
}
