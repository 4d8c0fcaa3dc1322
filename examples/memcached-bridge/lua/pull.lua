-- GET /pull?topic=orders: pushes the messages of all backends until the limit, a long silence, or the client's end.
--
-- 400 for wrong arguments, 502 when no backend answers, 503 when there are too many streams.

local backend = require "bridge.backend"
local cjson = require "cjson.safe"
local settings = require "bridge.settings"
local stream_class = require "bridge.stream"
local wish = require "bridge.wish"

local function fail(status, text)
    ngx.status = status
    ngx.say(cjson.encode({ error = text }))
    return ngx.exit(status)
end

local wanted, wrong = wish.read()
if not wanted then
    return fail(400, wrong)
end

local streams = ngx.shared.bridge_streams:incr("streams", 1, 0)
ngx.ctx.is_counted = streams ~= nil
if not streams or streams > settings.streams_max then
    return fail(503, "too many streams")
end

-- All that this request waits for ends with it: nobody reads for a client that has left.
local registered, refusal = ngx.on_abort(function()
    ngx.log(ngx.NOTICE, "the client left, the backends are read no more")
    ngx.exit(499)
end)
if not registered then
    ngx.log(ngx.ERR, "on_abort: ", refusal)
    return fail(500, "internal error")
end

local stream = stream_class.new(wanted.limit, wanted.wait_s)

local function read(index)
    local done, err = backend.read(stream, index, wanted.prefix, wanted.from[index])
    if not done then
        ngx.log(ngx.ERR, "backend ", index, ": ", err)
        if stream.is_open then
            stream:push_error(index, nil, "the backend does not answer")
        end
    end
end

local threads = {}
for i in ipairs(settings.backends) do
    threads[i] = ngx.thread.spawn(read, i)
end
for _, thread in ipairs(threads) do
    ngx.thread.wait(thread)
end
if not stream.is_open then
    return fail(502, "no backend answers")
end
