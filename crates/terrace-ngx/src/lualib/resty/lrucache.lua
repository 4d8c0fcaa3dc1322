-- A least-recently-used cache of any Lua values in this worker, indexed by a Lua table: the quickest for caches that
-- mostly hit. resty.lrucache.pureffi has the same interface and suits caches whose keys come and go.

local lru = require "terrace.lru"

local index = {}


function index.create()
    return {}
end


function index.find(state, _, key)
    return state[key]
end


function index.insert(state, key, slot)
    state[key] = slot
end


function index.remove(state, _, key)
    state[key] = nil
end


return lru.class(index)
