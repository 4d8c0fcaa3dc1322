-- ngx.location.capture, ngx.location.capture_multi. Needs `$saved` as a variable that another location sets, and
-- a location that runs this script for subrequests too: the argument `part` says which answer is asked for.
--
-- Expected output:
--   plain 200 hello text/plain 1 false
--   method POST data 4
--   forwarded none
--   args a=1&b=2%203 x
--   headers yes
--   teapot 418
--   missing 404
--   vars given ''
--   no vars ''
--   copied kept changed kept
--   shared kept changed changed
--   ctx from parent and child
--   own ctx nil
--   own method GET
--   multi 200 one 200 two 200 three
--   other threads 1,2
--   deep 5
--   internal true true
--   unsafe unsafe uri in argument #1: /../x
--   bad method Bad http request method
--   bad vars attempt to use bad variable value type boolean
--   unknown var failed to adjust the subrequest: -1
--   bad body Bad http request body
--   bad ctx Bad ctx option value type number, expected a Lua table
--   bad args attempt to use function as query arg value
--   none at least one subrequest should be specified
--   too deep failed to issue subrequest: -1

local capture = ngx.location.capture
local here = ngx.var.uri
local args = ngx.req.get_uri_args()

local function failure(f, ...)
    local ok, err = pcall(f, ...)
    return ok and "no error" or (err:gsub("^.-:%d+: ", ""))
end

local parts = {}

function parts.plain()
    ngx.header.content_type = "text/plain"
    ngx.header["X-One"] = 1
    ngx.print("hello")
end

function parts.method()
    ngx.req.read_body()
    ngx.print(ngx.req.get_method(), " ", ngx.req.get_body_data() or "none", " ", ngx.var.http_content_length)
end

function parts.args()
    ngx.print((ngx.var.args:gsub("^.-&", "")), " ", ngx.req.get_headers().x_sub)
end

function parts.status()
    ngx.exit(tonumber(args.code))
end

function parts.var()
    ngx.print(ngx.var.saved)
    ngx.var.saved = "changed"
end

function parts.ctx()
    local seen = ngx.ctx.from
    ngx.ctx.back = "child"
    ngx.print(seen)
end

function parts.late()
    ngx.sleep(0.005)
    ngx.print(args.name)
end

-- Answers when as many others of its kind have come: none of them would if they ran one after the other.
local meeting = package.loaded["location.meeting"]
function parts.meet()
    meeting.come = meeting.come + 1
    if meeting.come == 3 then
        meeting.all:post(3)
    end
    ngx.print(args.name, meeting.all:wait(60) and "" or " alone")
end

function parts.deep()
    local n = tonumber(args.n)
    if n == 0 then
        return ngx.print(0)
    end
    ngx.print(1 + capture(here, { args = { part = "deep", n = n - 1, script = args.script } }).body)
end

function parts.forever()
    local ok, answer = pcall(capture, here, { args = { part = "forever", script = args.script } })
    ngx.print(ok and answer.body or (answer:gsub("^.-:%d+: ", "")))
end

function parts.internal()
    ngx.print(tostring(ngx.req.is_internal()), " ", tostring(ngx.is_subrequest))
end

if args.part then
    return parts[args.part]()
end

local function ask(part, options, more)
    options = options or {}
    local query = { part = part, script = args.script }
    for key, value in pairs(more or {}) do
        query[key] = value
    end
    return capture(here .. "?" .. ngx.encode_args(query), options)
end

local res = ask("plain")
ngx.say("plain ", res.status, " ", res.body, " ", res.header["Content-Type"], " ", res.header["X-One"], " ",
    res.truncated)
ngx.say("method ", ask("method", { method = ngx.HTTP_POST, body = "data" }).body)
ngx.say("forwarded ", ask("method").body:match("GET (%S+)"))
res = capture(here .. "?part=args", { args = "a=1&b=2%203", headers = { ["X-Sub"] = "x" } })
ngx.say("args ", res.body)
ngx.say("headers ", ngx.req.get_headers().x_sub == nil and "yes" or "no")
ngx.say("teapot ", ask("status", nil, { code = 418 }).status)
ngx.say("missing ", ask("status", nil, { code = 404 }).status)

ngx.var.saved = "kept"
ngx.say("vars ", ask("var", { vars = { saved = "given" } }).body, " ''")
ngx.say("no vars '", ask("var").body, "'")
res = ask("var", { copy_all_vars = true })
ngx.say("copied ", res.body, " changed ", ngx.var.saved)
res = ask("var", { share_all_vars = true })
ngx.say("shared ", res.body, " changed ", ngx.var.saved)

local ctx = { from = "parent" }
res = ask("ctx", { ctx = ctx })
ngx.say("ctx from ", res.body, " and ", ctx.back)
ngx.say("own ctx ", ask("ctx").body)
ngx.say("own method ", ngx.req.get_method())

package.loaded["location.meeting"] = { come = 0, all = require("ngx.semaphore").new() }
local one, two, three = ngx.location.capture_multi({
    { here, { args = { part = "meet", name = "one", script = args.script } } },
    { here, { args = { part = "meet", name = "two", script = args.script } } },
    { here, { args = { part = "meet", name = "three", script = args.script } } },
})
ngx.say("multi ", one.status, " ", one.body, " ", two.status, " ", two.body, " ", three.status, " ", three.body)

local order = {}
local sched = require "terrace.sched"
local thread = sched.spawn(function()
    ask("late", nil, { name = "x" })
    order[#order + 1] = 2
end)
order[#order + 1] = 1
sched.wait(thread)
ngx.say("other threads ", table.concat(order, ","))
ngx.say("deep ", ask("deep", nil, { n = 5 }).body)
ngx.say("internal ", ask("internal").body)

ngx.say("unsafe ", failure(capture, "/../x"))
ngx.say("bad method ", failure(capture, here, { method = "GET" }))
ngx.say("bad vars ", failure(capture, here, { vars = { saved = true } }))
ngx.say("unknown var ", failure(capture, here, { vars = { no_such_variable = "x" } }))
ngx.say("bad body ", failure(capture, here, { body = {} }))
ngx.say("bad ctx ", failure(capture, here, { ctx = 1 }))
ngx.say("bad args ", failure(capture, here, { args = { x = print } }))
ngx.say("none ", failure(ngx.location.capture_multi, {}))
ngx.say("too deep ", ask("forever").body)
