-- resty.lock. Needs `lua_shared_dict locks 100k`.
--
-- Expected output:
--   first 0 nil
--   again nil locked
--   other nil timeout
--   no wait nil timeout
--   expire true nil
--   unlock 1 nil
--   unlock nil unlocked
--   expire nil unlocked
--   waited true
--   late unlock 1 nil
--   next holder keeps it: nil timeout
--   collected 0 nil
--   no dictionary nil dictionary not found

local lock_class = require "resty.lock"

local function say(name, ...)
    ngx.say(name, " ", tostring((...)), " ", tostring((select(2, ...))))
end

ngx.shared.locks:flush_all()
local first = lock_class:new("locks")
local other = lock_class:new("locks", { timeout = 0.05, exptime = 1 })
say("first", first:lock("k"))
say("again", first:lock("k"))
say("other", other:lock("k"))
say("no wait", lock_class:new("locks", { timeout = 0 }):lock("k"))
say("expire", first:expire(0.5))
say("unlock", first:unlock())
say("unlock", first:unlock())
say("expire", first:expire())

first:lock("k")
local thread = ngx.thread.spawn(function()
    ngx.sleep(0.02)
    first:unlock()
end)
local elapsed = lock_class:new("locks"):lock("k")
ngx.thread.wait(thread)
ngx.say("waited ", elapsed > 0)

local short = lock_class:new("locks", { exptime = 0.01 })
short:lock("late")
ngx.sleep(0.03)
local holder = lock_class:new("locks")
holder:lock("late")
say("late unlock", short:unlock())
say("next holder keeps it:", other:lock("late"))

do
    local lost = lock_class:new("locks")
    lost:lock("lost")
    lost = nil
end
collectgarbage()
collectgarbage()
say("collected", other:lock("lost"))
say("no dictionary", lock_class:new("missing"))
