-- table.nkeys, isempty, isarray, clone, tablepool, resty.core and resty.signal.
--
-- Expected output:
--   nkeys 3 0
--   isempty true false
--   isarray true true false false
--   clone 1 2 nil true
--   bad argument #1 to 'nkeys' (table expected, got number)
--   tablepool true 0 a
--   core true 0 true
--   signal 9 unknown signal name: NOPE true nil

local nkeys, isempty = require "table.nkeys", require "table.isempty"
local isarray, clone = require "table.isarray", require "table.clone"
ngx.say("nkeys ", nkeys({ 1, 2, a = 3 }), " ", nkeys({}))
ngx.say("isempty ", isempty({}), " ", table.isempty({ false }))
ngx.say("isarray ", isarray({}), " ", isarray({ 1, 2 }), " ", isarray({ a = 1 }), " ", isarray({ [1.5] = 1 }))
local original = setmetatable({ 1, b = 2 }, { __index = { c = 3 } })
local copy = clone(original)
ngx.say("clone ", copy[1], " ", copy.b, " ", tostring(copy.c), " ", copy ~= original)
ngx.say((select(2, pcall(nkeys, 1))))

local pool = require "tablepool"
local first = pool.fetch("pages", 0, 4)
first.a = "a"
pool.release("pages", first)
local second = pool.fetch("pages", 0, 4)
local left = nkeys(second)
second.a = "a"
pool.release("pages", second, true)
ngx.say("tablepool ", first == second, " ", left, " ", pool.fetch("pages", 0, 4).a)

local core, base = require "resty.core", require "resty.core.base"
require "resty.core.shdict"
ngx.say("core ", core.version == base.version, " ", base.FFI_OK, " ",
    base.get_string_buf(10) == base.get_string_buf(20))

local signal = require "resty.signal"
ngx.say("signal ", signal.signum("KILL"), " ", select(2, signal.signum("NOPE")), " ",
    tostring(signal.kill(ngx.worker.pid(), "NONE")), " ", tostring((signal.kill(2147483646, 0))))
