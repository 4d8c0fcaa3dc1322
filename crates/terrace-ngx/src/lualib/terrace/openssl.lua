-- Libraries that call OpenSSL by FFI expect its symbols in the process, as nginx has them. They are loaded from the system
-- when the first of their declarations is seen.

local ffi = require "ffi"

local cdef, load = ffi.cdef, ffi.load
local find, pcall, type = string.find, pcall, type

-- Newest first.
local libraries = { "libcrypto.so.3", "libcrypto.so.1.1" }
local prefixes = { "%f[%w]EVP_", "%f[%w]SHA%d*_", "%f[%w]MD5_", "%f[%w]RAND_", "%f[%w]HMAC_", "%f[%w]ERR_", "%f[%w]RSA_" }

local is_loaded = false

local function names_openssl(text)
    for i = 1, #prefixes do
        if find(text, prefixes[i]) then
            return true
        end
    end
    return false
end

function ffi.cdef(text, ...)
    if not is_loaded and type(text) == "string" and names_openssl(text) then
        is_loaded = true
        for i = 1, #libraries do
            if pcall(load, libraries[i], true) then
                break
            end
        end
    end
    return cdef(text, ...)
end
