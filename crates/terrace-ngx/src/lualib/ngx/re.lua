-- ngx.re.match, find, gmatch, sub, gsub, and the module ngx.re.

local ffi = require "ffi"
local base = require "terrace.base"
local new_table = require "table.new"

local native, take, text = base.native, base.take, base.text
local ffi_cast, ffi_gc = ffi.cast, ffi.gc
local band = bit.band
local concat = table.concat
local byte, sub = string.byte, string.sub
local error, setmetatable, tonumber, tostring, type = error, setmetatable, tonumber, tostring, type

-- The part of `Compiled` in Rust that Lua sees.
local compiled_pointer = ffi.typeof("struct { const int *captures; int capture_count; } *")

local ONCE, DUP_NAMES, UTF = 1, 2, 4
-- Expressions without `o` are kept too, but only the last few.
local RECENT_MAX = 64

-- Flags as given -> their bits.
local bits_of_flags = {}
local FLAGS_MAX = 256
local flags_count = 0

-- Flags -> pattern -> what `compile` makes; `kept` by the flag `o`.
local kept, kept_count, kept_max = {}, 0, nil
local recent, recent_count = {}, 0
-- Replacement -> template.
local templates, template_count = {}, 0

local function bits_of(flags)
    local bits = native.re_flags(flags, #flags, text)
    if bits < 0 then
        error(take(), 4)
    end
    if flags_count >= FLAGS_MAX then
        bits_of_flags, flags_count = {}, 0
    end
    bits_of_flags[flags] = bits
    flags_count = flags_count + 1
    return bits
end

-- The names of groups: `names[i]` stands for group `names[i + 1]`.
local function names_of(pointer)
    local names, n = nil, 0
    while true do
        local group = native.re_name(pointer, n, text)
        if group < 0 then
            return names
        end
        names = names or {}
        names[2 * n + 1], names[2 * n + 2] = take(), group
        n = n + 1
    end
end

local function put(cache, flags, pattern, compiled)
    local of_flags = cache[flags]
    if not of_flags then
        of_flags = {}
        cache[flags] = of_flags
    end
    of_flags[pattern] = compiled
end

local function keep_recent(flags, pattern, compiled)
    if recent_count >= RECENT_MAX then
        recent, recent_count = {}, 0
    end
    recent_count = recent_count + 1
    put(recent, flags, pattern, compiled)
end

local function keep(flags, pattern, compiled)
    if not kept_max then
        kept_max = native.re_cache_max()
    end
    if kept_count < kept_max then
        kept_count = kept_count + 1
        put(kept, flags, pattern, compiled)
        return
    end
    if kept_count == kept_max and kept_max > 0 then
        -- Said once.
        kept_count = kept_count + 1
        ngx.log(ngx.WARN, "lua exceeding regex cache max entries (", kept_max, ")")
    end
    keep_recent(flags, pattern, compiled)
end

local function make(pattern, flags, bits)
    local pointer = native.re_compile(pattern, #pattern, flags, #flags, text)
    if pointer == nil then
        return nil, take()
    end
    ffi_gc(pointer, native.re_free)
    local compiled = {
        pointer = pointer,
        view = ffi_cast(compiled_pointer, pointer),
        count = 0,
        names = names_of(pointer),
        dup_names = band(bits, DUP_NAMES) ~= 0,
        utf = band(bits, UTF) ~= 0,
    }
    compiled.count = compiled.view.capture_count
    if band(bits, ONCE) ~= 0 then
        keep(flags, pattern, compiled)
    else
        keep_recent(flags, pattern, compiled)
    end
    return compiled
end

local function compile(pattern, flags)
    flags = flags or ""
    local of_flags = kept[flags]
    local compiled = of_flags and of_flags[pattern]
    if compiled then
        return compiled
    end
    of_flags = recent[flags]
    compiled = of_flags and of_flags[pattern]
    if compiled then
        return compiled
    end
    if type(pattern) ~= "string" then
        if type(pattern) ~= "number" then
            error("bad regex (string expected, got " .. type(pattern) .. ")", 3)
        end
        pattern = tostring(pattern)
    end
    if type(flags) ~= "string" then
        error("bad regex options (string expected, got " .. type(flags) .. ")", 3)
    end
    return make(pattern, flags, bits_of_flags[flags] or bits_of(flags))
end

local function collect_names(names, dup_names, res)
    if not dup_names then
        for i = 1, #names, 2 do
            res[names[i]] = res[names[i + 1]]
        end
        return
    end
    -- With duplicate names each name has the list of its groups that took part.
    for i = 1, #names, 2 do
        res[names[i]] = nil
    end
    for i = 1, #names, 2 do
        local value, list = res[names[i + 1]], res[names[i]]
        if value then
            if list then
                list[#list + 1] = value
            else
                res[names[i]] = { value }
            end
        end
    end
end

-- The groups of the last match.
local function collect(compiled, subject, res)
    local count, names, captures = compiled.count, compiled.names, compiled.view.captures
    if not res then
        res = new_table(count, names and #names / 2 or 0)
    end
    for i = 0, count do
        local from = captures[2 * i]
        res[i] = from >= 0 and sub(subject, from + 1, captures[2 * i + 1])
    end
    if names then
        collect_names(names, compiled.dup_names, res)
    end
    return res
end

local function start_of(ctx)
    local pos = ctx and tonumber(ctx.pos)
    return pos and pos > 1 and pos - 1 or 0
end

-- Where to look on after an empty match at `at` (both from 0).
local function step(compiled, subject, at)
    at = at + 1
    if compiled.utf then
        local b = byte(subject, at + 1)
        while b and b >= 0x80 and b < 0xC0 do
            at = at + 1
            b = byte(subject, at + 1)
        end
    end
    return at
end

local function failure(code)
    if code == -1000 then
        return "no memory"
    end
    return "pcre_exec() failed: " .. code
end

local re = {}
ngx.re = re

function re.match(subject, pattern, flags, ctx, res)
    if type(subject) ~= "string" then
        subject = tostring(subject)
    end
    local compiled, err = compile(pattern, flags)
    if not compiled then
        return nil, err
    end
    local code = native.re_exec(compiled.pointer, subject, #subject, start_of(ctx))
    if code <= 0 then
        if code == 0 then
            return nil
        end
        return nil, failure(code)
    end
    if ctx then
        ctx.pos = compiled.view.captures[1] + 1
    end
    return collect(compiled, subject, res)
end

function re.find(subject, pattern, flags, ctx, nth)
    if type(subject) ~= "string" then
        subject = tostring(subject)
    end
    local compiled, err = compile(pattern, flags)
    if not compiled then
        return nil, nil, err
    end
    local code = native.re_exec(compiled.pointer, subject, #subject, start_of(ctx))
    if code <= 0 then
        if code == 0 then
            return nil
        end
        return nil, nil, failure(code)
    end
    local captures = compiled.view.captures
    if ctx then
        ctx.pos = captures[1] + 1
    end
    if not nth or nth < 0 then
        nth = 0
    end
    if nth > compiled.count then
        return nil, nil, "nth out of bound"
    end
    local from = captures[2 * nth]
    if from < 0 then
        return nil, nil
    end
    return from + 1, captures[2 * nth + 1]
end

local function next_match(self)
    local at, compiled, subject = self.at, self.compiled, self.subject
    if not at then
        return nil
    end
    local code = native.re_exec(compiled.pointer, subject, #subject, at)
    if code <= 0 then
        self.at = nil
        if code == 0 then
            return nil
        end
        return nil, failure(code)
    end
    local captures = compiled.view.captures
    local from, to = captures[0], captures[1]
    if from == to then
        to = step(compiled, subject, to)
        if to > #subject then
            to = nil
        end
    end
    self.at = to
    return collect(compiled, subject)
end

local iterator = { __call = next_match }

function re.gmatch(subject, pattern, flags)
    local compiled, err = compile(pattern, flags)
    if not compiled then
        return nil, err
    end
    return setmetatable({ compiled = compiled, subject = tostring(subject), at = 0 }, iterator)
end

local function template_of(replacement)
    local template = templates[replacement]
    if template then
        return template
    end
    template = native.re_template(replacement, #replacement)
    if template == nil then
        return nil
    end
    ffi_gc(template, native.re_template_free)
    if template_count >= (kept_max or native.re_cache_max()) then
        templates, template_count = {}, 0
    end
    templates[replacement] = template
    template_count = template_count + 1
    return template
end

local function replace_by_function(compiled, subject, replace, global)
    local parts, n, count, copied, at = {}, 0, 0, 0, 0
    while at <= #subject do
        local code = native.re_exec(compiled.pointer, subject, #subject, at)
        if code < 0 then
            return nil, nil, failure(code)
        elseif code == 0 then
            break
        end
        -- The function may use the same expression: take everything before it runs.
        local captures = compiled.view.captures
        local from, to = captures[0], captures[1]
        local piece = tostring(replace(collect(compiled, subject)))
        parts[n + 1], parts[n + 2] = sub(subject, copied + 1, from), piece
        n, count, copied = n + 2, count + 1, to
        if not global then
            break
        end
        at = from == to and step(compiled, subject, to) or to
    end
    if count == 0 then
        return subject, 0
    end
    parts[n + 1] = sub(subject, copied + 1)
    return concat(parts), count
end

local function replace_in(subject, pattern, replace, flags, global)
    if type(subject) ~= "string" then
        subject = tostring(subject)
    end
    local compiled, err = compile(pattern, flags)
    if not compiled then
        return nil, nil, err
    end
    if type(replace) == "function" then
        return replace_by_function(compiled, subject, replace, global)
    elseif type(replace) ~= "string" then
        replace = tostring(replace)
    end
    local template = template_of(replace)
    if not template then
        return nil, nil, "failed to compile the replacement template"
    end
    local count = native.re_sub(compiled.pointer, template, subject, #subject, global and 1 or 0, text)
    if count > 0 then
        return take(), count
    elseif count == 0 then
        return subject, 0
    end
    return nil, nil, failure(count)
end

function re.sub(subject, pattern, replace, flags)
    return replace_in(subject, pattern, replace, flags, false)
end

function re.gsub(subject, pattern, replace, flags)
    return replace_in(subject, pattern, replace, flags, true)
end

local module = {}

-- The pieces of `subject` between the matches (and the first group of each match), in `res`; returns their number and
-- where the rest begins.
local function cut(compiled, subject, start, max, res)
    local n, count, at = 0, 1, start - 1
    local captures = compiled.view.captures
    while start <= #subject and at <= #subject and (max <= 0 or count < max) do
        local code = native.re_exec(compiled.pointer, subject, #subject, at)
        if code < 0 then
            return nil, failure(code)
        elseif code == 0 then
            break
        end
        local from, to = captures[0], captures[1]
        at = from == to and step(compiled, subject, to) or to
        -- An empty match at the beginning of a piece would cut off nothing.
        if from ~= to or from >= start then
            n, count = n + 1, count + 1
            res[n] = sub(subject, start, from)
            if compiled.count > 0 and captures[2] >= 0 then
                n = n + 1
                res[n] = sub(subject, captures[2] + 1, captures[3])
            end
            start = to + 1
        end
    end
    return n, start
end

function module.split(subject, pattern, flags, ctx, max, res)
    subject = tostring(subject)
    max = max or 0
    if res == nil then
        res = {}
    elseif type(res) ~= "table" then
        error("res is not a table", 2)
    end
    local start = start_of(ctx) + 1
    if start > #subject then
        res[1] = nil
        return res
    end
    local compiled, err = compile(pattern, flags)
    if not compiled then
        return nil, err
    end
    local n
    n, start = cut(compiled, subject, start, max, res)
    if not n then
        return nil, start
    end
    if max <= 0 and start > #subject then
        while n > 0 and res[n] == "" do
            res[n] = nil
            n = n - 1
        end
    else
        n = n + 1
        res[n] = sub(subject, start)
    end
    res[n + 1] = nil
    return res
end

function module.opt(option, value)
    if option ~= "jit_stack_size" then
        error("unrecognized option name", 2)
    end
    if kept_count > 0 then
        error("changing jit stack size is not allowed when some regexs have already been compiled and cached", 2)
    end
    if native.re_jit_stack(tonumber(value) or 0, text) ~= 0 then
        error(take(), 2)
    end
end

package.loaded["ngx.re"] = module
