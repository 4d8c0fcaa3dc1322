-- `require "table.nkeys"`: how many keys a table has. Also `table.nkeys` from then on, as in OpenResty's LuaJIT.

local error, next, type = error, next, type

function table.nkeys(t)
    if type(t) ~= "table" then
        error("bad argument #1 to 'nkeys' (table expected, got " .. (t == nil and "no value" or type(t)) .. ")", 2)
    end
    local count = 0
    for _ in next, t do
        count = count + 1
    end
    return count
end

return table.nkeys
