-- ndk.set_var.
--
-- Expected output:
--   a%20b a b
--   5d41402abc4b2a76b9719d911017c592 aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d
--   aGVsbG8= hello
--   68656c6c6f hello ''
--   'it\'s'
--   ndk.set_var: directive "set_none" not found or does not use ndk_set_var_value
--   not allowed

local var = ndk.set_var

local function failure(f, ...)
    local _, err = pcall(f, ...)
    return (err:gsub("^.-:%d+: ", ""))
end

ngx.say(var.set_escape_uri("a b"), " ", var.set_unescape_uri("a%20b"))
ngx.say(var.set_md5("hello"), " ", var.set_sha1("hello"))
ngx.say(var.set_encode_base64("hello"), " ", var.set_decode_base64("aGVsbG8="))
ngx.say(var.set_encode_hex("hello"), " ", var.set_decode_hex("68656C6c6f"), " '", var.set_decode_hex("xyz"), "'")
ngx.say(var.set_quote_sql_str("it's"))
ngx.say(failure(function() return var.set_none end))
ngx.say(failure(function() var.set_md5 = 1 end))
