-- The body functions of ngx.req. Needs a POST of `a=1&b=x+y&c` with a Content-Length, `client_body_buffer_size 16`
-- or more, and no lua_need_request_body.
--
-- Expected output:
--   unread no request body found; maybe you should turn on lua_need_request_body?
--   unread request body not read yet
--   nil nil
--   data a=1&b=x+y&c a=1 nil
--   args 1 x y true nil
--   cut truncated
--   set new 3 3
--   number 42 2
--   empty nil 0
--   bad bad argument #1 to 'set_body_data' (string expected, got no value)
--   built one two 7
--   uninitialized request_body not initialized
--   bad size bad size argument: -1
--   file true nil 12
--   args nilrequest body in temp file not supported
--   other file true 5
--   missing true
--   back x

local req = ngx.req

local function failure(f, ...)
    local _, err = pcall(f, ...)
    return (err:gsub("^.-:%d+: ", ""))
end

local function length()
    return req.get_headers().content_length
end

ngx.say("unread ", failure(req.get_post_args))
ngx.say("unread ", failure(req.set_body_data, "x"))
ngx.say(req.get_body_data(), " ", req.get_body_file())
req.read_body()
req.read_body()
ngx.say("data ", req.get_body_data(), " ", req.get_body_data(3), " ", req.get_body_file())
local args, cut = req.get_post_args()
ngx.say("args ", args.a, " ", args.b, " ", args.c, " ", cut)
ngx.say("cut ", (select(2, req.get_post_args(2))))

req.set_body_data("new")
ngx.say("set ", req.get_body_data(), " ", #req.get_body_data(), " ", length())
req.set_body_data(42)
ngx.say("number ", req.get_body_data(), " ", length())
req.set_body_data("")
ngx.say("empty ", req.get_body_data(), " ", length())
ngx.say("bad ", failure(req.set_body_data))

req.init_body()
req.append_body("one")
req.append_body(" two")
req.finish_body()
ngx.say("built ", req.get_body_data(), " ", length())
ngx.say("uninitialized ", failure(req.append_body, "x"))
ngx.say("bad size ", failure(req.init_body, -1))

req.init_body(4)
req.append_body("more ")
req.append_body("than 4b")
req.finish_body()
local name = req.get_body_file()
local file = io.open(name)
ngx.say("file ", file:read("*a") == "more than 4b", " ", req.get_body_data(), " ", length())
file:close()
ngx.say("args ", req.get_post_args())

local path = os.tmpname()
file = io.open(path, "w")
file:write("hello")
file:close()
req.set_body_file(path, true)
ngx.say("other file ", req.get_body_file() == path and io.open(name) == nil, " ", length())
ngx.say("missing ", failure(req.set_body_file, "/nonexistent/file"):find("No such file", 1, true) ~= nil)
req.set_body_data("x")
ngx.say("back ", req.get_body_data())
