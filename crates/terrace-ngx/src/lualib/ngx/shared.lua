-- ngx.shared: one object for each lua_shared_dict, with the dictionary's address at [1].

local ffi = require "ffi"
local base = require "terrace.base"

local native, text = base.native, base.text
local dict_get, dict_store, dict_incr =
    native.dict_get, native.dict_store, native.dict_incr
local ffi_cast, ffi_string = ffi.cast, ffi.string
local error, setmetatable, tonumber, tostring, type = error, setmetatable, tonumber, tostring, type

-- As `Out` in Rust.
local out = ffi.new [[
    struct { const char *data; size_t len; double number; uint32_t flags; int stale; char room[4096]; }
]]
local size_pointer = ffi.typeof("const uint32_t *")

local NIL, BOOLEAN, NUMBER, STRING = 0, 1, 3, 4
local SET, ADD, REPLACE, SAFE_SET, SAFE_ADD = 0, 1, 2, 3, 4
local KEY_BYTES_MAX = 65535
local KEYS_DEFAULT_MAX = 1024

local errors = {}
for code = -1, -100, -1 do
    if native.dict_error(code, text) ~= 0 then
        break
    end
    errors[code] = base.take()
end

local function address(dict)
    local pointer = type(dict) == "table" and dict[1]
    if type(pointer) ~= "cdata" then
        error("bad \"zone\" argument", 3)
    end
    return pointer
end

-- The key as a string, or nil and why there is none.
local function text_key(key)
    if key == nil then
        return nil, "nil key"
    end
    if type(key) ~= "string" then
        key = tostring(key)
    end
    if #key == 0 then
        return nil, "empty key"
    elseif #key > KEY_BYTES_MAX then
        return nil, "key too long"
    end
    return key
end

local function ttl_ms(seconds, name)
    local n = tonumber(seconds)
    if not n or n < 0 then
        error("bad \"" .. name .. "\" argument", 3)
    end
    return n * 1000
end

