-- rediscluster against a cluster one of whose nodes is at port PORT_OF_STORE. Needs `lua_shared_dict redis_cluster_slot_locks`.
--
-- Expected output:
--   31c3 true true
--   1275
--   ["1","2","3","4","5","6","7","8","9","10",2,[false,"WRONGTYPE Operation against a key holding the wrong kind of value"]]
--   4 1 2
--   nil Cannot execute eval with more than one keys for redis cluster
--   nil Cannot execute eval without keys number
--   nil command not supported
--   null nil WRONGTYPE Operation against a key holding the wrong kind of value
--   moved: 2
--   moved in a pipeline: ["2","2","3","4"]
--   asked: OK new
--   asked in a pipeline: ["new","7"]
--   from replicas: 1276
--    redis cluster config name is empty
--    redis cluster config serv_list is empty
--   unable to connect 127.0.0.1:1: connection refused
--   flushed: true null

local cjson = require "cjson"
local cluster_class = require "rediscluster"
local redis = require "resty.redis"
local slot = require "terrace.redis_slot"
local slots = require "terrace.redis_slots"

local json = cjson.encode
ngx.say(("%x"):format(slot.crc16("123456789")), " ", slot.of("foo{bar}") == slot.of("bar"), " ",
    slot.of("foo{}{bar}") == slot.crc16("foo{}{bar}") % 16384)

-- The first node is not there.
local servers = { { ip = "127.0.0.1", port = 1 }, { ip = "127.0.0.1", port = PORT_OF_STORE } }
local config = { name = "cluster", serv_list = servers, max_connection_attempts = 1, keepalive_timeout = 60000 }
local red = assert(cluster_class:new(config))
local sum = 0
for i = 1, 50 do
    assert(red:set("k" .. i, i) == "OK")
    sum = sum + red:get("k" .. i)
end
ngx.say(sum)
red:init_pipeline()
for i = 1, 10 do
    red:get("k" .. i)
end
red:incr("k1")
red:lpop("k1")
ngx.say(json((red:commit_pipeline())))
red:set("counter", 2)
ngx.say((red:eval("return redis.call('incrby', KEYS[1], ARGV[1])", 1, "counter", 2)), " ", (red:eval("return 1", 0)), " ",
    (red:eval("return #KEYS", 2, "a{x}", "b{x}")))
ngx.say("nil ", select(2, red:eval("return 1", 2, "a", "b")))
ngx.say("nil ", select(2, red:eval("return 1")))
ngx.say("nil ", select(2, red:shutdown()))
local none, odd, why = red:get("none"), red:lpop("k1")
ngx.say(json(none), " ", tostring(odd), " ", why)

-- A map that is wrong everywhere: each slot at the group that has the next.
local function confuse()
    local owners = slots.known(config).owners
    for i = 0, slot.SLOTS - 1 do
        owners[i] = owners[i] % 3 + 1
    end
end
confuse()
ngx.say("moved: ", (red:get("k2")))
confuse()
red:init_pipeline()
for i = 1, 4 do
    red:get("k" .. i)
end
ngx.say("moved in a pipeline: ", json((red:commit_pipeline())))

-- A slot on its way: the keys that are not there yet are at its next owner, who must be asked.
local map, moving = slots.known(config), slot.of("k7")
local function client(group)
    local c = redis:new()
    assert(c:connect(map.groups[group].master.ip, map.groups[group].master.port))
    return c
end
local from, to = client(map.owners[moving]), client(map.owners[moving] % 3 + 1)
assert(to:cluster("setslot", moving, "importing", (from:cluster("myid"))))
assert(from:cluster("setslot", moving, "migrating", (to:cluster("myid"))))
ngx.say("asked: ", (red:set("{k7}new", "new")), " ", (red:get("{k7}new")))
red:init_pipeline()
red:get("{k7}new")
red:get("k7")
ngx.say("asked in a pipeline: ", json((red:commit_pipeline())))
to:asking()
to:del("{k7}new")
assert(to:cluster("setslot", moving, "stable"))
assert(from:cluster("setslot", moving, "stable"))

for group = 1, #map.groups do
    client(group):wait(1, 5000)
end
local reader = assert(cluster_class:new {
    name = "readers", serv_list = servers, max_connection_attempts = 1, enable_slave_read = true,
})
sum = 0
for i = 1, 50 do
    sum = sum + reader:get("k" .. i)
end
ngx.say("from replicas: ", sum)

ngx.say((select(2, cluster_class:new {})))
ngx.say((select(2, cluster_class:new { name = "x" })))
ngx.say((select(2, cluster_class:new { name = "x", serv_list = { servers[1] }, max_connection_attempts = 1 })))
ngx.say("flushed: ", (red:flushall()), " ", json((red:get("k1"))))
