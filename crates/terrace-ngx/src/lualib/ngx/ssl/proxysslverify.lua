-- ngx.ssl.proxysslverify: what to think of the certificate that a server shows. For proxy_ssl_verify_by_lua*.

local ffi = require "ffi"
local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local error, tonumber, type = error, tonumber, type

local PROXY_SSL_VERIFY = 524288

local _M = { version = "0.1.32" }

local function check_phase()
    if native.phase() ~= PROXY_SSL_VERIFY then
        error("API disabled in the current context", 3)
    end
end

-- One of OpenSSL's X509_V_ numbers; 0 is good.
function _M.set_verify_result(result)
    check_phase()
    if type(result) ~= "number" or result < 0 then
        error("bad argument #1 to 'set_verify_result' (number expected, got " .. type(result) .. ")", 2)
    end
    if native.upstream_set_verdict(result, text) == 0 then
        return true
    end
    return nil, take()
end

local verdict = ffi.new("unsigned[1]")

function _M.get_verify_result()
    check_phase()
    if native.upstream_verdict(verdict, text) == 0 then
        return tonumber(verdict[0])
    end
    return nil, take()
end

-- The chain as ngx.ssl's parse_pem_cert gives one.
function _M.get_verify_cert()
    check_phase()
    local chain = native.upstream_certs(text)
    if chain == nil then
        return nil, take()
    end
    return ffi.gc(chain, native.ssl_certs_free)
end

return _M
