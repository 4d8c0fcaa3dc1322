-- resty.memcached against a server at port PORT_OF_STORE.
--
-- Expected output:
--   1 1 1
--   32 0 nil | nil nil nil | a kind of animal 5
--   32 0 | a kind of animal 5 | nil
--   true 1 nil EXISTS
--   1 nil NOT_STORED nil NOT_STORED 1 1 x-new-er
--   15 12 nil NOT_FOUND | nil CLIENT_ERROR cannot increment or decrement non-numeric value
--   1 nil NOT_FOUND 1 nil NOT_FOUND
--   true nil ERROR true 1
--   [[1],["1","0"],{},["3"]]
--   1 nil closed 1 1
--   1
--   expecting key_transform = { escape, unescape } table

local cjson = require "cjson"
local memcached = require "resty.memcached"

local memc = memcached:new()
ngx.say(memc:set_timeout(5000), " ", memc:connect("127.0.0.1", PORT_OF_STORE), " ", (memc:flush_all()))
memc:set("dog", 32)
memc:set("a b", { "a ", { "kind of" }, " animal" }, 0, 5)
local function all(...)
    local text = {}
    for i = 1, 3 do
        text[i] = tostring((select(i, ...)))
    end
    return table.concat(text, " ")
end
local value, flags = memc:get("a b")
ngx.say(all(memc:get("dog")), " | ", all(memc:get("none")), " | ", value, " ", flags)
local many = memc:get { "dog", "a b", "none" }
ngx.say(table.concat(many.dog, " "), " | ", table.concat(many["a b"], " "), " | ", tostring(many.none))
local _, _, unique = memc:gets("dog")
local swapped = memc:cas("dog", "new", unique, 0, 3)
ngx.say(unique ~= nil, " ", swapped, " nil ", select(2, memc:cas("dog", "again", unique)))
local added, why = memc:add("new", 1)
local no_add, no_replace = select(2, memc:add("new", 1)), select(2, memc:replace("nothing", 1))
ngx.say(added, " ", tostring(why), " ", no_add, " nil ", no_replace, " ", (memc:append("dog", "-er")), " ",
    (memc:prepend("dog", "x-")), " ", (memc:get("dog")))
memc:set("n", 10)
ngx.say((memc:incr("n", 5)), " ", (memc:decr("n", 3)), " nil ", select(2, memc:incr("none", 1)), " | nil ",
    select(2, memc:incr("dog", 1)))
ngx.say((memc:delete("n")), " nil ", select(2, memc:delete("n")), " ", (memc:touch("dog", 10)), " nil ",
    select(2, memc:touch("none", 1)))
ngx.say(#memc:stats() > 10, " nil ", select(2, memc:stats("bogus")), " ", memc:version():match("^%d+%.") ~= nil, " ",
    (memc:verbosity(1)))
memc:init_pipeline()
memc:set("p", "1")
memc:get("p")
memc:get("none")
memc:incr("p", 2)
ngx.say(cjson.encode((memc:commit_pipeline())))
local kept = memc:set_keepalive(60000, 2)
local closed = select(3, memc:get("dog"))
ngx.say(kept, " nil ", closed, " ", memc:connect("127.0.0.1", PORT_OF_STORE), " ", memc:get_reused_times())
ngx.say((memc:quit()))
ngx.say((select(2, memcached:new { key_transform = { 1 } })))
