-- ngx.ssl.session: the session that a client names, or that a handshake has made. For ssl_session_fetch_by_lua* and
-- ssl_session_store_by_lua*.

local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local error, type = error, type

local _M = { version = "0.1.32" }

local function check(code)
    if code == base.NO_REQUEST then
        error("no request found", 3)
    end
    return code == 0
end

function _M.get_session_id()
    if check(native.session_id(text)) then
        return take()
    end
    return nil, take()
end

function _M.get_serialized_session()
    if check(native.session_get(text)) then
        return take()
    end
    return nil, take()
end

function _M.set_serialized_session(session)
    if type(session) ~= "string" then
        error("bad argument #1 to 'set_serialized_session' (string expected, got " .. type(session) .. ")", 2)
    end
    if check(native.session_set(session, #session, text)) then
        return true
    end
    return nil, take()
end

return _M
