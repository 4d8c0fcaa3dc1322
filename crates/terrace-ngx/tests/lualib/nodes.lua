-- resty.chash, resty.roundrobin and resty.swrr.
--
-- Expected output:
--   same key, same node: true
--   shares are those of the weights: true
--   few keys move when a node goes: true
--   next walks the circle: true
--   nginx's points: 127.0.0.1:1985
--   none: nil nil nil
--   roundrobin a4 b2 c1 after growth a4 b3 c2
--   swrr a4 b2 c1 after growth a4 b3 c2
--   swrr spreads: true
--   bad weight

local chash = require "resty.chash"
local classes = { roundrobin = require "resty.roundrobin", swrr = require "resty.swrr" }

local weights = { one = 10, two = 20, three = 10 }
local ring = chash:new(weights)
local keys, before, counts = 4000, {}, { one = 0, two = 0, three = 0 }
for i = 1, keys do
    before[i] = ring:find("key" .. i)
    counts[before[i]] = counts[before[i]] + 1
end
local is_same = true
for i = 1, keys do
    is_same = is_same and ring:find("key" .. i) == before[i]
end
ngx.say("same key, same node: ", is_same)
local half, quarter = counts.two / keys, counts.one / keys
ngx.say("shares are those of the weights: ", half > 0.42 and half < 0.58 and quarter > 0.18 and quarter < 0.32)

ring:delete("three")
local moved = 0
for i = 1, keys do
    if before[i] ~= "three" and ring:find("key" .. i) ~= before[i] then
        moved = moved + 1
    end
end
ngx.say("few keys move when a node goes: ", moved == 0)

local id, index = ring:find("x")
local seen = { [id] = true }
for _ = 1, 200 do
    id, index = ring:next(index)
    seen[id] = true
end
ngx.say("next walks the circle: ", seen.one and seen.two and not seen.three)

-- The point of a key is found by hand here: the first at or after its CRC32, of all points chained by CRC32.
local servers = { ["127.0.0.1\0001985"] = 1, ["127.0.0.1\0001986"] = 1, ["127.0.0.1\0001987"] = 1 }
local best, chosen
local hash = ngx.crc32_long("foo")
for name in pairs(servers) do
    local point = 0
    for _ = 1, 160 do
        point = ngx.crc32_long(name .. string.char(point % 256, math.floor(point / 256) % 256,
            math.floor(point / 65536) % 256, math.floor(point / 16777216)))
        local distance = (point - hash) % 4294967296
        if not best or distance < best then
            best, chosen = distance, name
        end
    end
end
assert(chash:new(servers):find("foo") == chosen)
ngx.say("nginx's points: ", (chosen:gsub("%z", ":")))

ngx.say("none: ", tostring(chash:new({}):find("x")), " ", tostring(classes.roundrobin:new({}):find()), " ",
    tostring(classes.swrr:new({}):find()))

local function turn(balancer, length)
    local count, order = {}, {}
    for i = 1, length do
        order[i] = balancer:find()
        count[order[i]] = (count[order[i]] or 0) + 1
    end
    return "a" .. count.a .. " b" .. count.b .. " c" .. count.c, order
end

local order
for _, name in ipairs { "roundrobin", "swrr" } do
    local balancer = classes[name]:new({ a = 4, b = 2, c = 1 })
    local first
    first, order = turn(balancer, 7)
    balancer:incr("b")
    balancer:set("c", 2)
    balancer:incr("d", 3)
    balancer:decr("d", 4)
    -- What comes first is random, but the sequence repeats: a turn holds the same wherever it begins.
    local second = turn(balancer, 9)
    ngx.say(name, " ", first, " after growth ", second)
end
local longest, run = 0, 0
for i = 1, 14 do
    run = order[(i - 1) % 7 + 1] == "a" and run + 1 or 0
    longest = math.max(longest, run)
end
ngx.say("swrr spreads: ", longest <= 2)
ngx.say(select(2, pcall(chash.new, chash, { a = -1 })):match("bad weight"))
