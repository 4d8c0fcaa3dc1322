-- ngx.escape_uri and its kin, ngx.encode_args, base64, digests, checksums, times.
--
-- Expected output:
--   component a%20b%2F%3F%26%3D%C3%A9-_.~!'()*
--   uri a%20b/%3F&=%C3%A9+
--   args %2B
--   type error "type" 9 out of range
--   nil ''
--   unescape a b%zz c
--   encode a=1&a=x%20y&a
--   encode flag f
--   encode dropped ''
--   encode bad key attempt to use a non-string key in the "args" option table
--   encode bad value attempt to use function as query arg value
--   encode no table bad argument #1 to 'encode_args' (table expected, got string)
--   decode a=1,true,3 b='' c=x y nil
--   decode cut a=1 b=2 c=nil truncated
--   base64 aGVsbG8= aGVsbG8 hello hello nil
--   base64url -_8 true invalid input
--   mime hello
--   md5 5d41402abc4b2a76b9719d911017c592 true
--   sha1 true
--   hmac true
--   crc 907060870 907060870
--   sql 'a\'b\\c\n\0\Z' ''
--   http Wed, 21 Oct 2015 07:28:00 GMT 1445412480 nil
--   cookie Wed, 21-Oct-15 07:28:00 GMT Fri, 01-Jan-2038 00:00:00 GMT
--   times true true true true

local function failure(f, ...)
    local _, err = pcall(f, ...)
    return (err:gsub("^.-:%d+: ", ""))
end

ngx.say("component ", ngx.escape_uri("a b/?&=\195\169-_.~!'()*"))
ngx.say("uri ", ngx.escape_uri("a b/?&=\195\169+", 0))
ngx.say("args ", ngx.escape_uri("+", 1))
ngx.say("type error ", failure(ngx.escape_uri, "x", 9))
ngx.say("nil '", ngx.escape_uri(nil), "'")
ngx.say("unescape ", ngx.unescape_uri("a+b%zz%20c"))
ngx.say("encode ", ngx.encode_args({ a = { 1, "x y", true, false } }))
ngx.say("encode flag ", ngx.encode_args({ f = true }))
ngx.say("encode dropped '", ngx.encode_args({ f = false, g = {} }), "'")
ngx.say("encode bad key ", failure(ngx.encode_args, { "x" }))
ngx.say("encode bad value ", failure(ngx.encode_args, { x = print }))
ngx.say("encode no table ", failure(ngx.encode_args, "x"))

local args, cut = ngx.decode_args("a=1&a&a=3&b=&=nameless&c=x+y")
ngx.say("decode a=", args.a[1], ",", args.a[2], ",", args.a[3], " b='", args.b, "' c=", args.c, " ", cut)
args, cut = ngx.decode_args("a=1&b=2&c=3", 2)
ngx.say("decode cut a=", args.a, " b=", args.b, " c=", args.c, " ", cut)

ngx.say("base64 ", ngx.encode_base64("hello"), " ", ngx.encode_base64("hello", true), " ",
    ngx.decode_base64("aGVsbG8="), " ", ngx.decode_base64("aGVsbG8"), " ", ngx.decode_base64("a!"))
local base64 = require "ngx.base64"
ngx.say("base64url ", base64.encode_base64url("\251\255"), " ", base64.decode_base64url("-_8") == "\251\255", " ",
    (select(2, base64.decode_base64url("+/"))))
ngx.say("mime ", ngx.decode_base64mime("aGV\r\nsbG8="))

ngx.say("md5 ", ngx.md5("hello"), " ", require("resty.string").to_hex(ngx.md5_bin("hello")) == ngx.md5("hello"))
local to_hex = require("resty.string").to_hex
ngx.say("sha1 ", to_hex(ngx.sha1_bin("hello")) == "aaf4c61ddcc5e8a2dabede0f3b482cd9aea9434d")
ngx.say("hmac ", to_hex(ngx.hmac_sha1("Jefe", "what do ya want for nothing?"))
    == "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")
ngx.say("crc ", ngx.crc32_short("hello"), " ", ngx.crc32_long("hello"))
ngx.say("sql ", ngx.quote_sql_str("a'b\\c\n\0\26"), " ", ngx.quote_sql_str(""))

ngx.say("http ", ngx.http_time(1445412480), " ", ngx.parse_http_time("Wed, 21 Oct 2015 07:28:00 GMT"), " ",
    ngx.parse_http_time("yesterday"))
ngx.say("cookie ", ngx.cookie_time(1445412480), " ", ngx.cookie_time(2145916800))
local floor = math.floor
ngx.say("times ", floor(ngx.now()) == ngx.time(), " ",
    ngx.localtime():sub(1, 10) == ngx.today(), " ",
    ngx.utctime() == os.date("!%Y-%m-%d %H:%M:%S", ngx.time()), " ",
    ngx.parse_http_time(ngx.http_time(ngx.time())) == ngx.time())
