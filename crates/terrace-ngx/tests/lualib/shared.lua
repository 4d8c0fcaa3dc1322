-- ngx.shared. Needs `lua_shared_dict dogs 1m` and `lua_shared_dict small 12k`.
--
-- Expected output:
--   plain table: true true nil
--   set: true nil false
--   string: Fido | number: 2.5 | boolean: true false
--   flags: x 4294967295
--   no flags: 1 value
--   number key: seven
--   missing: nil
--   bad keys: nil key | empty key | key too long | nil key
--   bad value: nil bad value type
--   bad exptime: bad "exptime" argument | bad "exptime" argument | bad "exptime" argument
--   bad zone: bad "zone" argument
--   add: false exists false, true nil
--   replace: false not found, true nil
--   add nil: false attempt to add or replace nil values
--   delete: true nil, again true nil
--   incr: nil not found; nil not a number; 3; 8 nil false
--   incr errors: bad value arg: number expected, got nil | bad init arg: number expected, got string | bad "init_ttl" argument | must provide "init" when providing "init_ttl"
--   incr ttl: true
--   expiry: old 7 true | nil | nil
--   ttl: 0 | nil not found | true
--   expire: true nil | nil not found | revived
--   list: 1 2 3 | 3 | a b 7 | nil nil | 0
--   list errors: value not a list | value is a list | bad value type | nil key
--   keys: a,b,c 2 3
--   flushed: 0 keys, true, 0 removed
--   capacity: 1048576 true
--   no memory: false no memory | true nil
--   forcible: true
--   safe: false no memory false

local dogs, small = ngx.shared.dogs, ngx.shared.small

local function say(name, ...)
    local parts = { ... }
    for i = 1, select("#", ...) do
        parts[i] = tostring(parts[i])
    end
    ngx.say(name, ": ", table.concat(parts, " "))
end

local function problem(f, ...)
    local _, err = pcall(f, ...)
    return (tostring(err):gsub("^[^ ]+:%d+: ", ""))
end

local function second(_, err)
    return err
end

dogs:flush_all()
dogs:flush_expired()
say("plain table", type(rawget(ngx.shared, "dogs")) == "table", type(next(ngx.shared)) == "string", ngx.shared.missing)
say("set", dogs:set("name", "Fido"))
dogs:set("n", 2.5)
dogs:set("yes", true)
dogs:set("no", false)
ngx.say("string: ", dogs:get("name"), " | number: ", dogs:get("n"), " | boolean: ", tostring(dogs:get("yes")), " ",
    tostring(dogs:get("no")))
dogs:set("flagged", "x", 0, 4294967295)
say("flags", dogs:get("flagged"))
say("no flags", select("#", dogs:get("name")), "value")
dogs:set(7, "seven")
say("number key", dogs:get("7"))
say("missing", dogs:get("missing"))
ngx.say("bad keys: ", table.concat({ second(dogs:get(nil)), second(dogs:set("", 1)),
    second(dogs:get(("k"):rep(65536))), second(dogs:ttl(nil)) }, " | "))
say("bad value", dogs:set("k", {}))
ngx.say("bad exptime: ", problem(dogs.set, dogs, "k", 1, -1), " | ", problem(dogs.expire, dogs, "k"), " | ",
    problem(dogs.add, dogs, "k", 1, "soon"))
say("bad zone", problem(dogs.get, "name"))

local ok, err, forcible = dogs:add("name", "Rex")
local ok2, err2 = dogs:add("new", "Rex")
ngx.say("add: ", tostring(ok), " ", err, " ", tostring(forcible), ", ", tostring(ok2), " ", tostring(err2))
ok, err = dogs:replace("absent", 1)
ok2, err2 = dogs:replace("new", 2)
ngx.say("replace: ", tostring(ok), " ", err, ", ", tostring(ok2), " ", tostring(err2))
ok, err = dogs:add("nothing", nil)
say("add nil", ok, err)
ok, err = dogs:delete("new")
ok2, err2 = dogs:delete("new")
ngx.say("delete: ", tostring(ok), " ", tostring(err), ", again ", tostring(ok2), " ", tostring(err2))

