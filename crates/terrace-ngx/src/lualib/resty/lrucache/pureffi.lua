-- A least-recently-used cache like resty.lrucache, but indexed by a hash table in C arrays: a Lua table pays for keys
-- that are inserted and removed all the time with repeated rehashing, this one does not.
--
-- Buckets hold chains of slots. `first_of[bucket]` is the chain's first slot and `chain[slot]` the next one, 0 ends it.

local bit = require "bit"
local ffi = require "ffi"
local lru = require "terrace.lru"

local band = bit.band
local ffi_new = ffi.new
local hash_of = ngx.crc32_short
local max = math.max
local min = math.min
local tostring = tostring
local type = type

local LOAD_FACTOR_DEFAULT = 0.5
local LOAD_FACTOR_MIN = 0.1
local LOAD_FACTOR_MAX = 1

local index = {}


-- At least slots_max / load_factor buckets, a power of two of them.
function index.create(slots_max, load_factor)
    load_factor = min(max(load_factor or LOAD_FACTOR_DEFAULT, LOAD_FACTOR_MIN), LOAD_FACTOR_MAX)
    local wanted = slots_max / load_factor
    local buckets = 1
    while buckets < wanted and buckets < 0x40000000 do
        buckets = buckets * 2
    end
    return {
        mask = buckets - 1,
        first_of = ffi_new("int32_t[?]", buckets),
        chain = ffi_new("int32_t[?]", slots_max + 1),
    }
end


local function bucket_of(state, key)
    if type(key) ~= "string" then
        key = tostring(key)
    end
    return band(hash_of(key), state.mask)
end


function index.find(state, keys, key)
    local chain = state.chain
    local slot = state.first_of[bucket_of(state, key)]
    while slot ~= 0 do
        if keys[slot] == key then
            return slot
        end
        slot = chain[slot]
    end
    return nil
end


function index.insert(state, key, slot)
    local bucket = bucket_of(state, key)
    state.chain[slot] = state.first_of[bucket]
    state.first_of[bucket] = slot
end


function index.remove(state, _, key, slot)
    local bucket = bucket_of(state, key)
    local chain = state.chain
    local at = state.first_of[bucket]
    if at == slot then
        state.first_of[bucket] = chain[slot]
        return
    end
    while at ~= 0 do
        local after = chain[at]
        if after == slot then
            chain[at] = chain[slot]
            return
        end
        at = after
    end
end


return lru.class(index)
