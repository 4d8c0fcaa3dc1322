-- ndk.set_var: the functions behind set_escape_uri, set_md5 and their kin, callable from Lua.

local byte, char, format, gsub = string.byte, string.char, string.format, string.gsub
local error, tonumber, tostring, type = error, tonumber, tostring, type

local function encode_hex(text)
    return (gsub(text, ".", function(c)
        return format("%02x", byte(c))
    end))
end

local function decode_hex(text)
    if #text % 2 == 1 or text:find("%X") then
        return ""
    end
    return (gsub(text, "%x%x", function(pair)
        return char(tonumber(pair, 16))
    end))
end

local functions = {
    set_escape_uri = ngx.escape_uri,
    set_unescape_uri = ngx.unescape_uri,
    set_quote_sql_str = ngx.quote_sql_str,
    set_md5 = ngx.md5,
    set_sha1 = function(text) return encode_hex(ngx.sha1_bin(text)) end,
    set_encode_base64 = ngx.encode_base64,
    set_decode_base64 = function(text) return ngx.decode_base64(text) or "" end,
    set_encode_hex = encode_hex,
    set_decode_hex = decode_hex,
}

ndk = {
    set_var = setmetatable({}, {
        __index = function(_, name)
            local f = functions[name]
            if not f then
                error("ndk.set_var: directive \"" .. tostring(name)
                    .. "\" not found or does not use ndk_set_var_value", 2)
            end
            return function(text)
                return f(type(text) == "string" and text or tostring(text))
            end
        end,
        __newindex = function()
            error("not allowed", 2)
        end,
    }),
}
