-- The module resty.mlcache over the engine of the tiered caches.
--
-- Where a tiered_cache has the name of the instance or of its dictionary, values are kept there. Else an engine of the
-- dictionary's size takes the dictionary's place; its values carry when they expire, so that `peek` can tell.
--
-- What a VM has decoded it keeps, and uses for as long as the engine has the same text for the key. So no VM ever has a value
-- that another has replaced, and there is nothing for `update` to do.

local ffi = require "ffi"
local base = require "terrace.base"
local codec = require "terrace.cache_codec"
local lrucache = require "resty.lrucache"
local tiered = require "terrace.cache"

local native, await = base.native, base.await
local ffi_gc, ffi_string = ffi.gc, ffi.string
local find, format, sub = string.find, string.format, string.sub
local error, ipairs, max, min, pcall, setmetatable, tonumber, tostring, type, unpack, xpcall =
    error, ipairs, math.max, math.min, pcall, setmetatable, tonumber, tostring, type, unpack, xpcall
local traceback = debug.traceback

-- As `Out` in Rust.
local out = ffi.new("struct { const char *data; size_t len; int has_value; int level; double ttl_ms; double token; }")

local DONE, AWAIT, LOAD = 0, 1, 2
local VM, SHARED, CALLBACK, STALE, MISS = 1, 2, 3, 4, -1
local PREFIX = 1

local LRU_SIZE, TTL, NEG_TTL, CONCURRENCY = 100, 30, 5, 3
-- The life of what never expires, in seconds: ten years.
local FOREVER = 10 * 365 * 86400
-- How an engine's error begins when a load failed, as opposed to one that took too long or was refused.
local FAILED_LOAD = "the source is unavailable"

-- The text of an absence, which no encoded value begins with.
local ABSENT = "\0Tz"

local _M = { _VERSION = "2.7.0", _AUTHOR = "Terrace" }
local methods = {}
local metatable = { __index = methods }

-- Options, checked where they are given.
local function check_number(opts, name, least, above, level)
    local value = opts[name]
    if value == nil then
        return
    end
    if type(value) ~= "number" then
        error("opts." .. name .. " must be a number", level + 1)
    elseif value < least then
        error("opts." .. name .. " must be " .. above, level + 1)
    end
end

local function check_type(opts, name, kind, level)
    if opts[name] ~= nil and type(opts[name]) ~= kind then
        error("opts." .. name .. " must be a " .. kind, level + 1)
    end
end

local function check_common(opts, level)
    check_number(opts, "ttl", 0, ">= 0", level + 1)
    check_number(opts, "neg_ttl", 0, ">= 0", level + 1)
    check_number(opts, "resurrect_ttl", 0, ">= 0", level + 1)
    check_type(opts, "l1_serializer", "function", level + 1)
    check_number(opts, "shm_set_tries", 1, ">= 1", level + 1)
    check_type(opts, "resty_lock_opts", "table", level + 1)
end

-- The options of a call on top of those of the instance.
local function options(self, opts, level)
    if opts == nil then
        return self
    end
    if type(opts) ~= "table" then
        error("opts must be a table", level + 1)
    end
    check_common(opts, level + 1)
    return {
        ttl = opts.ttl or self.ttl,
        neg_ttl = opts.neg_ttl or self.neg_ttl,
        resurrect_ttl = opts.resurrect_ttl or self.resurrect_ttl,
        l1_serializer = opts.l1_serializer or self.l1_serializer,
    }
end

-- What a VM keeps of a value, or nil and why it cannot.
local function serialized(value, serializer)
    if value == nil or not serializer then
        return value
    end
    local ok, result, err = pcall(serializer, value)
    if not ok then
        return nil, "l1_serializer threw an error: " .. tostring(result)
    elseif err then
        return nil, tostring(err)
    elseif result == nil then
        return nil, "l1_serializer returned a nil value"
    end
    return result
end

-- A value as an engine of its own keeps it: when it expires (0: never), a letter (s: it was resurrected), the value.
local function pack(text, ttl, letter)
    return format("%.3f", ttl == 0 and 0 or ngx.now() + ttl) .. letter .. text
