-- resty.redis against a server at port PORT_OF_STORE.
--
-- Expected output:
--   1
--   OK | "an animal" | null | false "ERR value is not an integer or out of range" | 1
--   ["an animal",null,"1"]
--   OK OK 1234
--   ["OK","Marry",[false,"ERR value is not an integer or out of range"],[]]
--   OK QUEUED QUEUED ["OK",[false,"WRONGTYPE Operation against a key holding the wrong kind of value"]]
--   ["k","v",[false,"x"],1]
--   1 12 ["1","12"]
--   300000 true
--   nil no pipeline | nil not subscribed | not initialized
--   [["subscribe","dog",1],["subscribe","cat",2]]
--   1 1 ["message","dog","first"]
--   ["subscribe","bird",3]
--   ["message","cat","second"] nil subscribed state
--   3 nil not subscribed | "an animal"
--   1 nil closed 1 1
--   false ERR unknown command 'BF.ADD', with args beginning with: 'x' '1'
--   bad argument #1 host: string expected, got number
--   bad argument #2 port: number expected, got nil
--   1 nil closed

local cjson = require "cjson"
local redis = require "resty.redis"

cjson.encode_empty_table_as_object(false)
local json = cjson.encode

local red = redis:new()
red:set_timeouts(5000, 5000, 5000)
ngx.say(red:connect("127.0.0.1", PORT_OF_STORE))
local status = red:set("dog", "an animal")
local failed, why = red:incr("dog")
ngx.say(status, " | ", json((red:get("dog"))), " | ", json((red:get("none"))), " | ", tostring(failed), " ", json(why), " | ",
    (red:incr("n")))
ngx.say(json((red:mget("dog", "none", "n"))))
local both = { (red:hmset("h", { a = 1, b = 2 })), (red:hmset("h", "c", 3, "d", 4)) }
local hash = red:array_to_hash((red:hgetall("h")))
ngx.say(both[1], " ", both[2], " ", hash.a, hash.b, hash.c, hash.d)

red:init_pipeline()
red:set("cat", "Marry")
red:get("cat")
red:incr("cat")
red:lrange("nothing", 0, -1)
ngx.say(json((red:commit_pipeline())))
ngx.say((red:multi()), " ", (red:set("a", 1)), " ", (red:lpop("a")), " ", json((red:exec())))
ngx.say(json((red:eval("return { KEYS[1], ARGV[1], { err = 'x' }, 1 }", 1, "k", "v"))))
local sha = red:script("load", "return 1")
ngx.say((red:evalsha(sha, 0)), " ", (red:rpush("l", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)), " ",
    json { (red:lindex("l", 0)), (red:lindex("l", -1)) })
local big = ("x"):rep(300000)
red:set("big", big)
ngx.say(red:strlen("big"), " ", (red:get("big")) == big)
ngx.say("nil ", select(2, red:commit_pipeline()), " | nil ", select(2, red:read_reply()), " | ",
    (select(2, pcall(redis.set_timeout, {}, 1)):match("not initialized")))

local sub = redis:new()
sub:connect("127.0.0.1", PORT_OF_STORE, { pool = "sub", pool_size = 2, backlog = 1 })
ngx.say(json((sub:subscribe("dog", "cat"))))
ngx.say((red:publish("dog", "first")), " ", (red:publish("cat", "second")), " ", json((sub:read_reply())))
ngx.say(json((sub:subscribe("bird"))))
ngx.say(json((sub:read_reply())), " nil ", select(2, sub:set_keepalive()))
local ended = #sub:unsubscribe()
ngx.say(ended, " nil ", select(2, sub:unsubscribe()), " | ", json((sub:get("dog"))))
local kept = sub:set_keepalive(60000, 2)
local after = select(2, sub:get("dog"))
ngx.say(kept, " nil ", after, " ", (sub:connect("127.0.0.1", PORT_OF_STORE, { pool = "sub" })), " ", sub:get_reused_times())

redis.register_module_prefix("bf")
local answer, err = red:bf():add("x", 1)
ngx.say(tostring(answer), " ", (err:gsub("%s+$", "")))
ngx.say((select(2, pcall(red.connect, red, 1, 2)):match("bad.*")))
ngx.say((select(2, pcall(red.connect, red, "localhost")):match("bad.*")))
local closed = red:close()
ngx.say(closed, " nil ", select(2, red:get("dog")))
