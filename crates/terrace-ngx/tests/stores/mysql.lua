-- resty.mysql against a server at port PORT_OF_STORE with user, password and database `shop`.
--
-- Expected output:
--   1 true
--   0 3 1 Records: 3  Duplicates: 0  Warnings: 0
--   [{"id":"1","name":"Bob","x":1,"y":"12345678901234567","z":1.5},{"id":"2","name":"","x":null,"y":null,"z":null}]
--   [["1","Bob"],["2",""],["3",null]]
--   1 again | 2 again | 1 again | 3 nil
--   failed to send query: cannot send query in the current context: 2
--   cannot read result in the current context: 1
--   Table 'shop.nothing' doesn't exist 1146 42S02
--   true 42000
--   17000000
--   1 failed to send query: cannot send query in the current context: nil | 1 1
--   Access denied 1045 28000
--   failed to connect: connection refused
--   charset 'klingon' is not supported
--   neither "host" nor "path" options are specified
--   packet size too big: 1003

local cjson = require "cjson"
local mysql = require "resty.mysql"

local function options(more)
    local all = { host = "127.0.0.1", port = PORT_OF_STORE, database = "shop", user = "shop", password = "shop" }
    for name, value in pairs(more or {}) do
        all[name] = value or nil
    end
    return all
end

local db = mysql:new()
db:set_timeout(10000)
ngx.say(db:connect(options { charset = "utf8mb4", max_packet_size = 20 * 1024 * 1024 }), " ", db:server_ver() ~= nil)
local made = db:query("create temporary table cats (id serial primary key, name varchar(5), x int, y bigint, z decimal(10,2))")
local put = db:query("insert into cats (name, x, y, z) values ('Bob', 1, 12345678901234567, 1.50), ('', null, null, null), "
    .. "(null, 3, 3, 3)")
ngx.say(made.affected_rows, " ", put.affected_rows, " ", put.insert_id, " ", put.message)
local rows = db:query("select * from cats where id < 3 order by id", 10)
local shown = {}
for i, row in ipairs(rows) do
    shown[i] = ('{"id":%s,"name":%s,"x":%s,"y":%s,"z":%s}'):format(cjson.encode(row.id), cjson.encode(row.name),
        cjson.encode(row.x), cjson.encode(row.y), cjson.encode(row.z))
end
ngx.say("[", table.concat(shown, ","), "]")
db:set_compact_arrays(true)
ngx.say(cjson.encode((db:query("select id, name from cats order by id"))))
db:set_compact_arrays(false)

local results = {}
local result, err = db:query("select 1 as n; select 2 as n; update cats set x = 5 where id = 1; select 3 as n")
local too_early = select(2, db:query("select 1"))
repeat
    results[#results + 1] = (result.affected_rows or result[1].n) .. " " .. tostring(err)
    if err ~= "again" then
        break
    end
    result, err = db:read_result()
until not result
ngx.say(table.concat(results, " | "))
ngx.say(too_early)
ngx.say((select(2, db:read_result())))
local _, text, code, state = db:query("select * from nothing")
ngx.say(text, " ", code, " ", state)
_, text, code, state = db:query("select 1 +")
ngx.say(code == 1064, " ", state)
-- A row of more than one packet holds.
local row = db:query("select repeat('x', 9000000) as c, repeat('y', 8000000) as d")[1]
ngx.say(#row.c + #row.d)
local kept = db:set_keepalive(60000, 2)
local closed = select(2, db:query("select 1"))
ngx.say(kept, " ", closed, " | ", (db:connect(options())), " ", db:get_reused_times())
db:close()

_, text, code, state = mysql:new():connect(options { password = "wrong" })
ngx.say(text:match("^Access denied"), " ", code, " ", state)
ngx.say((select(2, mysql:new():connect(options { port = 1 }))))
ngx.say((select(2, mysql:new():connect(options { charset = "klingon" }))))
ngx.say((select(2, mysql:new():connect { user = "shop" })))
local small = mysql:new()
small:connect(options { max_packet_size = 100, pool = "small" })
ngx.say((select(2, small:query("select repeat('x', 1000)"))))
