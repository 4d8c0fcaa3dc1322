-- The digest classes, resty.string and resty.random. Needs terrace.native.
--
-- Expected output:
--   md5 5d41402abc4b2a76b9719d911017c592
--   sha1 b7e23ec29af22b0b4e41da31e868d57226121c84
--   sha224 ea09ae9cc6768c50fcee903ed054556e5bfc8347907f12598aa24193
--   sha256 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824
--   sha384 59e1748777448c69de6b800d7a33bbfb9ff1b463e44354c3553bcdb9c666fa90125a3c79f90397bdf5f6a13de828684f
--   sha512 9b71d224bd62f3785d96d46ad3ea3d73319bfbc2890caadae2dff72519673ca72323c3d99ba5c11d7c7acc6e14b8c5da0c4663475c2e5c3adef46f73bcdec043
--   empty d41d8cd98f00b204e9800998ecf8427e
--   prefix 5d41402abc4b2a76b9719d911017c592
--   atoi 120 -1 -1
--   hex of 300 bytes: 600
--   random 16 32 16 8
--   numbers in range
--   distinct: true

local str = require "resty.string"

local function hex_of(name, ...)
    local digest = require("resty." .. name):new()
    for _, piece in ipairs { ... } do
        assert(digest:update(piece) == true)
    end
    return str.to_hex(digest:final())
end

ngx.say("md5 ", hex_of("md5", "hel", "lo"))
ngx.say("sha1 ", hex_of("sha1", "hello, ", "world"))
for _, name in ipairs { "sha224", "sha256", "sha384", "sha512" } do
    ngx.say(name, " ", hex_of(name, "hello"))
end

local md5 = require("resty.md5"):new()
md5:update("discarded")
md5:reset()
ngx.say("empty ", str.to_hex(md5:final()))
md5:reset()
md5:update("hello and more", 5)
ngx.say("prefix ", str.to_hex(md5:final()))

ngx.say("atoi ", str.atoi("120"), " ", str.atoi("12x"), " ", str.atoi(""))
ngx.say("hex of 300 bytes: ", #str.to_hex(string.rep("z", 300)))

local random = require "resty.random"
ngx.say("random ", #random.bytes(16), " ", #random.bytes(16, "hex"), " ", #random.token(), " ", #random.token(8, "ab"))
for _ = 1, 1000 do
    local one, two, three = random.number(5, 7), random.number(3), random.number()
    assert(one >= 5 and one <= 7 and two >= 1 and two <= 3 and three >= 0)
end
ngx.say("numbers in range")
ngx.say("distinct: ", random.bytes(16, true) ~= random.bytes(16, true))
