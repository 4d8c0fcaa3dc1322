-- The module terrace.cache: the tiered caches of the configuration, with loaders in Lua.
--
-- Strings are stored as they are, so that tiered_cache_pass serves what a script stored. Other values carry a tag.

local ffi = require "ffi"
local base = require "terrace.base"
local cjson = require "cjson.safe"

local native, await = base.native, base.await
local ffi_gc, ffi_string = ffi.gc, ffi.string
local byte, sub = string.byte, string.sub
local error, next, pairs, pcall, setmetatable, tonumber, tostring, type =
    error, next, pairs, pcall, setmetatable, tonumber, tostring, type

-- As `Out` in Rust.
local out = ffi.new("struct { const char *data; size_t len; int has_value; int level; double ttl_ms; double token; }")

local DONE, AWAIT, LOAD, REFRESH = 0, 1, 2, 3
local SOURCE, MISS = 3, -1

-- A value that is no string begins with these two bytes and a letter; a string that begins with them is tagged too.
local TAG = "\0T"
local TAG_1, TAG_2 = byte(TAG, 1, 2)

local function encode(value)
    local t = type(value)
    if t == "string" then
        if byte(value, 1) == TAG_1 and byte(value, 2) == TAG_2 then
            return TAG .. "s" .. value
        end
        return value
    elseif t == "number" then
        return TAG .. "n" .. ("%.17g"):format(value)
    elseif t == "boolean" then
        return TAG .. (value and "t" or "f")
    elseif t == "table" then
        local json, err = cjson.encode(value)
        if not json then
            return nil, "cannot encode the value: " .. err
        end
        return TAG .. "j" .. json
    end
    return nil, "cannot cache a value of type " .. t
end

local function decode(text)
    if byte(text, 1) ~= TAG_1 or byte(text, 2) ~= TAG_2 then
        return text
    end
    local kind, rest = sub(text, 3, 3), sub(text, 4)
    if kind == "s" then
        return rest
    elseif kind == "n" then
        return tonumber(rest)
    elseif kind == "t" then
        return true
    elseif kind == "f" then
        return false
    elseif kind == "j" then
        return cjson.decode(rest)
    end
    return text
end

-- The answer that lies in `out`.
local function answer()
    local level = out.level
    if out.has_value == 0 then
        return nil, nil, level
    end
    return decode(ffi_string(out.data, out.len)), nil, level
end

local function failed()
    return nil, ffi_string(out.data, out.len)
end

local function text_key(key)
    if type(key) == "number" then
        key = tostring(key)
    end
    if type(key) ~= "string" or key == "" then
        error("bad key (non-empty string expected, got " .. (key == "" and "an empty one" or type(key)) .. ")", 3)
    end
    return key
end

-- Milliseconds of a life in seconds; -1 leaves it to the cache.
local function ttl_ms(ttl)
    if ttl == nil then
        return -1
    end
    local n = tonumber(ttl)
    if not n then
        error("bad ttl (number expected, got " .. type(ttl) .. ")", 3)
    end
    return n > 0 and n * 1000 or 0
end

local function option(self, opts, name)
    local value = opts and opts[name]
    if value == nil then
        value = self.opts and self.opts[name]
    end
    return value
end

