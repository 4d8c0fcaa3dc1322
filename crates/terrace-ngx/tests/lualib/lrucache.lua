-- Both least-recently-used caches, through the same steps. A sleep of 20 ms lets an item expire.
--
-- Expected output:
--   resty.lrucache: 1 nil 7 | nil | a,c,d | 3/3 | nil stale 2 | 0 | a cache must hold at least one item
--   resty.lrucache: model holds
--   resty.lrucache.pureffi: 1 nil 7 | nil | a,c,d | 3/3 | nil stale 2 | 0 | a cache must hold at least one item
--   resty.lrucache.pureffi: model holds

-- A cache as plain as can be, to compare with: a list of { key, value }, most recently used first.
local function model_touch(model, key, value, capacity)
    for i, item in ipairs(model) do
        if item[1] == key then
            table.remove(model, i)
            table.insert(model, 1, item)
            if value then
                item[2] = value
            end
            return item[2]
        end
    end
    if value then
        table.insert(model, 1, { key, value })
        model[capacity + 1] = nil
    end
    return value
end

local function compare(class)
    local capacity = 50
    local cache, model = class.new(capacity), {}
    local seed = 12345
    for step = 1, 20000 do
        seed = (seed * 1103515245 + 12345) % 2147483648
        local key = "key" .. math.floor(seed / 65536) % 120
        local action = math.floor(seed / 1024) % 10
        if action < 5 then
            assert(cache:get(key) == model_touch(model, key))
        elseif action < 9 then
            cache:set(key, step)
            model_touch(model, key, step, capacity)
        else
            cache:delete(key)
            for i, item in ipairs(model) do
                if item[1] == key then
                    table.remove(model, i)
                    break
                end
            end
        end
        assert(cache:count() == #model)
    end
    for i, key in ipairs(cache:get_keys()) do
        assert(model[i][1] == key)
    end
    return "model holds"
end

for _, name in ipairs { "resty.lrucache", "resty.lrucache.pureffi" } do
    local class = require(name)
    local cache = class.new(3)
    cache:set("a", 1, nil, 7)
    cache:set("b", 2)
    cache:set("c", 3)
    local value, stale, flags = cache:get("a")
    cache:get("c")
    cache:set("d", 4)
    cache:get("c")
    cache:set("c", 3)
    cache:get("a")
    local line = { tostring(value) .. " " .. tostring(stale) .. " " .. flags, tostring((cache:get("b"))) }
    local keys = cache:get_keys(nil, { 1, 2, 3, 4, 5 })
    line[3] = table.concat(keys, ",")
    line[4] = cache:count() .. "/" .. cache:capacity()
    cache:set("s", "stale", 0.01, 2)
    ngx.sleep(0.02)
    local gone, old, old_flags = cache:get("s")
    line[5] = tostring(gone) .. " " .. tostring(old) .. " " .. tostring(old_flags)
    cache:flush_all()
    line[6] = tostring(cache:count())
    line[7] = select(2, class.new(0))
    ngx.say(name, ": ", table.concat(line, " | "))
    ngx.say(name, ": ", compare(class))
end
