-- resty.mlcache. Needs `lua_shared_dict values 1m; lua_shared_dict misses 100k;`, `tiered_cache configured { memory 1m; }`
-- and `made`, an instance from init_by_lua. Sleeps let items expire; being late changes nothing.
--
-- Expected output:
--   no dict: nil no such lua_shared_dict: nowhere
--   no miss dict: nil no such lua_shared_dict for opts.shm_miss: nowhere
--   bad args: name must be a string | shm must be a string | opts must be a table | opts.lru_size must be a number
--   bad opts: opts.ttl must be >= 0 | opts.neg_ttl must be a number | opts.l1_serializer must be a function
--   callback: v1 a nil nil 3
--   vm: v1 a nil 1
--   other vm: v1 a nil 2 | v1 a nil 1
--   table: 2 2 true
--   false: false nil 3, false nil 1
--   absence: nil nil 3, nil nil 1
--   no callback: nil nil -1 | v1 a nil 1
--   error: nil down
--   value and error: half down
--   threw: nil true
--   bad type: cannot cache value of type function
--   bad key: key must be a string | callback must be nil or a function
--   not kept: x nil 3, y nil 3
--   own ttl: x nil 3, y nil 3
--   forever: x nil 3, x nil 1, 0
--   peek: nil | true nil v1 a
--   peek stale: nil | true nil old
--   serializer: [v] nil 3, [v] nil 1 | [v] nil 2
--   serializer fails: nil l1_serializer threw an error: true | nil nope | nil l1_serializer returned a nil value
--   set: true | set nil 1 | changed
--   delete: true nil nil -1
--   namespaces: one two
--   purge: true nil -1 two
--   update: true
--   resurrected: old nil 4, old nil 1 | renewed nil 3
--   not resurrected: nil down
--   one callback: 1 3
--   waiter runs its own: nil down, own
--   bulk: 9, A nil 3, nil fails nil, nil nil 3, v1 a nil 1
--   each: 1 A nil 3; 2 nil fails nil; 3 nil nil 3; 4 v1 a nil 1;
--   bad bulk: bulk must be a table | bulk must have n field | key at index 1 must be a string for operation 1 (got nil)
--   early: early nil 3
--   configured: c nil 3, c nil 1, plain c, nil down

local mlcache = require "resty.mlcache"
local tiered = require "terrace.cache"

local function text(...)
    local parts = { ... }
    for i = 1, select("#", ...) do
        parts[i] = tostring(parts[i])
    end
    return table.concat(parts, " ")
end

local function say(name, ...)
    ngx.say(name, ": ", text(...))
end

-- The message of an error without its place.
local function refused(f, ...)
    local ok, err = pcall(f, ...)
    return ok and "accepted" or (tostring(err):gsub("^[^:]*:%d+: ", ""))
end

local function nothing() end
local function down()
    return nil, "down"
end

say("no dict", mlcache.new("a", "nowhere"))
say("no miss dict", mlcache.new("a", "values", { shm_miss = "nowhere" }))
local new = mlcache.new
ngx.say("bad args: ", refused(new, 1, "values"), " | ", refused(new, "a"), " | ", refused(new, "a", "values", 1), " | ",
    refused(new, "a", "values", { lru_size = "1" }))
ngx.say("bad opts: ", refused(new, "a", "values", { ttl = -1 }), " | ", refused(new, "a", "values", { neg_ttl = "" }), " | ",
    refused(new, "a", "values", { l1_serializer = 1 }))

local cache = assert(new("first", "values", { shm_miss = "misses", ipc_shm = "values" }))
cache:purge()
local function load(a, b)
    return "v1 " .. a, b
end
say("callback", cache:get("k", nil, function(...)
    local value, err = load(...)
    return value, err
end, "a"), nil, nil, 3)
say("vm", cache:get("k", nil, error))
local other = new("first", "values")
ngx.say("other vm: ", text(other:get("k", nil, error)), " | ", text(other:get("k", nil, error)))
local made_table = cache:get("t", nil, function()
    return { n = 2 }
end)
local same = cache:get("t", nil, error)
say("table", made_table.n, other:get("t", nil, error).n, rawequal(same, made_table))
ngx.say("false: ", text(cache:get("f", nil, function()
    return false
end)), ", ", text(cache:get("f", nil, error)))
ngx.say("absence: ", text(cache:get("none", nil, nothing)), ", ", text(cache:get("none", nil, error)))
ngx.say("no callback: ", text(cache:get("missing")), " | ", text(cache:get("k")))
say("error", cache:get("e", nil, down))
say("value and error", cache:get("e", nil, function()
    return "half", "down"
end))
local value, err = cache:get("e", nil, error, "boom")
say("threw", value, err:find("callback threw an error: ", 1, true) == 1 and err:find("boom", 1, true) ~= nil)
say("bad type", refused(cache.get, cache, "e", nil, function()
    return print
end))
ngx.say("bad key: ", refused(cache.get, cache, 1), " | ", refused(cache.get, cache, "k", nil, 1))
local function of(value, ttl)
    return function()
        return value, nil, ttl
    end
