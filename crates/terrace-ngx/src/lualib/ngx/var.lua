-- ngx.var.

local base = require "terrace.base"

local native, take, refuse, text = base.native, base.take, base.refuse_here, base.text
local error, tostring, type = error, tostring, type

ngx.var = setmetatable({}, {
    __index = function(_, name)
        local code
        if type(name) == "number" then
            code = native.var_capture(name, text)
        elseif type(name) == "string" then
            code = native.var_get(name, #name, text)
        else
            error("bad variable name", 2)
        end
        if code == 0 then
            return take()
        elseif code <= -100 then
            refuse(code)
        end
        return nil
    end,
    __newindex = function(_, name, value)
        if type(name) ~= "string" then
            error("bad variable name", 2)
        end
        local code
        if value == nil then
            code = native.var_set(name, #name, nil, 0)
        else
            if type(value) ~= "string" then
                value = tostring(value)
            end
            code = native.var_set(name, #name, value, #value)
        end
        if code == 0 then
            return
        elseif code == -1 then
            error("variable \"" .. name .. "\" not found for writing; maybe it is a built-in variable that is not "
                .. "changeable or you forgot to use \"set $" .. name .. " '';\" in the config file to define it first", 2)
        elseif code == -2 then
            error("variable \"" .. name .. "\" not changeable", 2)
        end
        refuse(code)
    end,
})
