-- ngx.ssl.session: sessions are in tickets and in ssl_session_cache, where scripts do not get at them.

local function not_supported()
    return nil, "not supported: sessions are in tickets and in ssl_session_cache"
end

return {
    version = "0.1.32",
    get_serialized_session = not_supported, set_serialized_session = not_supported, get_session_id = not_supported,
}
