-- Consistent hashing: 160 points for each unit of weight on a circle of CRC32 values, as `hash … consistent` has them, so
-- that ids of the form `host "\0" port` choose what nginx chooses.

local bit = require "bit"
local ffi = require "ffi"
local nodes = require "terrace.nodes"

local band, rshift = bit.band, bit.rshift
local char = string.char
local floor, sort = math.floor, table.sort
local tostring, type = tostring, type
local crc32 = ngx.crc32_long

local POINTS_PER_WEIGHT = 160
-- A point and its owner are sorted as one number; this is the room for the owner.
local OWNERS_MAX = 1048576

local function le_bytes(n)
    return char(band(n, 255), band(rshift(n, 8), 255), band(rshift(n, 16), 255), band(rshift(n, 24), 255))
end

local function rebuild(self)
    local ids, weights = nodes.sorted(self.nodes)
    local marks, n = {}, 0
    for owner = 1, #ids do
        local previous, id = 0, ids[owner]
        for _ = 1, floor(weights[owner] * POINTS_PER_WEIGHT) do
            previous = crc32(id .. le_bytes(previous))
            n = n + 1
            marks[n] = previous * OWNERS_MAX + owner
        end
    end
    sort(marks)
    local points, owners, count = ffi.new("uint32_t[?]", n + 1), ffi.new("uint32_t[?]", n + 1), 0
    for i = 1, n do
        local owner = marks[i] % OWNERS_MAX
        local point = (marks[i] - owner) / OWNERS_MAX
        -- Of equal points the first stays.
        if count == 0 or points[count - 1] ~= point then
            points[count], owners[count] = point, owner
            count = count + 1
        end
    end
    self.ids, self.points, self.owners, self.count = ids, points, owners, count
end

local _M = nodes.class(rebuild)

-- The id for a key and its place on the circle; nil where there is no node.
function _M.find(self, key)
    self:_refresh()
    local count, points = self.count, self.points
    if count == 0 then
        return nil
    end
    local hash = crc32(type(key) == "string" and key or tostring(key))
    local low, high = 0, count
    while low < high do
        local middle = rshift(low + high, 1)
        if points[middle] < hash then
            low = middle + 1
        else
            high = middle
        end
    end
    if low == count then
        low = 0
    end
    return self.ids[self.owners[low]], low
end

-- The id behind a place, and its place; it may be the same id again.
function _M.next(self, index)
    self:_refresh()
    if self.count == 0 then
        return nil
    end
    index = (index + 1) % self.count
    return self.ids[self.owners[index]], index
end

return _M