end

local function encode(value)
    if value == nil then
        return ABSENT
    end
    local kind = type(value)
    if kind ~= "string" and kind ~= "number" and kind ~= "boolean" and kind ~= "table" then
        return nil, nil, "cannot cache value of type " .. kind
    end
    local text, err = codec.encode(value)
    if not text then
        return nil, "could not serialize value for lua_shared_dict insertion: could not encode table value: " .. err
    end
    return text
end

-- The value, when it expires, whether it was resurrected.
local function unpacked(raw)
    local at = find(raw, "[vs]")
    local text = sub(raw, at + 1)
    local value
    if text ~= ABSENT then
        value = codec.decode(text)
    end
    return value, tonumber(sub(raw, 1, at - 1)), sub(raw, at, at) == "s"
end

local function life_ms(ttl)
    return (ttl == 0 and FOREVER or ttl) * 1000
end

-- The engine: a tiered cache of the configuration, or the one in the dictionary's place. Not known before the first use,
-- because there are none yet while init_by_lua runs.
local function open(self)
    local cache = tiered.new(self.name) or tiered.new(self.shm)
    if cache then
        self.tiered = cache
        return
    end
    local own = native.cache_of_dictionary(self.shm, #self.shm, ngx.shared[self.shm]:capacity())
    if own == nil then
        error("no request found", 3)
    end
    self.own = ffi_gc(own, native.cache_close)
end

local function engine(self)
    if not self.own and not self.tiered then
        open(self)
    end
    return self.tiered
end

-- What the VM keeps, if it is of this text; else it is decoded and kept.
local function adopt(self, key, raw, o)
    local item = self.lru:get(key)
    if item and item.raw == raw then
        return item.value, nil, VM
    end
    local value, _, resurrected = unpacked(raw)
    local err
    value, err = serialized(value, o.l1_serializer)
    if err then
        return nil, err
    end
    self.lru:set(key, { raw = raw, value = value })
    return value, nil, resurrected and STALE or SHARED
end

-- Ends a load without a value. The text of a stale one, if there is one.
local function give_up(token, message)
    if native.cache_fail(token, message, #message, out) == DONE and out.has_value == 1 then
        return ffi_string(out.data, out.len)
    end
end

-- Stores a stale value anew, so that it is served for a while.
local function resurrect(self, key, full, stale, o, err)
    local ttl = o.resurrect_ttl
    ngx.log(ngx.WARN, "callback returned an error (", err, ") but stale value found in shm will be resurrected for ", ttl,
        "s (resurrect_ttl)")
    local at = find(stale, "[vs]")
    local raw = pack(sub(stale, at + 1), ttl, "s")
    native.cache_set(self.own, full, #full, 1, raw, #raw, life_ms(ttl), nil, 0)
    local value, problem = adopt(self, key, raw, o)
    if problem then
        return nil, problem
    end
    return value, nil, STALE
end

local function finish(self, key, full, token, o, ok, value, err, ttl)
    if not ok then
        local message = "callback threw an error: " .. tostring(value)
        give_up(token, message)
        return nil, message
    elseif err then
        err = tostring(err)
        local stale = give_up(token, err)
        if stale and o.resurrect_ttl then
            return resurrect(self, key, full, stale, o, err)
        end
        return value, err
    end
    if type(ttl) ~= "number" then
        ttl = value == nil and o.neg_ttl or o.ttl
    end
    local text, problem, bad_type = encode(value)
    local kept
    if text then
        kept, problem = serialized(value, o.l1_serializer)
    end
    if problem or bad_type then
        give_up(token, problem or bad_type)
        if bad_type then
            error(bad_type, 0)
        end
        return nil, problem
    end
    if ttl < 0 then
        local raw = pack(text, 0, "v")
        native.cache_complete(token, 1, raw, #raw, 0, nil, 0)
        return value, nil, CALLBACK
    end
    local raw = pack(text, ttl, "v")
    native.cache_complete(token, 1, raw, #raw, life_ms(ttl), nil, 0)
    self.lru:set(key, { raw = raw, value = kept })
    return kept, nil, CALLBACK
end

-- A lookup in an engine of its own. Whoever waited for a callback that failed runs its own.
local function get_own(self, key, o, callback, ...)
    local full = self.prefix .. key
    while true do
        local code = native.cache_begin(self.own, full, #full, out)
        if code == DONE then
            return adopt(self, key, ffi_string(out.data, out.len), o)
        elseif code == LOAD then
            return finish(self, key, full, out.token, o, xpcall(callback, traceback, ...))
        elseif code == base.NO_REQUEST then
            error("no request found", 3)
        elseif code ~= AWAIT then
            return nil, "could not acquire callback lock: " .. ffi_string(out.data, out.len)
        end
        local how, first, level = await()
        if how == LOAD then
            return finish(self, key, full, first, o, xpcall(callback, traceback, ...))
        elseif how == DONE and level ~= STALE then
            return adopt(self, key, first, o)
        elseif how ~= DONE and sub(first, 1, #FAILED_LOAD) ~= FAILED_LOAD then
            return nil, "could not acquire callback lock: timeout"
        end
    end
end

-- What memory has: the text, or nil; whether it is fresh.
local function peek_own(self, key)
    local full = self.prefix .. key
    if native.cache_peek(self.own, full, #full, out) ~= DONE then
        return
    end
    return ffi_string(out.data, out.len), out.ttl_ms > 0
end

-- A lookup in a tiered cache of the configuration, whose settings say what becomes of old values.
local function get_tiered(self, key, o, callback, ...)
    local cache = self.tiered
    if not callback then
        local value, _, level = cache:peek(key)
        if level == MISS or level == STALE then
            return nil, nil, MISS
        end
        return value, nil, level
    end
    local bad_type
    local function loader(...)
        local ok, value, err, ttl = xpcall(callback, traceback, ...)
        if not ok then
            return nil, "callback threw an error: " .. tostring(value)
        elseif err then
            return nil, tostring(err)
        end
        local _, problem, bad = encode(value)
        if problem or bad then
            bad_type = bad
            return nil, problem or bad
        end
        if type(ttl) ~= "number" then
            ttl = value == nil and o.neg_ttl or o.ttl
        end
        return value, nil, ttl < 0 and 0 or life_ms(ttl) / 1000
    end
    local value, err, level = cache:get(key, nil, loader, ...)
    if bad_type then
        error(bad_type, 0)
    elseif err then
        return nil, err
    end
    return value, nil, level
end

-- The l1_serializer on what a tiered cache gave. Strings tell whether they are what was serialized before.
local function serialize_tiered(self, key, o, value, err, level)
    if err then
        return value, err
    elseif value == nil or not o.l1_serializer then
        return value, nil, level
    end
    local item = type(value) == "string" and self.lru:get(key)
    if item and item.raw == value then
        return item.value, nil, level
    end
    local kept, problem = serialized(value, o.l1_serializer)
    if problem then
        return nil, problem
    end
    self.lru:set(key, { raw = value, value = kept })
    return kept, nil, level
end

function methods.get(self, key, opts, callback, ...)
    if type(key) ~= "string" then
        error("key must be a string", 2)
    elseif callback ~= nil and type(callback) ~= "function" then
        error("callback must be nil or a function", 2)
    end
    local o = options(self, opts, 2)
    if engine(self) then
        return serialize_tiered(self, key, o, get_tiered(self, key, o, callback, ...))
    elseif callback then
        return get_own(self, key, o, callback, ...)
    end
    local raw, fresh = peek_own(self, key)
    if not fresh then
        return nil, nil, MISS
    end
    return adopt(self, key, raw, o)
end

-- The seconds of life that remain (negative: of a stale value; 0: without end), nil, the value.
function methods.peek(self, key, stale)
    if type(key) ~= "string" then
        error("key must be a string", 2)
    end
    if engine(self) then
        local value, _, level, ttl = self.tiered:peek(key)
        if level == MISS or level == STALE and not stale then
            return nil
        end
        return level == STALE and -1 or ttl, nil, value
    end
    local raw, fresh = peek_own(self, key)
    if not raw or not fresh and not stale then
        return nil
    end
    local value, expires = unpacked(raw)
    if expires == 0 then
        return 0, nil, value
    end
    local ttl = expires - ngx.now()
    -- The two clocks are read at different times.
    return fresh and max(ttl, 0.001) or min(ttl, -0.001), nil, value
end

-- How a change ended.
local function changed(code)
    if code ~= AWAIT then
        return true
    end
    local how, err = await()
    if how == base.FAILED then
        return nil, err
    end
    return true
end

function methods.set(self, key, opts, value)
    if type(key) ~= "string" then
        error("key must be a string", 2)
    end
    local o = options(self, opts, 2)
    local text, problem, bad_type = encode(value)
    if bad_type then
        error(bad_type, 2)
    elseif problem then
        return nil, problem
    end
    local kept
    kept, problem = serialized(value, o.l1_serializer)
    if problem then
        return nil, problem
    end
    local ttl = value == nil and o.neg_ttl or o.ttl
    if engine(self) then
        local life = life_ms(ttl) / 1000
        local ok, err = self.tiered:set(key, { ttl = life, neg_ttl = life }, value)
        if ok == nil then
            return nil, "could not write to lua_shared_dict '" .. self.shm .. "': " .. err
        end
        return true
    end
    local full, raw = self.prefix .. key, pack(text, ttl, "v")
    changed(native.cache_set(self.own, full, #full, 1, raw, #raw, life_ms(ttl), nil, 0))
    self.lru:set(key, { raw = raw, value = kept })
    return true
end

function methods.delete(self, key)
    if type(key) ~= "string" then
        error("key must be a string", 2)
    end
    self.lru:delete(key)
    if engine(self) then
        local ok, err = self.tiered:delete(key)
        if ok == nil then
            return nil, "could not delete from shm: " .. err
        end
        return true
    end
    local full = self.prefix .. key
    return changed(native.cache_delete(self.own, full, #full))
end

-- Drops what instances of this name have. `flush_expired` means what is done anyway.
function methods.purge(self)
    if self.lru.flush_all then
        self.lru:flush_all()
    end
    if engine(self) then
        local ok, err = self.tiered:purge()
        return ok, err
    end
    return changed(native.cache_invalidate(self.own, PREFIX, self.prefix, #self.prefix, nil, 0, 0, out))
end

-- Every VM always sees what the others did.
function methods.update()
    return true
end

local bulk_methods = {}
local bulk_metatable = { __index = bulk_methods }

function bulk_methods.add(self, key, opts, callback, arg)
    local at = self.n * 4
    self[at + 1], self[at + 2], self[at + 3], self[at + 4] = key, opts, callback, arg
    self.n = self.n + 1
end

-- A list of lookups for get_bulk, with a method `add(key, opts, callback, arg)`.
function _M.new_bulk()
    return setmetatable({ n = 0 }, bulk_metatable)
end

local function each(res, i)
    i = i + 1
    local at = (i - 1) * 3
    if at < res.n then
        return i, res[at + 1], res[at + 2], res[at + 3]
    end
end

-- Iterates over what get_bulk returned: number, value, error, level.
function _M.each_bulk_res(res)
    if type(res) ~= "table" or not res.n then
        error("res must have res.n field; is this a get_bulk() result?", 2)
    end
    return each, res, 0
end

local function check_bulk(self, bulk)
    for i = 1, bulk.n do
        local at = (i - 1) * 4
        local key, opts, callback = bulk[at + 1], bulk[at + 2], bulk[at + 3]
        if type(key) ~= "string" then
            error("key at index " .. at + 1 .. " must be a string for operation " .. i .. " (got " .. type(key) .. ")", 3)
        elseif type(callback) ~= "function" then
            error("callback at index " .. at + 3 .. " must be a function for operation " .. i .. " (got "
                .. type(callback) .. ")", 3)
        end
        local ok, err = pcall(options, self, opts, 0)
        if not ok then
            error("options at index " .. at + 2 .. " for operation " .. i .. " are invalid: " .. tostring(err), 3)
        end
    end
end

-- The lookups of `bulk`, { key, opts, callback, arg, ..., n = lookups }, as { value, err, level, ..., n = fields }.
function methods.get_bulk(self, bulk, opts)
    if type(bulk) ~= "table" then
        error("bulk must be a table", 2)
    elseif not bulk.n then
        error("bulk must have n field", 2)
    end
    local concurrency = CONCURRENCY
    if opts then
        if type(opts) ~= "table" then
            error("opts must be a table", 2)
        elseif opts.concurrency then
            if type(opts.concurrency) ~= "number" then
                error("opts.concurrency must be a number", 2)
            elseif opts.concurrency <= 0 then
                error("opts.concurrency must be > 0", 2)
            end
            concurrency = opts.concurrency
        end
    end
    check_bulk(self, bulk)
    local res, next_one = { n = bulk.n * 3 }, 0
    local function run()
        while next_one < bulk.n do
            local at = next_one
            next_one = next_one + 1
            local key, o, callback, arg = unpack(bulk, at * 4 + 1, at * 4 + 4)
            local ok, value, err, level = pcall(self.get, self, key, o, callback, arg)
            if not ok then
                value, err, level = nil, tostring(value), nil
            end
            res[at * 3 + 1], res[at * 3 + 2], res[at * 3 + 3] = value, err, level
        end
    end
    local threads = {}
    for i = 1, min(concurrency, bulk.n) - 1 do
        threads[i] = ngx.thread.spawn(run)
    end
    run()
    for i = 1, #threads do
        ngx.thread.wait(threads[i])
    end
    return res
end

local function check_new(name, shm, opts)
    if type(name) ~= "string" then
        error("name must be a string", 3)
    elseif type(shm) ~= "string" then
        error("shm must be a string", 3)
    elseif opts == nil then
        return
    elseif type(opts) ~= "table" then
        error("opts must be a table", 3)
    end
    check_type(opts, "lru_size", "number", 3)
    check_common(opts, 3)
    check_type(opts, "ipc_shm", "string", 3)
    if opts.ipc_shm and opts.ipc then
        error("cannot specify both of opts.ipc_shm and opts.ipc", 3)
    end
    check_type(opts, "ipc", "table", 3)
    for _, name in ipairs({ "register_listeners", "broadcast", "poll" }) do
        if opts.ipc and type(opts.ipc[name]) ~= "function" and (name ~= "poll" or opts.ipc.poll ~= nil) then
            error("opts.ipc." .. name .. " must be a function", 3)
        end
    end
    check_type(opts, "shm_miss", "string", 3)
    check_type(opts, "shm_locks", "string", 3)
end

-- An instance. Instances of one name and dictionary share their values.
function _M.new(name, shm, opts)
    check_new(name, shm, opts)
    opts = opts or {}
    for _, dict in ipairs({ "shm_miss", "shm_locks" }) do
        if opts[dict] and not ngx.shared[opts[dict]] then
            return nil, "no such lua_shared_dict for opts." .. dict .. ": " .. opts[dict]
        end
    end
    if not ngx.shared[shm] and not tiered.new(name) and not tiered.new(shm) then
        return nil, "no such lua_shared_dict: " .. shm
    end
    local self = {
        name = name,
        shm = shm,
        prefix = name .. "\0",
        ttl = opts.ttl or TTL,
        neg_ttl = opts.neg_ttl or NEG_TTL,
        resurrect_ttl = opts.resurrect_ttl,
        l1_serializer = opts.l1_serializer,
    }
    local err
    self.lru = opts.lru
    if not self.lru then
        self.lru, err = lrucache.new(opts.lru_size or LRU_SIZE)
    end
    if not self.lru then
        return nil, err
    end
    return setmetatable(self, metatable)
end

return _M
