-- `require "table.isarray"`: whether all keys of a table are positive integers; an empty table is an array. Also
-- `table.isarray` from then on, as in OpenResty's LuaJIT.

local error, floor, next, type = error, math.floor, next, type

function table.isarray(t)
    if type(t) ~= "table" then
        error("bad argument #1 to 'isarray' (table expected, got " .. (t == nil and "no value" or type(t)) .. ")", 2)
    end
    for key in next, t do
        if type(key) ~= "number" or key < 1 or floor(key) ~= key then
            return false
        end
    end
    return true
end

return table.isarray
