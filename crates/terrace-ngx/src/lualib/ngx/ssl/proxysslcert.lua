-- ngx.ssl.proxysslcert: the certificate that a server is shown. For proxy_ssl_certificate_by_lua*.

local ffi = require "ffi"
local base = require "terrace.base"
local ssl = require "ngx.ssl"

local native, take, text = base.native, base.take, base.text
local error, type = error, type

local PROXY_SSL_CERT = 262144

local _M = { version = "0.1.32" }

local function check_phase()
    if native.phase() ~= PROXY_SSL_CERT then
        error("API disabled in the current context", 3)
    end
end

local function done(code)
    if code == 0 then
        return true
    end
    return nil, take()
end

local function is_of(value, name)
    return type(value) == "cdata" and ffi.istype(name, value)
end

function _M.clear_certs()
    check_phase()
    return done(native.upstream_clear(text))
end

function _M.set_cert(chain)
    check_phase()
    return done(native.upstream_set_certs(is_of(chain, "struct terrace_certs *") and chain or nil, text))
end

function _M.set_priv_key(key)
    check_phase()
    return done(native.upstream_set_key(is_of(key, "struct terrace_key *") and key or nil, text))
end

function _M.set_der_cert(der)
    check_phase()
    local chain, err = ssl.parse_der_cert(der)
    if not chain then
        return nil, err
    end
    return done(native.upstream_set_certs(chain, text))
end

function _M.set_der_priv_key(der)
    check_phase()
    local key, err = ssl.parse_der_priv_key(der)
    if not key then
        return nil, err
    end
    return done(native.upstream_set_key(key, text))
end

return _M
