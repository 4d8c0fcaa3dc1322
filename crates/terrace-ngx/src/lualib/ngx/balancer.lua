-- Module ngx.balancer, for balancer_by_lua*.

local ffi = require "ffi"
local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local error, min, tonumber, type = error, math.min, tonumber, type

local _M = {}
local REDUCED, NO_UPSTREAM = 1, -2
local INT_MAX = 2147483647

local status = ffi.new("int[1]")

-- As OpenResty: no request raises, another phase is an error value.
local function answer(code)
    if code == 0 then
        return true
    elseif code == base.NO_REQUEST then
        error("no request found", 2)
    elseif code == base.FAILED then
        return nil, take()
    elseif code == NO_UPSTREAM then
        return nil, "no upstream found"
    end
    return nil, "API disabled in the current context"
end

local function expect(value, expected, position, name)
    if type(value) ~= expected then
        error("bad argument #" .. position .. " to '" .. name .. "' (" .. expected .. " expected, got "
            .. type(value) .. ")", 3)
    end
end

-- `host` is the name that TLS is spoken to by, where proxy_ssl_name does not say; it also parts kept connections.
function _M.set_current_peer(address, port, host)
    expect(address, "string", 1, "set_current_peer")
    if host ~= nil then
        expect(host, "string", 3, "set_current_peer")
    end
    return answer(native.balancer_set_peer(address, #address, tonumber(port) or 0, host, host and #host or 0, text))
end

function _M.set_more_tries(count)
    expect(count, "number", 1, "set_more_tries")
    local code = native.balancer_set_more_tries(min(count, INT_MAX))
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
    local ok, err = answer(native.balancer_set_timeouts(connect, send, read))
    if not ok then
        return false, err
    end
    return true
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

-- Idle seconds and requests; 0 is no limit.
function _M.enable_keepalive(idle_timeout, max_requests)
    idle_timeout, max_requests = idle_timeout or 60, max_requests or 100
    expect(idle_timeout, "number", 1, "enable_keepalive")
    if idle_timeout < 0 then
        error("bad argument #1 to 'enable_keepalive' (expected >= 0)", 2)
    end
    expect(max_requests, "number", 2, "enable_keepalive")
    if max_requests < 0 then
        error("bad argument #2 to 'enable_keepalive' (expected >= 0)", 2)
    end
    return answer(native.balancer_set_keepalive(idle_timeout * 1000, max_requests, text))
end

-- Has the request made anew, from the fields and the body as they are now.
function _M.recreate_request()
    return answer(native.balancer_recreate())
end

function _M.set_upstream_tls(on)
    return answer(native.balancer_set_tls((on == 0 or on == false) and 0 or 1))
end

function _M.bind_to_local_addr(address)
    expect(address, "string", 1, "bind_to_local_addr")
    return answer(native.balancer_bind(address, #address, text))
end

return _M
