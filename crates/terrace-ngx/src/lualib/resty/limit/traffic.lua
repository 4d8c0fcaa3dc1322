-- Several limiters as one: a request counts in all of them or in none.

local max = math.max

local _M = { _VERSION = "0.09" }

-- The longest of the limiters' delays; or nil and what the first that refused said. `limiters` and `keys` are lists of one
-- length; what the limiters tell of their state goes into `states`, if there is such a table.
function _M.combine(limiters, keys, states)
    local count, delay = #limiters, 0
    -- Each is asked first, so that a refusal seldom needs to be undone.
    for i = 1, count do
        local this, state = limiters[i]:incoming(keys[i], i == count)
        if not this then
            return nil, state
        end
        delay = i == 1 and this or max(delay, this)
        if states then
            states[i] = state
        end
    end
    for i = 1, count - 1 do
        local this, state = limiters[i]:incoming(keys[i], true)
        if not this then
            for before = 1, i - 1 do
                limiters[before]:uncommit(keys[before])
            end
            limiters[count]:uncommit(keys[count])
            return nil, state
        end
        delay = max(delay, this)
        if states then
            states[i] = state
        end
    end
    return delay
end

return _M
