-- AES under the interface that scripts know: a key, derived as OpenSSL's EVP_BytesToKey does or given with its IV, in any of
-- the modes cbc, ecb, ctr, ofb, cfb1, cfb8, cfb128 and gcm.

local base = require "terrace.base"
local digest = require "terrace.digest"

local native, take, text = base.native, base.take, base.text
local error, pairs, setmetatable, type = error, pairs, setmetatable, type
local rep, sub = string.rep, string.sub

local BLOCK_BYTES, TAG_BYTES, SALT_BYTES = 16, 16, 8
local ENCRYPT, PADDING = 1, 2

local modes = { cbc = 0, ecb = 1, ctr = 2, ofb = 3, cfb128 = 4, cfb = 4, cfb8 = 5, cfb1 = 6, gcm = 7 }
-- What a mode derives of an IV, where that is not a block.
local derived_iv_bytes = { ecb = 0, gcm = 12 }
local sizes = { [128] = true, [192] = true, [256] = true }

local _M = {
    _VERSION = "0.16",
    -- Digests that derive keys.
    hash = {
        md5 = digest.class(digest.MD5), sha1 = digest.class(digest.SHA1), sha224 = digest.class(digest.SHA224),
        sha256 = digest.class(digest.SHA256), sha384 = digest.class(digest.SHA384),
        sha512 = digest.class(digest.SHA512),
    },
}
local mt = { __index = _M }

local is_digest = {}
for _, class in pairs(_M.hash) do
    is_digest[class] = true
end

-- The cipher of a key's bits (128) and a mode ("cbc"); nil where there is none.
function _M.cipher(size, mode)
    size, mode = size or 128, mode or "cbc"
    if not sizes[size] or not modes[mode] then
        return nil
    end
    return { size = size, cipher = mode, method = modes[mode] }
end

-- Key and IV out of a password: digests of the last digest, the password and the salt, until there are enough bytes.
local function derive(class, rounds, password, salt, key_bytes, iv_bytes)
    local made, last = "", ""
    while #made < key_bytes + iv_bytes do
        local state = class:new()
        state:update(last)
        state:update(password)
        if salt then
            state:update(salt)
        end
        last = state:final()
        for _ = 2, rounds do
            state:update(last)
            last = state:final()
        end
        made = made .. last
    end
    return sub(made, 1, key_bytes), sub(made, key_bytes + 1, key_bytes + iv_bytes)
end

local function padded(iv, length)
    return iv .. rep("\0", length - #iv)
end

-- `hash` is one of `aes.hash`, by which `rounds` times the key is derived from `key` and `salt` (8 bytes, or nil), or a table
-- { iv = …, method = function(key) … end? } which gives the IV, and of the key what `method` makes of it. Padding is on
-- unless `enable_padding` is false. Answers nil and an error for lengths that do not fit.
function _M.new(_, key, salt, cipher, hash, rounds, iv_len, enable_padding)
    cipher = cipher or _M.cipher()
    hash = hash or _M.hash.md5
    local key_bytes = cipher.size / 8
    local iv
    if is_digest[hash] then
        if salt and #salt ~= SALT_BYTES then
            return nil, "salt must be 8 characters or nil"
        end
        local mode_bytes = derived_iv_bytes[cipher.cipher] or BLOCK_BYTES
        key, iv = derive(hash, rounds or 1, key, salt, key_bytes, mode_bytes)
        iv_len = iv_len or key_bytes
        iv = padded(sub(iv, 1, iv_len), iv_len)
    elseif type(hash) == "table" then
        iv = hash.iv
        if not iv then
            return nil, "iv is needed"
        elseif #iv > key_bytes then
            return nil, "bad iv length"
        end
        if hash.method then
            key = hash.method(key)
        end
        if #key ~= key_bytes then
            return nil, "bad key length"
        end
    else
        return nil, "failed to generate key and iv"
    end
    return setmetatable({
        _bits = cipher.size, _mode = cipher.method, _key = key, _iv = iv, _is_gcm = cipher.cipher == "gcm",
        _padding = (enable_padding == nil or enable_padding) and PADDING or 0,
    }, mt)
end

local function check_self(self)
    if type(self) ~= "table" then
        error("bad argument #1 self: table expected, got " .. type(self), 3)
    end
end

-- What was encrypted; with GCM a table of that and the tag, which also covers `aad`.
function _M.encrypt(self, data, aad)
    check_self(self)
    aad = aad or ""
    local code = native.cipher_run(self._bits, self._mode, ENCRYPT + self._padding, self._key, self._iv, #self._iv, data,
        #data, aad, #aad, nil, text)
    if code ~= 0 then
        return nil, take()
    end
    local out = take()
    if self._is_gcm then
        return { sub(out, 1, -TAG_BYTES - 1), sub(out, -TAG_BYTES) }
    end
    return out
end

-- The plain text, or nil and an error. GCM needs the tag.
function _M.decrypt(self, data, tag, aad)
    check_self(self)
    aad = aad or ""
    if tag and #tag ~= TAG_BYTES then
        tag = nil
    end
    local code = native.cipher_run(self._bits, self._mode, self._padding, self._key, self._iv, #self._iv, data, #data, aad,
        #aad, tag, text)
    if code ~= 0 then
        return nil, take()
    end
    return take()
end

return _M
