-- Weighted round robin: in each turn a node comes as often as its weight says. The first choice is a random one.

local nodes = require "terrace.nodes"

local random = math.random

local function gcd(a, b)
    while b ~= 0 do
        a, b = b, a % b
    end
    return a
end

local function rebuild(self)
    local ids, weights = nodes.sorted(self.nodes)
    local step, heaviest = 0, 0
    for i = 1, #weights do
        step = gcd(step, weights[i])
        heaviest = weights[i] > heaviest and weights[i] or heaviest
    end
    self.ids, self.weights, self.step, self.heaviest = ids, weights, step, heaviest
    -- The weight that a node needs in this round.
    self.threshold = heaviest
    self.last = #ids > 0 and random(#ids) - 1 or 0
end

local _M = nodes.class(rebuild)

-- The next id; nil where there is no node.
function _M.find(self)
    self:_refresh()
    local ids, weights = self.ids, self.weights
    local count = #ids
    if count == 0 then
        return nil
    end
    while true do
        local at = self.last + 1
        if at > count then
            at = 1
            self.threshold = self.threshold - self.step
            if self.threshold <= 0 then
                self.threshold = self.heaviest
            end
        end
        self.last = at
        if weights[at] >= self.threshold then
            return ids[at]
        end
    end
end

_M.next = _M.find

return _M
