-- `require "table.clone"`: a shallow copy of a table, without its metatable. Also `table.clone` from then on, as in
-- OpenResty's LuaJIT.

local error, next, type = error, next, type

function table.clone(t)
    if type(t) ~= "table" then
        error("bad argument #1 to 'clone' (table expected, got " .. (t == nil and "no value" or type(t)) .. ")", 2)
    end
    local copy = {}
    for key, value in next, t do
        copy[key] = value
    end
    return copy
end

return table.clone
