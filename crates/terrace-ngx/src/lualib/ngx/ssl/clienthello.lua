-- ngx.ssl.clienthello: what a client's first message of TLS says. For ssl_client_hello_by_lua*.

local base = require "terrace.base"

local native, take, text = base.native, base.take, base.text
local byte = string.byte
local error, ipairs = error, ipairs

local SSL_CLIENT_HELLO = 16384
local SUPPORTED_VERSIONS = 43

local _M = { version = "0.1.32" }

local function check_phase()
    if native.phase() ~= SSL_CLIENT_HELLO then
        error("API disabled in the current context", 3)
    end
end

local function found(code)
    if code == 0 then
        return take()
    elseif code == base.FAILED then
        return nil, take()
    end
    return nil
end

function _M.get_client_hello_server_name()
    check_phase()
    return found(native.tls_server_name(text))
end

function _M.get_client_hello_ext(kind)
    check_phase()
    return found(native.hello_extension(kind, text))
end

local function numbers(which)
    local raw, err = found(native.hello_numbers(which, text))
    if not raw then
        return nil, err
    end
    local all = {}
    for i = 1, #raw, 2 do
        local high, low = byte(raw, i, i + 1)
        all[#all + 1] = high * 256 + low
    end
    return all
end

function _M.get_client_hello_ext_present()
    check_phase()
    return numbers(1)
end

function _M.get_client_hello_ciphers()
    check_phase()
    return numbers(0)
end

local names = {
    [0x002] = "SSLv2", [0x300] = "SSLv3", [0x301] = "TLSv1", [0x302] = "TLSv1.1", [0x303] = "TLSv1.2",
    [0x304] = "TLSv1.3",
}

-- The last that the client names comes first, as in lua-resty-core.
function _M.get_supported_versions()
    check_phase()
    local list, err = found(native.hello_extension(SUPPORTED_VERSIONS, text))
    if not list then
        return nil, err
    elseif #list == 0 or byte(list, 1) ~= #list - 1 then
        return nil
    end
    local versions = {}
    for i = #list - 1, 2, -2 do
        local high, low = byte(list, i, i + 1)
        local name = names[high * 256 + low]
        if name then
            versions[#versions + 1] = name
        end
    end
    return versions
end

local known = { ["SSLv2"] = true, ["SSLv3"] = true, ["TLSv1"] = true, ["TLSv1.1"] = true }

function _M.set_protocols(protocols)
    check_phase()
    local tls12, tls13 = 0, 0
    for _, name in ipairs(protocols) do
        if name == "TLSv1.2" then
            tls12 = 1
        elseif name == "TLSv1.3" then
            tls13 = 1
        elseif not known[name] then
            return nil, "invalid protocols failed"
        end
    end
    if native.hello_protocols(tls12, tls13, text) == 0 then
        return true
    end
    return nil, take()
end

return _M
