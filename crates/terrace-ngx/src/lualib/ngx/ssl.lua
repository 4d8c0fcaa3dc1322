-- ngx.ssl: certificates and keys as objects, and the handshake that a client waits for.

local ffi = require "ffi"
local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local check_string = base.check_string
local ffi_gc, ffi_new = ffi.gc, ffi.new
local error, tonumber, type = error, tonumber, type
local sub = string.sub
local FAILED, NO_REQUEST = base.FAILED, base.NO_REQUEST

local _M = { version = "0.1.32" }

local function certs(data, is_der)
    local made = native.ssl_certs(data, #data, is_der, text)
    if made == nil then
        return nil, take()
    end
    return ffi_gc(made, native.ssl_certs_free)
end

local function key(data, is_der)
    local made = native.ssl_key(data, #data, is_der, text)
    if made == nil then
        return nil, take()
    end
    return ffi_gc(made, native.ssl_key_free)
end

function _M.parse_pem_cert(pem)
    check_string(pem, 1, "parse_pem_cert")
    return certs(pem, 0)
end

function _M.parse_der_cert(der)
    check_string(der, 1, "parse_der_cert")
    return certs(der, 1)
end

function _M.parse_pem_priv_key(pem)
    check_string(pem, 1, "parse_pem_priv_key")
    return key(pem, 0)
end

function _M.parse_der_priv_key(der)
    check_string(der, 1, "parse_der_priv_key")
    return key(der, 1)
end

function _M.cert_pem_to_der(pem)
    check_string(pem, 1, "cert_pem_to_der")
    if native.ssl_certs_der(pem, #pem, text) ~= 0 then
        return nil, take()
    end
    return take()
end

function _M.priv_key_pem_to_der(pem, passphrase)
    check_string(pem, 1, "priv_key_pem_to_der")
    if native.ssl_key_der(pem, #pem, passphrase, passphrase and #passphrase or 0, text) ~= 0 then
        return nil, take()
    end
    return take()
end

-- What a code says: true, or nil and the error.
local function done(code)
    if code == 0 then
        return true
    elseif code == NO_REQUEST then
        error("no request found", 3)
    end
    return nil, take()
end

-- As `done`, for functions that leave bytes or find none.
local function found(code)
    if code == 0 then
        return take()
    elseif code == FAILED then
        return nil, take()
    elseif code == NO_REQUEST then
        error("no request found", 3)
    end
    return nil
end

function _M.clear_certs()
    return done(native.tls_clear(text))
end

local function is_of(value, name)
    return type(value) == "cdata" and ffi.istype(name, value)
end

function _M.set_cert(chain)
    return done(native.tls_set_certs(is_of(chain, "struct terrace_certs *") and chain or nil, text))
end

function _M.set_priv_key(object)
    return done(native.tls_set_key(is_of(object, "struct terrace_key *") and object or nil, text))
end

function _M.set_der_cert(der)
    check_string(der, 1, "set_der_cert")
    local chain, err = certs(der, 1)
    if not chain then
        return nil, err
    end
    return done(native.tls_set_certs(chain, text))
end

function _M.set_der_priv_key(der)
    check_string(der, 1, "set_der_priv_key")
    local object, err = key(der, 1)
    if not object then
        return nil, err
    end
    return done(native.tls_set_key(object, text))
end

function _M.verify_client(told, depth, trusted)
    told = is_of(told, "struct terrace_certs *") and told or nil
    trusted = is_of(trusted, "struct terrace_certs *") and trusted or nil
    return done(native.tls_verify_client(told, trusted, tonumber(depth) or -1, text))
end

function _M.server_name()
    return found(native.tls_server_name(text))
end

local kinds = { [0] = "unix", [1] = "inet", [2] = "inet6" }
local kind, port = ffi_new("int[1]"), ffi_new("int[1]")

local function address(is_far)
    local raw, err = found(native.tls_address(is_far, kind, port, text))
    if not raw then
        return nil, nil, err
    end
    return raw, kinds[kind[0]]
end

function _M.raw_server_addr()
    return address(0)
end

function _M.raw_client_addr()
    return address(1)
end

function _M.server_port()
    local raw, family, err = address(0)
    if not raw then
        return nil, err
    elseif family == "unix" then
        return nil, "unix domain has no port"
    end
    return port[0]
end

_M.SSL3_VERSION, _M.TLS1_VERSION, _M.TLS1_1_VERSION = 0x0300, 0x0301, 0x0302
_M.TLS1_2_VERSION, _M.TLS1_3_VERSION = 0x0303, 0x0304

function _M.get_tls1_version()
    local version = native.tls_version(text)
    if version > 0 then
        return version
    end
    return done(version)
end

function _M.get_tls1_version_str()
    local version, err = _M.get_tls1_version()
    if not version then
        return nil, err
    end
    return version == _M.TLS1_3_VERSION and "TLSv1.3" or "TLSv1.2"
end

function _M.get_client_random(size)
    local random, err = found(native.tls_client_random(text))
    if not random then
        return nil, err
    elseif size == 0 then
        return #random
    end
    return sub(random, 1, size or 32)
end

function _M.export_keying_material(size, label, context)
    return found(native.tls_export(size, label, #label, context, context and #context or 0, context and 1 or 0, text))
end

-- What only OpenSSL's own objects could give.
local function not_supported()
    return nil, "not supported: TLS is not OpenSSL's"
end

for _, name in ipairs {
    "get_server_random", "get_session_master_key", "export_keying_material_early", "get_req_ssl_pointer",
    "get_upstream_ssl_pointer", "get_req_shared_ssl_ciphers",
} do
    _M[name] = not_supported
end

function _M.ssl_session_reused()
    return nil, "bad ssl"
end

return _M
