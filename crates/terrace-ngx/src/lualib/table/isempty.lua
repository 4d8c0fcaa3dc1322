-- `require "table.isempty"`: whether a table has no keys. Also `table.isempty` from then on, as in OpenResty's LuaJIT.

local error, next, type = error, next, type

function table.isempty(t)
    if type(t) ~= "table" then
        error("bad argument #1 to 'isempty' (table expected, got " .. (t == nil and "no value" or type(t)) .. ")", 2)
    end
    return next(t) == nil
end

return table.isempty
