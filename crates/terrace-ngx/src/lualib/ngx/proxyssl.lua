-- ngx.proxyssl: what the handshake with the server that a request goes to has agreed on.

local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local error = error

local _M = {
    version = "0.1.32", SSL3_VERSION = 0x0300, TLS1_VERSION = 0x0301, TLS1_1_VERSION = 0x0302, TLS1_2_VERSION = 0x0303,
    TLS1_3_VERSION = 0x0304,
}

-- Known of a handshake that the request itself makes, once the server has answered.
function _M.get_tls1_version()
    local version = native.upstream_version(text)
    if version > 0 then
        return version
    elseif version == base.NO_REQUEST then
        error("no request found", 2)
    end
    return nil, take()
end

function _M.get_tls1_version_str()
    local version, err = _M.get_tls1_version()
    if not version then
        return nil, err
    end
    return version == _M.TLS1_3_VERSION and "TLSv1.3" or "TLSv1.2"
end

return _M
