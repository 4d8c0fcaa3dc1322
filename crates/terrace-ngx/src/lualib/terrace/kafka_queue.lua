-- Messages of an asynchronous producer on their way: a ring of { topic, key, message }, of bounded length.

local semaphore = require "ngx.semaphore"

local setmetatable = setmetatable

local _M = {}
local mt = { __index = _M }

-- Room for `size` messages. Where it is full, `wait_s` seconds are waited for room, if given.
function _M.new(size, wait_s)
    return setmetatable({
        items = {}, first = 1, count = 0, size = size, wait_s = wait_s,
        room = wait_s and semaphore.new(0), waiting = 0,
    }, mt)
end

local function wait_for_room(self)
    if not self.wait_s then
        return nil, "buffer overflow"
    end
    self.waiting = self.waiting + 1
    local ok, err = self.room:wait(self.wait_s)
    self.waiting = self.waiting - 1
    if not ok then
        return nil, "buffer overflow " .. err
    end
    return true
end

-- True; or nil and "buffer overflow".
function _M.push(self, topic, key, message)
    while self.count >= self.size do
        local ok, err = wait_for_room(self)
        if not ok then
            return nil, err
        end
    end
    local items, size = self.items, self.size * 3
    local at = (self.first - 1 + self.count * 3) % size
    items[at + 1], items[at + 2], items[at + 3] = topic, key, message
    self.count = self.count + 1
    return true
end

-- The oldest message, or nothing.
function _M.pop(self)
    if self.count == 0 then
        return nil
    end
    local items, at = self.items, self.first
    local topic, key, message = items[at], items[at + 1], items[at + 2]
    items[at], items[at + 1], items[at + 2] = false, false, false
    self.first = (at + 2) % (self.size * 3) + 1
    self.count = self.count - 1
    if self.waiting > 0 and self.room:count() < 1 then
        self.room:post(1)
    end
    return topic, key, message
end

return _M
