-- resty.http against this script itself: a request with the argument `serve` gets what it names, any other runs the
-- test.
--
-- Expected output:
--   seed style 200 id=7 x y
--   again 200 0-length true
--   post 200 abc sized
--   iterated 200 onetwo chunked
--   table query 200 id=1
--   head 200 0
--   no content 204 0
--   chunked 200 300000
--   streamed 100000 8192
--   keepalive 1
--   reused 1
--   close 2 connection must be closed
--   pipelined 200 a 200 b
--   headers application/test application/test
--   timeout nil timeout
--   refused nil connection refused
--   not initialized nil not initialized
--   invalid nil invalid header value: X

local http = require "resty.http"

local serve = {}

function serve.args()
    local args = ngx.req.get_uri_args()
    ngx.print("id=", args.id, args.x and " x " .. args.x or "")
end

function serve.name()
    local name = ngx.req.get_uri_args().id
    ngx.header["Content-Type"] = "application/test"
    ngx.header["Content-Length"] = #name
    ngx.print(name)
end

function serve.echo()
    ngx.req.read_body()
    ngx.header["X-Framing"] = ngx.var.http_transfer_encoding or "sized"
    ngx.print(ngx.req.get_body_data())
end

function serve.empty()
    ngx.exit(204)
end

function serve.chunks()
    for _ = 1, 30 do
        ngx.print(string.rep("c", 10000))
        ngx.flush(true)
    end
end

function serve.large()
    ngx.header["Content-Length"] = 100000
    ngx.print(string.rep("l", 100000))
end

function serve.slow()
    ngx.sleep(60)
    ngx.print("late")
end

local asked = ngx.req.get_uri_args().serve
if asked then
    return serve[asked]()
end

local host, port, path = "127.0.0.1", tonumber(ngx.var.server_port), ngx.var.uri
local base = "http://" .. host .. ":" .. port

local function target(name, rest)
    return path .. "?serve=" .. name .. (rest or "")
end

local function whole(name, params)
    return assert(http.new():request_uri(base, setmetatable({ path = target(name) }, { __index = params })))
end

local res = http.new():request_uri(base, { method = "GET", path = target("args", "&id=7&x=y") })
ngx.say("seed style ", res.status, " ", res.body)
res = whole("name", { path = nil, query = { id = "" } })
ngx.say("again ", res.status, " 0-length ", tostring(res.body == ""))
res = whole("echo", { method = "POST", body = "abc" })
ngx.say("post ", res.status, " ", res.body, " ", res.headers["x-framing"])
local pieces = { "one", "two" }
res = whole("echo", { method = "PUT", body = function() return table.remove(pieces, 1) end })
ngx.say("iterated ", res.status, " ", res.body, " ", res.headers.x_framing)
res = http.new():request_uri(base .. path, { query = { serve = "args", id = 1 } })
ngx.say("table query ", res.status, " ", res.body)
res = whole("large", { method = "HEAD" })
ngx.say("head ", res.status, " ", #res.body)
res = whole("empty")
ngx.say("no content ", res.status, " ", #res.body)
res = whole("chunks")
ngx.say("chunked ", res.status, " ", #res.body)

local client = http.new()
assert(client:connect { scheme = "http", host = host, port = port, pool = "test" })
res = assert(client:request { path = target("large") })
local total, largest = 0, 0
for piece in res.body_reader, 8192 do
    total, largest = total + #piece, math.max(largest, #piece)
end
ngx.say("streamed ", total, " ", largest)
ngx.say("keepalive ", client:set_keepalive())
client:connect { scheme = "http", host = host, port = port, pool = "test" }
ngx.say("reused ", client:get_reused_times())
client:request { path = target("name", "&id=a"), headers = { Connection = "close" } }
ngx.say("close ", table.concat({ client:set_keepalive() }, " "))

client:connect(host, port)
local both = client:request_pipeline { { path = target("name", "&id=a") }, { path = target("name", "&id=b") } }
local first = both[1]:read_body()
ngx.say("pipelined ", both[1].status, " ", first, " ", both[2].status, " ", both[2]:read_body())
ngx.say("headers ", both[2].headers["Content-Type"], " ", both[2].headers.content_type)
client:close()

local function failure(name, ok, err)
    ngx.say(name, " ", tostring(ok), " ", err)
end

client = http.new()
client:set_timeouts(1000, 1000, 50)
failure("timeout", client:request_uri(base, { path = target("slow") }))
failure("refused", http.new():request_uri("http://127.0.0.1:1/"))
failure("not initialized", http.close({}))
failure("invalid", http.new():request_uri(base, { headers = { X = "a\r\nb: c" } }))