local function store(dict, operation, key, value, exptime, flags)
    local pointer = address(dict)
    local ttl = exptime and ttl_ms(exptime, "exptime") or 0
    local err
    key, err = text_key(key)
    if not key then
        return nil, err
    end
    local code
    local kind = type(value)
    if kind == "string" then
        code = dict_store(pointer, operation, key, #key, STRING, value, #value, 0, ttl, flags or 0)
    elseif kind == "number" then
        code = dict_store(pointer, operation, key, #key, NUMBER, nil, 0, value, ttl, flags or 0)
    elseif kind == "boolean" then
        code = dict_store(pointer, operation, key, #key, BOOLEAN, nil, 0, value and 1 or 0, ttl, flags or 0)
    elseif value == nil then
        code = dict_store(pointer, operation, key, #key, NIL, nil, 0, 0, ttl, flags or 0)
    else
        return nil, "bad value type"
    end
    if code >= 0 then
        return true, nil, code == 1
    end
    return false, errors[code], false
end

-- The value that lies in `out`.
local function fetched(kind)
    if kind == STRING then
        return ffi_string(out.data, out.len)
    elseif kind == NUMBER then
        return out.number
    elseif kind == BOOLEAN then
        return out.number ~= 0
    end
end

local methods = {}

function methods.get(dict, key)
    local pointer = address(dict)
    local err
    key, err = text_key(key)
    if not key then
        return nil, err
    end
    local kind = dict_get(pointer, key, #key, 0, out)
    if kind == NIL then
        return nil
    elseif kind < 0 then
        return nil, errors[kind]
    end
    local value, flags = fetched(kind), out.flags
    if flags ~= 0 then
        return value, flags
    end
    return value
end

function methods.get_stale(dict, key)
    local pointer = address(dict)
    local err
    key, err = text_key(key)
    if not key then
        return nil, err
    end
    local kind = dict_get(pointer, key, #key, 1, out)
    if kind == NIL then
        return nil
    elseif kind < 0 then
        return nil, errors[kind]
    end
    local value, flags = fetched(kind), out.flags
    if flags ~= 0 then
        return value, flags, out.stale == 1
    end
    return value, nil, out.stale == 1
end

function methods.set(dict, key, value, exptime, flags)
    return store(dict, SET, key, value, exptime, flags)
end

function methods.safe_set(dict, key, value, exptime, flags)
    return store(dict, SAFE_SET, key, value, exptime, flags)
end

function methods.add(dict, key, value, exptime, flags)
    return store(dict, ADD, key, value, exptime, flags)
end

function methods.safe_add(dict, key, value, exptime, flags)
    return store(dict, SAFE_ADD, key, value, exptime, flags)
end

function methods.replace(dict, key, value, exptime, flags)
    return store(dict, REPLACE, key, value, exptime, flags)
end

function methods.delete(dict, key)
    return store(dict, SET, key, nil)
end

local function number_of(value, name)
    local n = tonumber(value)
    if not n then
        error("bad " .. name .. " arg: number expected, got " .. type(value), 3)
    end
    return n
end

function methods.incr(dict, key, value, init, init_ttl)
    local pointer = address(dict)
    local err
    key, err = text_key(key)
    if not key then
        return nil, err
    end
    value = number_of(value, "value")
    local ttl = 0
    if init then
        init = number_of(init, "init")
    end
    if init_ttl ~= nil then
        ttl = ttl_ms(number_of(init_ttl, "init_ttl"), "init_ttl")
        if not init then
            error("must provide \"init\" when providing \"init_ttl\"", 2)
        end
    end
    local code = dict_incr(pointer, key, #key, value, init and 1 or 0, init or 0, ttl, out)
    if code < 0 then
        return nil, errors[code]
    elseif not init then
        return out.number
    end
    return out.number, nil, code == 1
end

local function push(dict, left, key, value)
    local pointer = address(dict)
    local err
    key, err = text_key(key)
    if not key then
        return nil, err
    end
    local code
    if type(value) == "string" then
        code = native.dict_push(pointer, left, key, #key, STRING, value, #value, 0, out)
    elseif type(value) == "number" then
        code = native.dict_push(pointer, left, key, #key, NUMBER, nil, 0, value, out)
    else
        return nil, "bad value type"
    end
    if code < 0 then
        return nil, errors[code]
    end
    return out.number
end

function methods.lpush(dict, key, value)
    return push(dict, 1, key, value)
end

function methods.rpush(dict, key, value)
    return push(dict, 0, key, value)
end

local function pop(dict, left, key)
    local pointer = address(dict)
    local err
    key, err = text_key(key)
    if not key then
        return nil, err
    end
    local kind = native.dict_pop(pointer, left, key, #key, out)
    if kind == NIL then
        return nil
    elseif kind < 0 then
        return nil, errors[kind]
    end
    return fetched(kind)
end

function methods.lpop(dict, key)
    return pop(dict, 1, key)
end

function methods.rpop(dict, key)
    return pop(dict, 0, key)
end

function methods.llen(dict, key)
    local pointer = address(dict)
    local err
    key, err = text_key(key)
    if not key then
        return nil, err
    end
    local code = native.dict_length(pointer, key, #key, out)
    if code < 0 then
        return nil, errors[code]
    end
    return out.number
end

function methods.ttl(dict, key)
    local pointer = address(dict)
    local err
    key, err = text_key(key)
    if not key then
        return nil, err
    end
    local code = native.dict_ttl(pointer, key, #key, out)
    if code < 0 then
        return nil, errors[code]
    end
    return out.number / 1000
end

function methods.expire(dict, key, exptime)
    local pointer = address(dict)
    local ttl = ttl_ms(exptime, "exptime")
    local err
    key, err = text_key(key)
    if not key then
        return nil, err
    end
    local code = native.dict_expire(pointer, key, #key, ttl)
    if code < 0 then
        return nil, errors[code]
    end
    return true
end

function methods.flush_all(dict)
    native.dict_flush_all(address(dict))
end

local function count(value, default, name)
    if value == nil then
        return default
    end
    local n = tonumber(value)
    if not n then
        error("bad argument #1 to '" .. name .. "' (number expected, got " .. type(value) .. ")", 3)
    end
    return n > 0 and n or 0
end

function methods.flush_expired(dict, max)
    local pointer = address(dict)
    return native.dict_flush_expired(pointer, count(max, 0, "flush_expired"))
end

function methods.get_keys(dict, max)
    local pointer = address(dict)
    local n = native.dict_keys(pointer, count(max, KEYS_DEFAULT_MAX, "get_keys"), text)
    local keys, at = {}, text[0].data
    for i = 1, n do
        local len = ffi_cast(size_pointer, at)[0]
        keys[i] = ffi_string(at + 4, len)
        at = at + 4 + len
    end
    return keys
end

function methods.capacity(dict)
    return native.dict_capacity(address(dict))
end

function methods.free_space(dict)
    return native.dict_free_space(address(dict))
end

local metatable = { __index = methods }

ngx.shared = {}
local dicts = require "terrace.dicts"
for i = 1, #dicts, 2 do
    ngx.shared[dicts[i]] = setmetatable({ ffi_cast("void *", dicts[i + 1]) }, metatable)
end
