-- Module ngx.balancer, for balancer_by_lua*.

local ffi = require "ffi"
local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local error, tonumber, type = error, tonumber, type

local _M = {}
local REDUCED = 1

local status = ffi.new("int[1]")

-- As OpenResty: no request raises, another phase is an error value.
local function answer(code)
    if code == 0 then
        return true
    elseif code == base.NO_REQUEST then
        error("no request found", 2)
    elseif code == base.FAILED then
        return nil, take()
    end
    return nil, "API disabled in the current context"
end

local function expect(value, expected, position, name)
    if type(value) ~= expected then
        error("bad argument #" .. position .. " to '" .. name .. "' (" .. expected .. " expected, got "
            .. type(value) .. ")", 3)
    end
end

-- `host`, the name for TLS, is taken but not used: see the guide.
function _M.set_current_peer(address, port, host)
    expect(address, "string", 1, "set_current_peer")
    if host ~= nil then
        expect(host, "string", 3, "set_current_peer")
    end
    return answer(native.balancer_set_peer(address, #address, tonumber(port) or 0, text))
end

function _M.set_more_tries(count)
    expect(count, "number", 1, "set_more_tries")
    local code = native.balancer_set_more_tries(count)
    if code == REDUCED then
        return true, "reduced tries due to limit"
    end
    return answer(code)
end

local function milliseconds(seconds, name)
    if not seconds then
        return 0
    elseif type(seconds) ~= "number" or seconds <= 0 then
        error("bad " .. name .. " timeout", 3)
    end
    return seconds * 1000
end

function _M.set_timeouts(connect, send, read)
    connect, send, read =
        milliseconds(connect, "connect"), milliseconds(send, "send"), milliseconds(read, "read")
    return answer(native.balancer_set_timeouts(connect, send, read))
end

local kinds = { [2] = "next", [4] = "failed" }

function _M.get_last_failure()
    local code = native.balancer_last_failure(status)
    if code == 0 then
        return nil
    elseif code < 0 then
        local _, err = answer(code)
        return nil, nil, err
    end
    return kinds[code], status[0]
end

-- Connections are kept as the upstream's `keepalive` says.
function _M.enable_keepalive(idle_timeout, max_requests)
    for position, value in pairs { idle_timeout or 0, max_requests or 0 } do
        expect(value, "number", position, "enable_keepalive")
        if value < 0 then
            error("bad argument #" .. position .. " to 'enable_keepalive' (expected >= 0)", 2)
        end
    end
    -- Changes nothing; tells whether the phase is the right one.
    return answer(native.balancer_set_timeouts(0, 0, 0))
end

-- Has the request made anew, from the fields and the body as they are now.
function _M.recreate_request()
    return answer(native.balancer_recreate())
end

function _M.set_upstream_tls()
    return nil, "not supported"
end

function _M.bind_to_local_addr(address)
    expect(address, "string", 1, "bind_to_local_addr")
    return nil, "not supported"
end

return _M