-- Ends the load without a value: a stale one may stand in.
local function fail(token, message)
    local code = native.cache_fail(token, message, #message, out)
    if code ~= DONE then
        return nil, message
    end
    ngx.log(ngx.WARN, "a stale value stands in for a load that failed: ", message)
    return answer()
end

local function finish(self, token, opts, ok, value, err, ttl)
    if not ok then
        return fail(token, "the loader threw an error: " .. tostring(value))
    elseif err ~= nil then
        return fail(token, tostring(err))
    end
    if ttl == nil then
        ttl = option(self, opts, value == nil and "neg_ttl" or "ttl")
    end
    if ttl ~= nil and not tonumber(ttl) then
        return fail(token, "the loader returned a ttl of type " .. type(ttl))
    end
    if value == nil then
        native.cache_complete(token, 0, nil, 0, ttl_ms(ttl))
        return nil, nil, SOURCE
    end
    local text, problem = encode(value)
    if not text then
        return fail(token, problem)
    end
    native.cache_complete(token, 1, text, #text, ttl_ms(ttl))
    return value, nil, SOURCE
end

-- The token of a refresh, or nil if the level that the fleet shares had a newer value.
local function ready(number)
    local code = native.cache_ready(number, out)
    if code == LOAD then
        return out.token
    elseif code == AWAIT then
        local how, token = await()
        return how == LOAD and token or nil
    end
end

local function refresh(_, self, parked, opts, loader, ...)
    local token = ready(native.cache_unpark(parked))
    if token then
        finish(self, token, opts, pcall(loader, ...))
    end
end

-- Answers with a stale value and lets a timer renew it; without timers the caller does, and has the new value.
local function refresh_later(self, token, opts, loader, ...)
    local value, err, level = answer()
    local at = ngx.timer and ngx.timer.at
    local parked = at and native.cache_park(token) or 0
    if parked == 0 then
        token = ready(token)
        if not token then
            return value, err, level
        end
        local new, problem, new_level = finish(self, token, opts, pcall(loader, ...))
        if problem then
            return value, err, level
        end
        return new, nil, new_level
    end
    if not at(0, refresh, self, parked, opts, loader, ...) then
        refresh(nil, self, parked, opts, loader, ...)
    end
    return value, err, level
end

-- How a wait ended: an answer, an error, or the right to load.
local function woken(self, opts, loader, code, first, second)
    if code == DONE then
        return false, first and decode(first), nil, second
    elseif code == LOAD then
        return first
    end
    return false, nil, first
end

local function load_params(params)
    for name, value in pairs(params) do
        name, value = tostring(name), tostring(value)
        if native.cache_param(name, #name, value, #value) ~= DONE then
            error("too many params", 3)
        end
    end
end

local function from_source(self, key, params)
    if params and next(params) ~= nil then
        load_params(params)
    end
    local code = native.cache_lookup(self.cache, key, #key, out)
    if code == DONE then
        return answer()
    elseif code == AWAIT then
        local _, value, err, level = woken(self, nil, nil, await())
        return value, err, level
    end
    return failed()
end

local methods = {}
local metatable = { __index = methods }

-- The value of a key, and where it came from: 1 memory, 2 the shared level, 3 loader or source, 4 stale. nil without an error is an
-- absence that is remembered. `loader(...)` returns value, err, ttl; one runs for a key at a time in the whole server.
function methods.get(self, key, opts, loader, ...)
    key = text_key(key)
    if loader == nil then
        return from_source(self, key, opts and opts.params)
    end
    local code = native.cache_begin(self.cache, key, #key, out)
    if code == DONE then
        return answer()
    end
    local token
    if code == LOAD then
        token = out.token
    elseif code == REFRESH then
        return refresh_later(self, out.token, opts, loader, ...)
    elseif code == AWAIT then
        local value, err, level
        token, value, err, level = woken(self, opts, loader, await())
        if not token then
            return value, err, level
        end
    elseif code == base.NO_REQUEST then
        error("no request found", 2)
    else
        return failed()
    end
    return finish(self, token, opts, pcall(loader, ...))
end

-- What memory holds: value, nil, level (-1 if nothing) and the seconds that it stays fresh.
function methods.peek(self, key)
    key = text_key(key)
    if native.cache_peek(self.cache, key, #key, out) ~= DONE then
        return nil, nil, MISS
    end
    local ttl = out.ttl_ms / 1000
    local value, err, level = answer()
    return value, err, level, ttl
end

-- How a change ended: its code, or nil and an error. Where a fleet shares a level, that level has it too then.
local function changed(code)
    local err
    if code == AWAIT then
        code, err = await()
    end
    if err then
        return nil, err
    end
    return code
end

-- Stores a value for all workers; nil is an absence.
function methods.set(self, key, opts, value)
    key = text_key(key)
    local ttl = ttl_ms(option(self, opts, value == nil and "neg_ttl" or "ttl"))
    local code, err
    if value == nil then
        code, err = changed(native.cache_set(self.cache, key, #key, 0, nil, 0, ttl))
    else
        local text
        text, err = encode(value)
        if not text then
            return nil, err
        end
        code, err = changed(native.cache_set(self.cache, key, #key, 1, text, #text, ttl))
    end
    if not code then
        return nil, err
    end
    return true
end

-- Whether there was something to delete; a load under way does not bring it back.
function methods.delete(self, key)
    key = text_key(key)
    local code, err = changed(native.cache_delete(self.cache, key, #key))
    if not code then
        return nil, err
    end
    return code == DONE
end

function methods.purge(self)
    local code, err = changed(native.cache_purge(self.cache))
    if not code then
        return nil, err
    end
    return true
end

local _M = {}

-- The tiered_cache of this name in the configuration. `opts.ttl` and `opts.neg_ttl` are lives in seconds for what this
-- object stores, where neither the call nor the loader says more; without them the cache's own apply.
function _M.new(name, opts)
    if type(name) ~= "string" then
        error("bad name (string expected, got " .. type(name) .. ")", 2)
    end
    local cache = native.cache_open(name, #name)
    if cache == nil then
        return nil, "unknown tiered cache \"" .. name .. "\""
    end
    return setmetatable({ name = name, opts = opts, cache = ffi_gc(cache, native.cache_close) }, metatable)
end

function _M.get_cache(name)
    return _M.new(name)
end

return _M
