-- Tables to be used again, by the name of their pool.

local clear = require "table.clear"
local new_table = require "table.new"

local error, getmetatable, setmetatable, type = error, getmetatable, setmetatable, type

-- Tables that a pool keeps.
local KEPT_MAX = 500
-- After so many uses a pool's tables are made anew, as they may have grown.
local USES_MAX = 200000

local _M = { version = "0.03" }

-- Pool's name -> { count = …, uses = …, tables }.
local pools = {}

-- A table out of a pool, or a new one with room for `narr` items and `nrec` fields.
function _M.fetch(tag, narr, nrec)
    local pool = pools[tag]
    if not pool then
        pool = { count = 0, uses = 0 }
        pools[tag] = pool
    elseif pool.count > 0 then
        local found = pool[pool.count]
        pool[pool.count] = nil
        pool.count = pool.count - 1
        return found
    end
    return new_table(narr or 0, nrec or 0)
end

-- Gives a table back: emptied, unless `noclear`.
function _M.release(tag, object, noclear)
    if not object then
        error("object empty", 2)
    elseif type(object) ~= "table" then
        error("bad argument #2 to 'release' (table expected, got " .. type(object) .. ")", 2)
    end
    local pool = pools[tag]
    if not pool then
        pool = { count = 0, uses = 0 }
        pools[tag] = pool
    end
    if not noclear then
        if getmetatable(object) then
            setmetatable(object, nil)
        end
        clear(object)
    end
    pool.uses = pool.uses + 1
    if pool.uses > USES_MAX then
        pools[tag] = nil
        return
    end
    if pool.count < KEPT_MAX then
        pool.count = pool.count + 1
        pool[pool.count] = object
    end
end

return _M
