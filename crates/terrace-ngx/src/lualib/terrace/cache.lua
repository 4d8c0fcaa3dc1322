-- The module terrace.cache: the tiered caches of the configuration, with loaders in Lua.
--
-- Strings are stored as they are, so that tiered_cache_pass serves what a script stored. A change of a cache that a fleet
-- shares is waited for.

local ffi = require "ffi"
local base = require "terrace.base"
local codec = require "terrace.cache_codec"

local native, await = base.native, base.await
local decode, encode = codec.decode, codec.encode
local ffi_gc, ffi_string = ffi.gc, ffi.string
local error, ipairs, min, next, pairs, pcall, select, setmetatable, tonumber, tostring, type, unpack =
    error, ipairs, math.min, next, pairs, pcall, select, setmetatable, tonumber, tostring, type, unpack

-- As `Out` in Rust.
local out = ffi.new("struct { const char *data; size_t len; int has_value; int level; double ttl_ms; double token; }")

local DONE, AWAIT, LOAD, REFRESH = 0, 1, 2, 3
local BAD_VERSION = 4
local SOURCE, MISS = 3, -1
-- What is told of a change.
local KEY, PREFIX, TAG = 0, 1, 2
-- As BULK_MAX in Rust.
local BULK_MAX = 300
local CONCURRENCY = 3

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

-- A version as text: digits for a number, so that large ones keep all of theirs; empty if there is none.
local function version_text(version)
    if version == nil then
        return ""
    elseif type(version) == "number" then
        return ("%.0f"):format(version)
    end
    return tostring(version)
end

-- The tags of the value that is stored next.
local function put_tags(tags)
    for _, tag in ipairs(tags or {}) do
        tag = tostring(tag)
        native.cache_tag(tag, #tag)
    end
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

local function finish(self, token, opts, ok, value, err, ttl, more)
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
        native.cache_complete(token, 0, nil, 0, ttl_ms(ttl), nil, 0)
        return nil, nil, SOURCE
    end
    local text, problem = encode(value)
    if not text then
        return fail(token, problem)
    end
    local version = ""
    if type(more) == "table" then
        version = version_text(more.version)
        put_tags(more.tags)
    end
    if native.cache_complete(token, 1, text, #text, ttl_ms(ttl), version, #version) == BAD_VERSION then
        return fail(token, "the loader returned a version that is neither a number nor a time")
    end
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
-- absence that is remembered. `loader(...)` returns value, err, ttl, and a table that may have `version` and `tags`; one
-- runs for a key at a time in the whole server, and where a fleet shares a level, in the fleet.
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

-- How a change ended: its code and number, or nil and an error. Where a fleet shares a level, that level has it too then.
local function changed(code)
    if code == BAD_VERSION then
        return nil, "the version is neither a number nor a time"
    elseif code ~= AWAIT then
        return code, out.token
    end
    local count
    code, count = await()
    if code == base.FAILED then
        return nil, count
    end
    return code, count
end

-- Stores a value for all workers; nil is an absence. True, or false if a newer version is known.
function methods.set(self, key, opts, value)
    key = text_key(key)
    local ttl = ttl_ms(option(self, opts, value == nil and "neg_ttl" or "ttl"))
    local text, code, err
    if value ~= nil then
        text, err = encode(value)
        if not text then
            return nil, err
        end
    end
    local version = version_text(opts and opts.version)
    put_tags(opts and opts.tags)
    code, err = changed(native.cache_set(self.cache, key, #key, text and 1 or 0, text, text and #text or 0, ttl, version,
        #version))
    if not code then
        return nil, err
    end
    return code == DONE
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

-- Drops what is meant: all keys, or those of `opts.key`, `opts.prefix` or `opts.tag`. `opts.version`: values of this version
-- and newer stay; `opts.refresh`: they are served as past their life and renewed. True, nil and how many there were.
function methods.purge(self, opts)
    local which, text = PREFIX, ""
    if opts and opts.key ~= nil then
        which, text = KEY, text_key(opts.key)
    elseif opts and opts.prefix ~= nil then
        text = text_key(opts.prefix)
    elseif opts and opts.tag ~= nil then
        which, text = TAG, text_key(opts.tag)
    end
    local version = version_text(opts and opts.version)
    local refresh = opts and opts.refresh and 1 or 0
    local code, count = changed(native.cache_invalidate(self.cache, which, text, #text, version, #version, refresh, out))
    if not code then
        return nil, count
    end
    return true, nil, count
end

-- A part of the keys, from `first` to `last`, by the cache's own source: one question to the level that a fleet shares.
local function bulk_from_source(self, keys, params, first, last, results)
    for i = first, last do
        local key = text_key(keys[i])
        local given = params
        if type(params) == "function" then
            given = params(key)
        end
        if given then
            load_params(given)
        end
        native.cache_bulk_key(key, #key)
    end
    native.cache_bulk_lookup(self.cache)
    local answers = { await() }
    for i = first, last do
        local at = (i - first) * 3
        local code, value, level = answers[at + 1], answers[at + 2], answers[at + 3]
        if code == DONE then
            results[i] = { value = value and decode(value), level = level }
        else
            results[i] = { err = value }
        end
    end
end

local function bulk_by_loader(self, keys, opts, loader, results, ...)
    local next_one, n = 0, #keys
    local args, count = { ... }, select("#", ...)
    local function run()
        while next_one < n do
            next_one = next_one + 1
            local i = next_one
            local value, err, level = self:get(keys[i], opts, loader, keys[i], unpack(args, 1, count))
            results[i] = { value = value, err = err, level = level }
        end
    end
    local threads = {}
    for i = 1, min(opts and tonumber(opts.concurrency) or CONCURRENCY, n) - 1 do
        threads[i] = ngx.thread.spawn(run)
    end
    run()
    for i = 1, #threads do
        ngx.thread.wait(threads[i])
    end
end

-- Many keys: a table with { value =, err =, level = } for each, in their order. Without a loader the cache's own source loads
-- with `opts.params`, a table or a function of the key that returns one; with one, `loader(key, ...)` loads, for
-- `opts.concurrency` keys at once.
function methods.get_bulk(self, keys, opts, loader, ...)
    if type(keys) ~= "table" then
        error("bad keys (table expected, got " .. type(keys) .. ")", 2)
    end
    local results = {}
    if loader ~= nil then
        bulk_by_loader(self, keys, opts, loader, results, ...)
        return results
    end
    for first = 1, #keys, BULK_MAX do
        bulk_from_source(self, keys, opts and opts.params, first, min(first + BULK_MAX - 1, #keys), results)
    end
    return results
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
