-- terrace.cache. Needs `tiered_cache plain { }`,
-- `tiered_cache brief { ttl 10ms; jitter 0%; stale_while_revalidate 1h; }`, and
-- `tiered_cache failing { ttl 10ms; jitter 0%; stale_if_error 1h; error_retry 0; }`. Sleeps let items expire; being
-- late changes nothing.
--
-- Expected output:
--   unknown: nil unknown tiered cache "nowhere"
--   miss: loaded a/b nil 3
--   hit: loaded a/b nil 1
--   loads: 1
--   string: raw 1 | number: 1.5 1 | boolean: false 1 | table: x 2 1 | tagged: true
--   absence: nil nil 3, nil nil 1
--   failed: nil down
--   threw: nil true
--   unusable: nil cannot cache a value of type function
--   one load: 3 3 3 1
--   handed over: second 3
--   peek: nil nil -1 | raw nil 1 true
--   set: mine 1 | nil nil 1
--   delete: true false nil
--   purge: true nil -1
--   stale: old nil 4
--   renewed: new
--   if error: old nil 4
--   after that: nil nil 3
--   no source: nil the cache has no source
--   bad key: true true
--   version: true false old newest
--   bad version: nil the version is neither a number nor a time
--   loaded version: false two
--   bad loaded version: nil the loader returned a version that is neither a number nor a time
--   tags: true nil kept
--   prefix: 2 nil other
--   bulk: A 3, B 3, nil boom, nil nil 3, A 1
--   bulk without a source: nil the cache has no source

local cache_class = require "terrace.cache"

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

say("unknown", cache_class.new("nowhere"))
local cache = assert(cache_class.new("plain"))
cache:purge()

local loads = 0
local function loader(a, b)
    loads = loads + 1
    return "loaded " .. a .. "/" .. b
end
say("miss", cache:get("k", nil, loader, "a", "b"))
say("hit", cache:get("k", nil, loader, "a", "b"))
say("loads", loads)

local function both(key, value)
    cache:get(key, nil, function()
        return value
    end)
    local found, _, level = cache:get(key, nil, error)
    return found, level
end
local list, list_level = both("list", { name = "x", n = 2 })
local odd = "\0Tn7"
ngx.say("string: ", text(both("raw", "raw")), " | number: ", text(both("number", 1.5)), " | boolean: ",
    text(both("boolean", false)), " | table: ", list.name, " ", list.n, " ", list_level, " | tagged: ",
    tostring(both("odd", odd) == odd))
local function nothing() end
ngx.say("absence: ", text(cache:get("absent", nil, nothing)), ", ", text(cache:get("absent", nil, error)))
say("failed", cache:get("down", nil, function()
    return nil, "down"
end))
local value, err = cache:get("throws", nil, error, "boom")
say("threw", value, err:find("boom", 1, true) ~= nil)
value, err = cache:get("function", nil, function()
    return print
end)
say("unusable", value, err)

local running, most = 0, 0
local function slow()
    running = running + 1
    most = math.max(most, running)
    ngx.sleep(0.02)
    running = running - 1
    return "slow"
end
local threads, levels = {}, {}
for i = 1, 3 do
    threads[i] = ngx.thread.spawn(function()
        local _, _, level = cache:get("slow", nil, slow)
        levels[i] = level
    end)
end
for i = 1, 3 do
    ngx.thread.wait(threads[i])
end
say("one load", levels[1], levels[2], levels[3], most)

-- An invalidation during a load lets the next waiter load anew.
local first = ngx.thread.spawn(function()
    cache:get("handed", nil, function()
        ngx.sleep(0.02)
        return "first"
    end)
end)
cache:delete("handed")
local handed, _, handed_level = cache:get("handed", nil, function()
    return "second"
end)
ngx.thread.wait(first)
say("handed over", handed, handed_level)

local raw, raw_err, raw_level, raw_ttl = cache:peek("raw")
ngx.say("peek: ", text(cache:peek("missing")), " | ", text(raw, raw_err, raw_level, raw_ttl > 0))
cache:set("mine", { ttl = 100 }, "mine")
cache:set("none", nil, nil)
local mine, _, mine_level = cache:get("mine", nil, error)
ngx.say("set: ", mine, " ", mine_level, " | ", text(cache:get("none", nil, error)))
say("delete", cache:delete("mine"), cache:delete("mine"), (cache:peek("mine")))
local purged = cache:purge()
say("purge", purged, (cache:peek("raw")), (select(3, cache:peek("raw"))))

local brief = cache_class.get_cache("brief")
brief:purge()
brief:set("k", nil, "old")
ngx.sleep(0.02)
local renewing = require("ngx.semaphore").new()
say("stale", brief:get("k", nil, function()
    renewing:post()
    return "new"
end))
renewing:wait(10)
-- The loader has returned; what it gave is stored before another load of the key can begin.
local renewed
repeat
    ngx.sleep(0.001)
    renewed = brief:get("k", nil, function()
        return "new"
    end)
until renewed == "new"
say("renewed", renewed)

local failing = cache_class.get_cache("failing")
failing:purge()
failing:set("k", nil, "old")
ngx.sleep(0.02)
say("if error", failing:get("k", nil, function()
    return nil, "down"
end))
say("after that", brief:get("fresh", { ttl = 0 }, nothing))
say("no source", brief:get("other"))
say("bad key", not pcall(brief.get, brief, ""), not pcall(brief.get, brief, {}))

cache:purge()
local stored = cache:set("v", { version = 7 }, "newest")
local refused = cache:set("v", { version = 6 }, "old")
say("version", stored, refused, "old", (cache:peek("v")))
say("bad version", cache:set("v", { version = "soon" }, "x"))
local loaded = cache:get("loaded", nil, function()
    return "two", nil, nil, { version = "2024-05-01 12:00:00", tags = { "red", "blue" } }
end)
say("loaded version", cache:set("loaded", { version = "2024-05-01 11:59:59" }, "one"), loaded)
say("bad loaded version", cache:get("bad", nil, function()
    return "x", nil, nil, { version = {} }
end))
cache:set("untagged", nil, "kept")
local purged_tag = cache:purge({ tag = "blue" })
say("tags", purged_tag, (cache:peek("loaded")), (cache:peek("untagged")))
cache:set("a:1", nil, "x")
cache:set("a:2", nil, "x")
cache:set("b:1", nil, "other")
local _, _, dropped = cache:purge({ prefix = "a:" })
say("prefix", dropped, (cache:peek("a:1")), (cache:peek("b:1")))
local found = cache:get_bulk({ "a", "b", "c", "d" }, { concurrency = 2 }, function(key, suffix)
    if key == "c" then
        return nil, suffix
    elseif key == "d" then
        return nil
    end
    return key:upper()
end, "boom")
local again = cache:get_bulk({ "a" }, nil, error)
ngx.say("bulk: ", text(found[1].value, found[1].level), ", ", text(found[2].value, found[2].level), ", ",
    text(found[3].value, found[3].err), ", ", text(found[4].value, found[4].err, found[4].level), ", ",
    text(again[1].value, again[1].level))
local without = cache:get_bulk({ "nowhere" })
say("bulk without a source", without[1].value, without[1].err)
