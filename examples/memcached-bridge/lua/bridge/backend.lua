-- Reads one backend's messages of a topic, in their order, until the stream ends.

local memcached = require "resty.memcached"
local message = require "bridge.message"
local settings = require "bridge.settings"

local min = math.min

local _M = {}

local function connect(place)
    local client, err = memcached:new()
    if not client then
        return nil, err
    end
    client:set_timeouts(settings.connect_timeout_ms, settings.send_timeout_ms, settings.read_timeout_ms)
    for attempt = 1, settings.attempts_max do
        local ok
        ok, err = client:connect(place.host, place.port)
        if ok then
            return client
        end
        if attempt < settings.attempts_max then
            ngx.sleep(settings.attempt_pause_s)
        end
    end
    return nil, err
end

-- Pushes the messages from `number` on that are there; returns the number of the first that is not, or nil and an error.
local function push_batch(client, stream, index, prefix, number)
    local keys = {}
    for i = 1, settings.batch do
        keys[i] = prefix .. number + i - 1
    end
    local found, err = client:get(keys)
    if not found then
        return nil, err
    end
    for _, key in ipairs(keys) do
        local entry = found[key]
        if not entry or stream:has_ended() then
            return number
        end
        local json, wrong = message.read(entry[1], tonumber(entry[2]))
        if json then
            stream:push(index, number, json)
        else
            ngx.log(ngx.WARN, key, " ", wrong)
            stream:push_error(index, number, "the message " .. wrong)
        end
        number = number + 1
    end
    return number
end

-- Pushes the messages of the backend `index` from `number` on. Returns true at the stream's end, or nil and an error.
function _M.read(stream, index, prefix, number)
    local place = settings.backends[index]
    local client, err = connect(place)
    if not client then
        return nil, err
    end
    stream:open()
    local pause_s = settings.poll_s_min
    while not stream:has_ended() do
        local after
        after, err = push_batch(client, stream, index, prefix, number)
        if not after then
            client:close()
            return nil, err
        end
        if after == number then
            ngx.sleep(pause_s)
            pause_s = min(2 * pause_s, settings.poll_s_max)
        else
            pause_s = settings.poll_s_min
        end
        number = after
    end
    client:set_keepalive(settings.idle_timeout_ms, settings.connections_max)
    return true
end

return _M
