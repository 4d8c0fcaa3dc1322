-- What resty.chash, resty.roundrobin and resty.swrr share: a table of nodes, id to weight, that can be changed.
--
-- A class gives `rebuild(self)`, which is called ahead of the next choice after each change.

local error, pairs, setmetatable, tonumber = error, pairs, setmetatable, tonumber

local _M = {}

local function weight_of(weight)
    weight = tonumber(weight)
    if not weight or weight < 0 then
        error("bad weight (non-negative integer expected)", 3)
    end
    return weight
end

-- A class with new, reinit, set, delete, incr and decr.
function _M.class(rebuild)
    local class = { _VERSION = "0.05" }
    local mt = { __index = class }

    function class.reinit(self, nodes)
        self.nodes = {}
        for id, weight in pairs(nodes) do
            if weight_of(weight) > 0 then
                self.nodes[id] = weight_of(weight)
            end
        end
        self.is_stale = true
    end

    -- `nodes` maps ids to weights.
    function class.new(_, nodes)
        local self = setmetatable({}, mt)
        class.reinit(self, nodes)
        return self
    end

    function class.set(self, id, weight)
        weight = weight_of(weight)
        self.nodes[id] = weight > 0 and weight or nil
        self.is_stale = true
    end

    function class.delete(self, id)
        self.nodes[id] = nil
        self.is_stale = true
    end

    function class.incr(self, id, weight)
        class.set(self, id, (self.nodes[id] or 0) + weight_of(weight or 1))
    end

    function class.decr(self, id, weight)
        local left = (self.nodes[id] or 0) - weight_of(weight or 1)
        class.set(self, id, left > 0 and left or 0)
    end

    -- To be called ahead of a choice.
    function class._refresh(self)
        if self.is_stale then
            self.is_stale = false
            rebuild(self)
        end
    end

    return class
end

-- The ids in an order that is the same in each worker, and their weights.
function _M.sorted(nodes)
    local ids, weights = {}, {}
    for id in pairs(nodes) do
        ids[#ids + 1] = id
    end
    table.sort(ids)
    for i = 1, #ids do
        weights[i] = nodes[ids[i]]
    end
    return ids, weights
end

return _M
