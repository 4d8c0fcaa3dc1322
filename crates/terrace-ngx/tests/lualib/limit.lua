-- resty.limit.req, conn, count and traffic. Needs `lua_shared_dict limits 100k`.
--
-- Expected output:
--   req: 0 0 | true | nil rejected | nil shared dict not found
--   conn: 0 1 | 0 2 | 0.5 3 | nil rejected | 2 | 0.25 3
--   conn without commit: 0.25 3 false
--   count: 0 1 | 0 0 | nil rejected | 0 1 | 0 1
--   combined: 0 | nil rejected | 1 1
--   uncommitted: 2

local req_class = require "resty.limit.req"
local conn_class = require "resty.limit.conn"
local count_class = require "resty.limit.count"
local traffic = require "resty.limit.traffic"

local function shown(a, b)
    return tostring(a) .. (b ~= nil and " " .. tostring(b) or "")
end

ngx.shared.limits:flush_all()

-- One request in a thousand seconds: what follows the first is a whole request too many, less what milliseconds give.
local req = req_class.new("limits", 0.001, 1)
local first = shown(req:incoming("req", true))
local delay = req:incoming("req", true)
ngx.say("req: ", first, " | ", delay > 990 and delay <= 1000, " | ", shown(req:incoming("req", true)), " | ",
    shown(req_class.new("missing", 1, 1)))

local conn = conn_class.new("limits", 2, 1, 0.5)
local one, two, three = shown(conn:incoming("c", true)), shown(conn:incoming("c", true)), shown(conn:incoming("c", true))
local four = shown(conn:incoming("c", true))
local left = shown(conn:leaving("c", 0))
ngx.say("conn: ", one, " | ", two, " | ", three, " | ", four, " | ", left, " | ", shown(conn:incoming("c", true)))
conn:leaving("c")
ngx.say("conn without commit: ", shown(conn:incoming("c", false)), " ", conn:is_committed())

local count = count_class.new("limits", 2, 60)
one, two, three = shown(count:incoming("n", true)), shown(count:incoming("n", true)), shown(count:incoming("n", true))
local other = shown(count:incoming("m", false))
ngx.say("count: ", one, " | ", two, " | ", three, " | ", other, " | ", shown(count:incoming("m", true)))

local wide, narrow = count_class.new("limits", 5, 60), count_class.new("limits", 1, 60)
local states = {}
one = shown(traffic.combine({ narrow, wide }, { "t1", "t2" }, states))
two = shown(traffic.combine({ wide, narrow }, { "t2", "t1" }))
ngx.say("combined: ", one, " | ", two, " | ", select(2, wide:incoming("t2", false)) - 2, " ", 5 - states[2])
wide:uncommit("t2")
wide:uncommit("t2")
wide:uncommit("t2")
ngx.say("uncommitted: ", select(2, wide:incoming("t2", false)) - 4)
