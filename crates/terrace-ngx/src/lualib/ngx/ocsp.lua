-- ngx.ocsp: asking authorities whether a certificate is still good, and handing their answers on to clients.

local ffi = require "ffi"
local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local check_string = base.check_string
local error = error
local sub = string.sub
local NOT_FOUND = base.NOT_FOUND

-- lua-resty-core's string buffer.
local BUFFER_BYTES = 4096

local _M = { version = "0.1.32" }

function _M.get_ocsp_responder_from_der_chain(chain, max_len)
    check_string(chain, 1, "get_ocsp_responder_from_der_chain")
    local code = native.ocsp_responder(chain, #chain, text)
    if code == NOT_FOUND then
        return nil
    elseif code ~= 0 then
        return nil, take()
    end
    local url = take()
    max_len = max_len or BUFFER_BYTES
    if #url > max_len then
        return sub(url, 1, max_len), "truncated"
    end
    return url
end

function _M.create_ocsp_request(chain, max_len)
    check_string(chain, 1, "create_ocsp_request")
    if native.ocsp_request(chain, #chain, text) ~= 0 then
        return nil, take()
    end
    local request = take()
    max_len = max_len or BUFFER_BYTES
    if #request > max_len then
        return nil, "output buffer too small: " .. #request .. " > " .. max_len
    end
    return request
end

local next_update = ffi.new("double[1]")

function _M.validate_ocsp_response(response, chain, max_err_len)
    check_string(response, 1, "validate_ocsp_response")
    check_string(chain, 2, "validate_ocsp_response")
    if native.ocsp_check(response, #response, chain, #chain, next_update, text) ~= 0 then
        return nil, sub(take(), 1, max_err_len or BUFFER_BYTES)
    end
    local at = next_update[0]
    return true, at ~= 0 and at or nil
end

function _M.set_ocsp_status_resp(response)
    check_string(response, 1, "set_ocsp_status_resp")
    local code = native.tls_set_ocsp(response, #response, text)
    if code == 0 then
        return true
    elseif code == NOT_FOUND then
        return true, "no status req"
    elseif code == base.NO_REQUEST then
        error("no request found", 2)
    end
    return nil, take()
end

return _M
