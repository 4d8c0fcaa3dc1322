-- ngx.ocsp: a response that a script has is sent to clients that ask; asking authorities is left to the script.

local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local error, type = error, type

local function not_supported()
    return nil, "not supported: requests are neither made nor their answers checked"
end

local _M = {
    version = "0.1.32",
    get_ocsp_responder_from_der_chain = not_supported, create_ocsp_request = not_supported,
    validate_ocsp_response = not_supported,
}

function _M.set_ocsp_status_resp(response)
    if type(response) ~= "string" then
        error("bad argument #1 to 'set_ocsp_status_resp' (string expected, got " .. type(response) .. ")", 2)
    end
    local code = native.tls_set_ocsp(response, #response, text)
    if code == 0 then
        return true
    elseif code == base.NO_REQUEST then
        error("no request found", 2)
    end
    return nil, take()
end

return _M
