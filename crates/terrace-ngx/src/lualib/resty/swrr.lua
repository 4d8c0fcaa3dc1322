-- Smooth weighted round robin, as upstreams balance: heavy nodes are spread over the turn. It begins at a random place.

local nodes = require "terrace.nodes"

local random = math.random

-- A turn of more choices than this begins somewhere in its first part.
local START_MAX = 1000

local function choose(self)
    local weights, currents = self.weights, self.currents
    local best, most
    for i = 1, #weights do
        local current = currents[i] + weights[i]
        currents[i] = current
        if not most or current > most then
            best, most = i, current
        end
    end
    if not best then
        return nil
    end
    currents[best] = most - self.total
    return self.ids[best]
end

local function rebuild(self)
    local ids, weights = nodes.sorted(self.nodes)
    local total, currents = 0, {}
    for i = 1, #weights do
        total = total + weights[i]
        currents[i] = 0
    end
    self.ids, self.weights, self.currents, self.total = ids, weights, currents, total
    local turn = total < START_MAX and total or START_MAX
    for _ = 1, turn >= 1 and random(turn) or 0 do
        choose(self)
    end
end

local _M = nodes.class(rebuild)

-- The next id; nil where there is no node.
function _M.find(self)
    self:_refresh()
    return choose(self)
end

_M.next = _M.find

return _M
