-- resty.aes. The expected bytes are those of openssl for the same keys, and of NIST's example for GCM.
--
-- Expected output:
--   md5: 7b47a4dbb11e2cddb2f3740c9e3a552b hello
--   key and iv: f9fa30df0325a7680327842c6a232e7838f7149d80cb8a669cf503a45afc2fa5
--   cbc 2f00fead3b34d371ddfd6069f54a73fe4048fe3bda633abd29a6f3a5979cd050 true
--   ecb e8e1d7876194b0ae439d5e83943da284fd1900fff7f8eaf421ac019fd8d970b0 true
--   ctr 9644189130b7130c4d92226ac36deedcc57461 true
--   ofb 9644189130b7130c4d92226ac36deedcbc75b7 true
--   cfb128 9644189130b7130c4d92226ac36deedc8dd677 true
--   cfb8 963abfdddee4dbb958ac37cfff2841732ecddf true
--   cfb1 f6ed822ba6aeefbc5504190bc64e24c36e3141 true
--   gcm cea7403d4d606b6e074ec5d3baf39d18 d0d1c8a799996bf0265b98b5d48ab919 true
--   gcm with another tag: nil EVP_DecryptFinal_ex failed
--   gcm with other data: nil EVP_DecryptFinal_ex failed
--   without padding: a9d8a4ca870fc382421bf69f4d4707a1 EVP_EncryptFinal_ex failed
--   salted: true
--   salt must be 8 characters or nil
--   bad key length
--   bad iv length
--   iv is needed
--   nil

local aes = require "resty.aes"
local to_hex = require("resty.string").to_hex

local plain = aes:new("secret")
ngx.say("md5: ", to_hex(plain:encrypt("hello")), " ", plain:decrypt(plain:encrypt("hello")))
local key = "1234567890123456"
local direct = assert(aes:new(key, nil, aes.cipher(128, "cbc"), { iv = key }))
ngx.say("key and iv: ", to_hex(direct:encrypt("Really secret message!")))
for _, mode in ipairs { "cbc", "ecb", "ctr", "ofb", "cfb128", "cfb8", "cfb1" } do
    local cipher = assert(aes:new(key, nil, aes.cipher(128, mode), { iv = "6543210987654321" }))
    local sealed = cipher:encrypt("0123456789abcdefXYZ")
    ngx.say(mode, " ", to_hex(sealed), " ", cipher:decrypt(sealed) == "0123456789abcdefXYZ")
end

local zeros = ("\0"):rep(16)
local gcm = assert(aes:new(zeros .. zeros, nil, aes.cipher(256, "gcm"), { iv = zeros:sub(1, 12) }))
local sealed = gcm:encrypt(zeros)
ngx.say("gcm ", to_hex(sealed[1]), " ", to_hex(sealed[2]), " ", gcm:decrypt(sealed[1], sealed[2]) == zeros)
ngx.say("gcm with another tag: ", tostring((gcm:decrypt(sealed[1], zeros))), " ", select(2, gcm:decrypt(sealed[1], zeros)))
sealed = gcm:encrypt("text", "header")
assert(gcm:decrypt(sealed[1], sealed[2], "header") == "text")
ngx.say("gcm with other data: ", tostring((gcm:decrypt(sealed[1], sealed[2], "other"))), " ",
    select(2, gcm:decrypt(sealed[1], sealed[2], "other")))

local bare = aes:new("k", nil, nil, nil, nil, nil, false)
ngx.say("without padding: ", to_hex(bare:encrypt("0123456789abcdef")), " ", select(2, bare:encrypt("short")))
local salted = aes:new("AKeyForAES", "MySalt!!", aes.cipher(256, "cbc"), aes.hash.sha512, 5)
ngx.say("salted: ", salted:decrypt(salted:encrypt("Really secret message!")) == "Really secret message!")
ngx.say((select(2, aes:new("k", "short"))))
ngx.say((select(2, aes:new("k", nil, aes.cipher(128, "cbc"), { iv = key }))))
ngx.say((select(2, aes:new(key, nil, aes.cipher(128, "cbc"), { iv = key .. "x" }))))
ngx.say((select(2, aes:new(key, nil, aes.cipher(128, "cbc"), {}))))
ngx.say(tostring(aes.cipher(129, "cbc")))
