-- Splits the URIs that resty.http is given.

local byte = string.byte
local find = string.find
local format = string.format
local gsub = string.gsub
local lower = string.lower
local match = string.match
local sub = string.sub
local tonumber = tonumber
local type = type

local PORT_MAX = 65535

local _M = { _VERSION = "0.1.0", PORTS = { http = 80, https = 443 } }


local function split_authority(authority)
    if byte(authority, 1) == 91 then
        local host, rest = match(authority, "^(%[[%x:%.]+%])(.*)$")
        return host, rest
    end
    local host, rest = match(authority, "^([^:@%[%]%s%c]+)(.*)$")
    return host, rest
end


-- scheme, host, port, path, query of an http or https URI, or nil and an error. The scheme of "//host/path" is the
-- second argument. The path is at least "/"; the query is nil without "?"; a fragment is dropped.
function _M.split(uri, scheme_default)
    if type(uri) ~= "string" then
        return nil, "bad uri: not a string"
    end
    local scheme, authority, rest = match(uri, "^([%a]*):?//([^/%?#]*)(.*)$")
    if not authority or (scheme == "" and byte(uri, 1) ~= 47) then
        return nil, "bad uri: " .. uri
    end
    scheme = scheme == "" and scheme_default or lower(scheme)
    local port_default = _M.PORTS[scheme]
    local host, port_text = split_authority(authority)
    if not port_default or not host then
        return nil, "bad uri: " .. uri
    end
    local port = port_default
    if port_text ~= "" and port_text ~= ":" then
        port = tonumber(match(port_text, "^:(%d+)$"))
        if not port or port > PORT_MAX then
            return nil, "bad uri: " .. uri
        end
    end
    rest = gsub(rest, "#.*$", "")
    local at = find(rest, "?", 1, true)
    local path = at and sub(rest, 1, at - 1) or rest
    local query = at and sub(rest, at + 1) or nil
    return scheme, host, port, path ~= "" and path or "/", query
end


local function percent_encoded(char)
    return format("%%%02X", byte(char))
end


-- A request target without the bytes that would end it: blanks and control characters are percent-encoded.
function _M.clean_target(target)
    if not find(target, "[%c%s]") then
        return target
    end
    return (gsub(target, "[%c%s]", percent_encoded))
end


-- The encoded form of a decoded path.
function _M.encode_path(path)
    return (gsub(path, "[%c%s%%?#\128-\255]", percent_encoded))
end


-- The Host field's value for a connection's endpoint.
function _M.host_field(scheme, host, port)
    if match(host, "^unix:") then
        return "localhost"
    end
    if not port or port == _M.PORTS[scheme or "http"] then
        return host
    end
    return host .. ":" .. port
end


return _M
