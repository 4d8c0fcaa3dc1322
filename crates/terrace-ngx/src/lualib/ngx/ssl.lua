-- ngx.ssl: certificates and keys as objects, and the handshake that a client waits for.

local ffi = require "ffi"
local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local ffi_gc = ffi.gc
local error, type = error, type

local _M = { version = "0.1.32" }

local function check_string(value, position, name)
    if type(value) ~= "string" then
        error("bad argument #" .. position .. " to '" .. name .. "' (string expected, got " .. type(value) .. ")", 3)
    end
end

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

-- A passphrase is of no use: encrypted keys are refused.
function _M.priv_key_pem_to_der(pem)
    check_string(pem, 1, "priv_key_pem_to_der")
    if native.ssl_key_der(pem, #pem, text) ~= 0 then
        return nil, take()
    end
    return take()
end

return _M
