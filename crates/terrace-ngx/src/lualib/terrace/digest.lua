-- The digest classes and the random source behind resty.md5, resty.sha1 .. resty.sha512 and resty.random.
--
-- The work is native: `terrace.native` has the C functions that the binary provides. This is the
-- only Lua file that knows its shape:
--
--     void *digest_new(int algorithm);                            NULL: unknown algorithm or no memory
--     int   digest_update(void *, const char *, size_t);          1: taken, 0: failed
--     int   digest_final(void *, unsigned char *out);             length of the digest, 0: failed; out holds 64 bytes
--     void  digest_reset(void *);
--     void  digest_free(void *);
--     int   random_bytes(unsigned char *out, size_t length);      1: filled, 0: no randomness to be had

local ffi = require "ffi"
local native = require "terrace.native"

local ffi_gc = ffi.gc
local ffi_new = ffi.new
local ffi_string = ffi.string
local null = ffi.null or ffi_new("void *")
local setmetatable = setmetatable
local tostring = tostring
local type = type

local DIGEST_BYTES_MAX = 64
-- One request for randomness may not ask for more than this.
local RANDOM_BYTES_MAX = 1048576

local _M = {
    _VERSION = "0.1.0",
    MD5 = 1,
    SHA1 = 2,
    SHA224 = 3,
    SHA256 = 4,
    SHA384 = 5,
    SHA512 = 6,
}

local out = ffi_new("unsigned char[?]", DIGEST_BYTES_MAX)
local digest_free = function(handle) native.digest_free(handle) end


-- The class of one algorithm, with the methods that scripts know: new, update, final, reset.
function _M.class(algorithm)
    local class = { _VERSION = _M._VERSION }
    local mt = { __index = class }

    -- An object that takes data, or nil when the algorithm cannot be had.
    function class.new(_)
        local handle = native.digest_new(algorithm)
        if handle == null then
            return nil
        end
        return setmetatable({ _handle = ffi_gc(handle, digest_free) }, mt)
    end

    -- Adds a string, or its first `length` bytes. Returns whether it was taken.
    function class.update(self, data, length)
        if type(data) ~= "string" then
            data = tostring(data)
        end
        if not length or length > #data or length < 0 then
            length = #data
        end
        return native.digest_update(self._handle, data, length) == 1
    end

    -- The binary digest of all data since new or reset, or nil.
    function class.final(self)
        local length = native.digest_final(self._handle, out)
        if length <= 0 then
            return nil
        end
        return ffi_string(out, length)
    end

    -- Forgets all data, so that the object can be used again.
    function class.reset(self)
        native.digest_reset(self._handle)
        return true
    end

    return class
end


-- A string of `length` random bytes from the operating system, or nil.
function _M.random_bytes(length)
    if type(length) ~= "number" or length < 0 or length > RANDOM_BYTES_MAX then
        return nil
    end
    local bytes = ffi_new("unsigned char[?]", length)
    if native.random_bytes(bytes, length) ~= 1 then
        return nil
    end
    return ffi_string(bytes, length)
end


return _M
