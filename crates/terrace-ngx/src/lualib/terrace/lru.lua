-- The body of both least-recently-used caches, resty.lrucache and resty.lrucache.pureffi.
--
-- Items live in numbered slots. A slot's key and value stand in two Lua arrays; its neighbours in the order of use, its
-- expiry and its flags stand in C arrays, so that a hit moves integers and allocates nothing. Slot 0 is the ring's
-- anchor: next_of[0] is the most recently used item, previous_of[0] the least. Free slots are chained through next_of.
-- The two caches differ only in the index that finds a key's slot; it is given as a table of four functions:
--
--     create(slots_max, load_factor) -> state       find(state, keys, key) -> slot or nil
--     insert(state, key, slot)                      remove(state, keys, key, slot)
--
-- Invariant: used + free slots = slots_max, and every used slot is in the ring and in the index exactly once.

local ffi = require "ffi"

local ffi_new = ffi.new
local new_tab = require "table.new"
local ngx_now = ngx.now
local setmetatable = setmetatable
local type = type

local NEVER = -1
local SLOTS_MAX = 0x7ffffffe
local FLAGS_MAX = 0xffffffff

local _M = { _VERSION = "0.1.0" }

-- Sizes that need no more than this are allocated at once for the Lua arrays too; larger ones grow with use.
local PREALLOCATED_SLOTS_MAX = 4096


local function ring_remove(self, slot)
    local previous_of, next_of = self.previous_of, self.next_of
    local before, after = previous_of[slot], next_of[slot]
    next_of[before] = after
    previous_of[after] = before
end


local function ring_push_front(self, slot)
    local previous_of, next_of = self.previous_of, self.next_of
    local first = next_of[0]
    next_of[slot] = first
    previous_of[slot] = 0
    previous_of[first] = slot
    next_of[0] = slot
end


-- Makes every slot free. Slots above `touched` have never been used and need no chain.
local function reset(self)
    local previous_of, next_of = self.previous_of, self.next_of
    previous_of[0], next_of[0] = 0, 0
    self.free = 0
    self.touched = 0
    self.used = 0
    local slots = self.slots_max <= PREALLOCATED_SLOTS_MAX and self.slots_max or 0
    self.keys = new_tab(slots, 0)
    self.values = new_tab(slots, 0)
    self.index = self.index_create(self.slots_max, self.load_factor)
end


local function take_free_slot(self)
    local slot = self.free
    if slot ~= 0 then
        self.free = self.next_of[slot]
    else
        slot = self.touched + 1
        self.touched = slot
    end
    self.used = self.used + 1
    return slot
end


-- The cache class over one kind of index.
function _M.class(index)
    local find, insert, remove, create = index.find, index.insert, index.remove, index.create
    local class = { _VERSION = _M._VERSION }
    local mt = { __index = class }

    -- A cache of at most `slots_max` items, or nil and an error.
    function class.new(slots_max, load_factor)
        if type(slots_max) ~= "number" or slots_max < 1 then
            return nil, "a cache must hold at least one item"
        end
        if slots_max > SLOTS_MAX then
            return nil, "too many items"
        end
        slots_max = slots_max - slots_max % 1
        local self = {
            slots_max = slots_max,
            load_factor = load_factor,
            index_create = create,
            previous_of = ffi_new("int32_t[?]", slots_max + 1),
            next_of = ffi_new("int32_t[?]", slots_max + 1),
            expires_at = ffi_new("double[?]", slots_max + 1),
            flags_of = ffi_new("uint32_t[?]", slots_max + 1),
        }
        reset(self)
        return setmetatable(self, mt)
    end

    -- value, nil, flags for a live item; nil, stale value, flags for an expired one; nil when there is none.
    function class.get(self, key)
        local slot = find(self.index, self.keys, key)
        if not slot then
            return nil
        end
        if self.next_of[0] ~= slot then
            ring_remove(self, slot)
            ring_push_front(self, slot)
        end
        local expires_at = self.expires_at[slot]
        if expires_at ~= NEVER and expires_at < ngx_now() then
            return nil, self.values[slot], self.flags_of[slot]
        end
        return self.values[slot], nil, self.flags_of[slot]
    end

    -- Stores a value under a key for `ttl` seconds (nil: until evicted), with flags (0 to 2^32 - 1, default 0).
    function class.set(self, key, value, ttl, flags)
        if key == nil then
            return
        end
        local slot = find(self.index, self.keys, key)
        if slot then
            ring_remove(self, slot)
        else
            if self.used >= self.slots_max then
                class.delete(self, self.keys[self.previous_of[0]])
            end
            slot = take_free_slot(self)
            self.keys[slot] = key
            insert(self.index, key, slot)
        end
        ring_push_front(self, slot)
        self.values[slot] = value
        self.expires_at[slot] = ttl and ngx_now() + ttl or NEVER
        if type(flags) ~= "number" or flags < 0 or flags > FLAGS_MAX then
            flags = 0
        end
        self.flags_of[slot] = flags
    end

    -- Removes a key. Returns whether it was there.
    function class.delete(self, key)
        local slot = find(self.index, self.keys, key)
        if not slot then
            return false
        end
        remove(self.index, self.keys, key, slot)
        ring_remove(self, slot)
        self.keys[slot] = nil
        self.values[slot] = nil
        self.next_of[slot] = self.free
        self.free = slot
        self.used = self.used - 1
        return true
    end

    -- Removes everything.
    function class.flush_all(self)
        reset(self)
    end

    -- The number of items, expired ones that still stand included.
    function class.count(self)
        return self.used
    end

    -- The number of items that fit.
    function class.capacity(self)
        return self.slots_max
    end

    -- The keys, most recently used first, at most `keys_max` of them (nil or 0: all), in `keys` when that is given;
    -- there a nil follows the last key.
    function class.get_keys(self, keys_max, keys)
        local count = self.used
        if keys_max and keys_max > 0 and keys_max < count then
            count = keys_max
        end
        keys = keys or new_tab(count, 0)
        local slot = 0
        for i = 1, count do
            slot = self.next_of[slot]
            keys[i] = self.keys[slot]
        end
        keys[count + 1] = nil
        return keys
    end

    return class
end


return _M
