-- ngx.req: arguments, header fields, method, URI. Needs a GET of `/req?a=1&a=2&b&c=&d=x+y%21&e=5` with the header
-- fields `X-One: 1`, `X-Two: a`, `X-Two: b`, over HTTP/1.1, and `$saved` as a changeable variable.
--
-- Expected output:
--   args 1,2 true '' x y! 5 nil
--   cut 1 nil truncated
--   into 1,2 nil
--   headers 1 1 1 a,b nil
--   raw nil 1
--   cut headers 1 truncated
--   set a%0D%0Ab 2 x,y nil
--   added 1,3
--   method GET POST unsupported HTTP method: 3
--   bad method bad method number
--   uri /other d=2
--   jump API disabled in the context of content_by_lua*
--   unsafe unsafe byte "0x0a" in uri "/a\x0A" (maybe you want to set the 'binary' argument?)
--   empty attempt to use zero-length uri
--   set args x=1%20y true z=1
--   bad args bad argument #1 to 'set_uri_args' (string, number, or table expected, but got nil)
--   line GET /req?a=1&a=2&b&c=&d=x+y%21&e=5 HTTP/1.1
--   fields true
--   version 1.1
--   start true
--   internal true
--   host changed.example

local function failure(f, ...)
    local _, err = pcall(f, ...)
    return (err:gsub("^.-:%d+: ", ""))
end

local args, cut = ngx.req.get_uri_args()
ngx.say("args ", table.concat(args.a, ","), " ", args.b, " '", args.c, "' ", args.d, " ", args.e, " ", cut)
args, cut = ngx.req.get_uri_args(1)
ngx.say("cut ", args.a, " ", args.b, " ", cut)
local into = { old = 1 }
ngx.req.get_uri_args(0, into)
ngx.say("into ", table.concat(into.a, ","), " ", into.old)

local headers = ngx.req.get_headers()
ngx.say("headers ", headers["x-one"], " ", headers["X-ONE"], " ", headers.x_one, " ",
    table.concat(headers.x_two, ","), " ", headers.none)
local raw = ngx.req.get_headers(0, true)
ngx.say("raw ", raw["x-one"], " ", raw["X-One"])
local few, all = ngx.req.get_headers(1), 0
for _ in pairs(few) do
    all = all + 1
end
ngx.say("cut headers ", all, " ", (select(2, ngx.req.get_headers(1))))

ngx.req.set_header("X-New", "a\r\nb")
ngx.req.set_header("x-one", 2)
ngx.req.set_header("X-Two", { "x", "y" })
ngx.req.clear_header("Accept")
headers = ngx.req.get_headers()
ngx.say("set ", headers.x_new, " ", headers.x_one, " ", table.concat(headers.x_two, ","), " ", headers.accept)
ngx.req.set_header("X-One", 1)
require("ngx.req").add_header("X-One", 3)
ngx.say("added ", table.concat(ngx.req.get_headers().x_one, ","))

local method = ngx.req.get_method()
ngx.req.set_method(ngx.HTTP_POST)
ngx.say("method ", method, " ", ngx.req.get_method(), " ", failure(ngx.req.set_method, 3))
ngx.say("bad method ", failure(ngx.req.set_method, "GET"))
ngx.req.set_method(ngx.HTTP_GET)

ngx.req.set_uri("/other")
ngx.req.set_uri_args({ d = 2 })
ngx.say("uri ", ngx.var.uri, " ", ngx.var.args)
ngx.say("jump ", failure(ngx.req.set_uri, "/x", true))
ngx.say("unsafe ", failure(ngx.req.set_uri, "/a\n"))
ngx.say("empty ", failure(ngx.req.set_uri, ""))
ngx.req.set_uri_args("x=1 y")
local escaped = ngx.var.args
ngx.req.set_uri_args({ z = { 1, false } })
ngx.say("set args ", escaped, " ", ngx.req.get_uri_args().z == "1", " ", ngx.var.args)
ngx.say("bad args ", failure(ngx.req.set_uri_args, nil))

local head = ngx.req.raw_header()
ngx.say("line ", head:match("^(.-)\r\n"))
ngx.say("fields ", ngx.req.raw_header(true) == head:match("^.-\r\n(.*)$") and head:sub(-4) == "\r\n\r\n")
ngx.say("version ", ngx.req.http_version())
ngx.say("start ", ngx.req.start_time() <= ngx.now() and ngx.req.start_time() > ngx.now() - 60)
ngx.say("internal ", ngx.req.is_internal())
ngx.req.set_header("Host", "changed.example")
ngx.say("host ", ngx.var.host)