end
ngx.say("not kept: ", text(cache:get("nk", nil, of("x", -1))), ", ", text(cache:get("nk", nil, of("y"))))
local brief = text(cache:get("ot", nil, of("x", 0.01)))
ngx.sleep(0.02)
ngx.say("own ttl: ", brief, ", ", text(cache:get("ot", nil, of("y"))))
ngx.say("forever: ", text(cache:get("ever", { ttl = 0 }, of("x"))), ", ", text(cache:get("ever", nil, error)), ", ",
    (cache:peek("ever")))
local ttl, _, peeked = cache:peek("k")
ngx.say("peek: ", text(cache:peek("missing")), " | ", text(ttl > 0 and ttl <= 30, nil, peeked))
cache:set("stale", { ttl = 0.01 }, "old")
ngx.sleep(0.02)
ttl, _, peeked = cache:peek("stale", true)
ngx.say("peek stale: ", text(cache:peek("stale")), " | ", text(ttl < 0, nil, peeked))

local function brackets(v)
    return "[" .. v .. "]"
end
ngx.say("serializer: ", text(cache:get("s", { l1_serializer = brackets }, of("v"))), ", ", text(cache:get("s")), " | ",
    text(other:get("s", { l1_serializer = brackets })))
local _, threw = cache:get("s2", { l1_serializer = error }, of("v"))
local _, said = cache:get("s2", { l1_serializer = function()
    return nil, "nope"
end }, of("v"))
local _, empty = cache:get("s2", { l1_serializer = nothing }, of("v"))
ngx.say("serializer fails: nil ", threw:sub(1, 30), threw:find("v", 31, true) ~= nil, " | nil ", said, " | nil ", empty)

other:get("set", nil, of("before"))
ngx.say("set: ", tostring(cache:set("set", nil, "set")), " | ", text(cache:get("set")), " | ",
    (text(other:set("set", nil, "changed") and cache:get("set"))))
say("delete", cache:delete("set"), other:get("set"))
local second = new("second", "values")
second:set("n", nil, "two")
cache:set("n", nil, "one")
say("namespaces", cache:get("n"), (second:get("n")))
local purged = cache:purge(true)
say("purge", purged, (cache:get("n")), (select(3, cache:get("n"))), (second:get("n")))
say("update", cache:update())

cache:set("r", { ttl = 0.01 }, "old")
cache:set("r2", { ttl = 0.01 }, "old")
ngx.sleep(0.02)
cache:get("r2", { resurrect_ttl = 0.01 }, down)
ngx.sleep(0.02)
ngx.say("resurrected: ", text(cache:get("r", { resurrect_ttl = 60 }, down)), ", ", text(cache:get("r", nil, error)), " | ",
    text(cache:get("r2", nil, of("renewed"))))
cache:set("r", { ttl = 0.01 }, "old")
ngx.sleep(0.02)
say("not resurrected", cache:get("r", nil, down))

local calls, levels = 0, 0
local threads = {}
for i = 1, 3 do
    threads[i] = ngx.thread.spawn(function()
        local got = cache:get("slow", nil, function()
            calls = calls + 1
            ngx.sleep(0.02)
            return "slow"
        end)
        levels = levels + (got == "slow" and 1 or 0)
    end)
end
for i = 1, 3 do
    ngx.thread.wait(threads[i])
end
say("one callback", calls, levels)

local first_result
local first = ngx.thread.spawn(function()
    first_result = text(cache:get("fails", nil, function()
        ngx.sleep(0.02)
        return down()
    end))
end)
local own = cache:get("fails", nil, of("own"))
ngx.thread.wait(first)
ngx.say("waiter runs its own: ", first_result, ", ", own)

cache:set("k", nil, "v1 a")
cache:get("k")
local bulk = mlcache.new_bulk(4)
bulk:add("A", nil, function(key)
    return key
end, "A")
bulk:add("fail", nil, function()
    return nil, "fails"
end)
bulk:add("nil", nil, nothing)
bulk:add("k", nil, error)
local res = assert(cache:get_bulk(bulk, { concurrency = 2 }))
ngx.say("bulk: ", res.n - 3, ", ", text(res[1], res[2], res[3]), ", ", text(res[4], res[5], res[6]), ", ",
    text(res[7], res[8], res[9]), ", ", text(res[10], res[11], res[12]))
ngx.print("each:")
for i, data, problem, level in mlcache.each_bulk_res(res) do
    ngx.print(" ", text(i, data, problem, level), ";")
end
ngx.say()
ngx.say("bad bulk: ", refused(cache.get_bulk, cache, 1), " | ", refused(cache.get_bulk, cache, {}), " | ",
    refused(cache.get_bulk, cache, { n = 1 }))
say("early", made:get("early", nil, of("early")))

local configured = new("configured", "values")
local plain = tiered.new("configured")
ngx.say("configured: ", text(configured:get("c", nil, of("c"))), ", ", text(configured:get("c", nil, error)), ", plain ",
    (plain:peek("c")), ", ", text(configured:get("d", nil, down)))