dogs:set("count", 2)
local a, a_err = dogs:incr("absent", 1)
local b, b_err = dogs:incr("name", 1)
local c, c_err, c_forcible = dogs:incr("fresh", 3, 5)
ngx.say("incr: ", tostring(a), " ", a_err, "; ", tostring(b), " ", b_err, "; ", dogs:incr("count", 1), "; ", c, " ",
    tostring(c_err), " ", tostring(c_forcible))
ngx.say("incr errors: ", problem(dogs.incr, dogs, "count", nil), " | ", problem(dogs.incr, dogs, "count", 1, "x"),
    " | ", problem(dogs.incr, dogs, "count", 1, 0, -1), " | ", problem(dogs.incr, dogs, "count", 1, nil, 1))
dogs:incr("short", 1, 0, 10)
local left = dogs:ttl("short")
say("incr ttl", left > 9 and left <= 10)

dogs:set("old", "old", 0.01, 7)
ngx.sleep(0.02)
local stale, flags, is_stale = dogs:get_stale("old")
ngx.say("expiry: ", stale, " ", flags, " ", tostring(is_stale), " | ", tostring(dogs:get("old")), " | ",
    tostring((dogs:get_stale("never"))))
dogs:set("timed", 1, 100)
local none, why = dogs:ttl("never")
local timed = dogs:ttl("timed")
ngx.say("ttl: ", dogs:ttl("name"), " | ", tostring(none), " ", why, " | ", tostring(timed > 99 and timed <= 100))
ok, err = dogs:expire("name", 0.01)
ok2, err2 = dogs:expire("never", 1)
ngx.sleep(0.02)
dogs:set("back", "revived", 0.01)
ngx.sleep(0.02)
local gone = dogs:get_stale("back")
dogs:expire("back", 100)
ngx.say("expire: ", tostring(ok), " ", tostring(err), " | ", tostring(ok2), " ", err2, " | ", dogs:get("back") or gone)

local lengths = { dogs:rpush("list", "b"), dogs:lpush("list", "a"), dogs:rpush("list", 7) }
ngx.say("list: ", table.concat(lengths, " "), " | ", dogs:llen("list"), " | ", dogs:lpop("list"), " ",
    dogs:lpop("list"), " ", dogs:rpop("list"), " | ", tostring(dogs:lpop("list")), " ", tostring((dogs:rpop("list"))),
    " | ", dogs:llen("list"))
dogs:rpush("list", "x")
ngx.say("list errors: ", second(dogs:lpush("count", 1)), " | ", second(dogs:get("list")), " | ",
    second(dogs:lpush("list", true)), " | ", second(dogs:llen(nil)))

dogs:flush_all()
dogs:flush_expired()
dogs:set("a", 1)
dogs:set("b", 2)
dogs:set("c", 3)
local keys = dogs:get_keys()
table.sort(keys)
ngx.say("keys: ", table.concat(keys, ","), " ", #dogs:get_keys(2), " ", #dogs:get_keys(0))
dogs:flush_all()
ngx.say("flushed: ", #dogs:get_keys(), " keys, ", dogs:flush_expired() <= 3, ", ", dogs:flush_expired(), " removed")
say("capacity", dogs:capacity(), dogs:free_space() == dogs:capacity())

local full, full_err = small:set("big", ("x"):rep(20000))
local fits, fits_err = small:set("fits", ("x"):rep(2000))
ngx.say("no memory: ", tostring(full), " ", full_err, " | ", tostring(fits), " ", tostring(fits_err))
local forced = false
for i = 1, 100 do
    local _, _, f = small:set("key" .. i, ("x"):rep(500))
    forced = forced or f
end
say("forcible", forced)
say("safe", small:safe_set("more", ("x"):rep(2000)))
