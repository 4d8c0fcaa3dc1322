-- ngx.run_worker_thread, and what its threads run. Values are copied by LuaJIT's string.buffer.

local base = require "terrace.base"

local native, refuse, await = base.native, base.refuse, base.await
local next, pcall, require, select, tostring, type, unpack = next, pcall, require, select, tostring, type, unpack
local upper = string.upper

local DEPTH_MAX = 100

local buffer
local function packer()
    buffer = buffer or require "string.buffer"
    return buffer
end

-- Why a value cannot be copied; nil if it can.
local function refusal(value, depth)
    local t = type(value)
    if t == "table" then
        if depth >= DEPTH_MAX then
            return "suspicious circular references, table depth exceed max depth: " .. DEPTH_MAX
        end
        for k, v in next, value do
            local why = refusal(k, depth + 1) or refusal(v, depth + 1)
            if why then
                return why
            end
        end
    elseif t == "function" or t == "thread" or (t == "userdata" and value ~= ngx.null) then
        return "unsupported Lua type: LUA_T" .. upper(t)
    elseif t == "cdata" then
        return "unsupported Lua type"
    end
end

local function pack(what, from, ...)
    local count = select("#", ...)
    for i = from, count do
        local why = refusal((select(i, ...)), 1)
        if why then
            return nil, why .. " in the " .. what
        end
    end
    local ok, packed = pcall(packer().encode, { n = count - from + 1, select(from, ...) })
    if not ok then
        return nil, packed .. " in the " .. what
    end
    return packed
end

function ngx.run_worker_thread(...)
    local name, module, func = ...
    if select("#", ...) < 3 then
        return false, "expecting at least 3 arguments"
    elseif type(name) ~= "string" then
        return false, "threadpool should be a string"
    end
    local pool = native.thread_pool(name, #name)
    if pool == -1 then
        return false, "thread pool " .. name .. " not found"
    elseif pool < 0 then
        refuse(pool)
    elseif type(module) ~= "string" then
        return false, "module name should be a string"
    elseif type(func) ~= "string" then
        return false, "function name should be a string"
    end
    local packed, err = pack("argument", 4, ...)
    if not packed then
        return false, err
    elseif native.thread_run(pool, module, #module, func, #func, packed, #packed) ~= 1 then
        return false, "ngx_thread_task_post failed"
    end
    packed, err = await()
    if not packed then
        return false, err
    end
    local results = packer().decode(packed)
    return unpack(results, 1, results.n)
end

local function finish(ok, ...)
    if not ok then
        return nil, tostring((...))
    end
    return pack("return value", 1, true, ...)
end

local _M = {}

-- In a pool's thread: calls the function.
function _M.run(module, func, packed)
    local ok, loaded = pcall(require, module)
    if not ok then
        return nil, loaded
    elseif type(loaded) ~= "table" then
        return nil, "invalid lua module"
    elseif type(loaded[func]) ~= "function" then
        return nil, "invalid function"
    end
    local args = packer().decode(packed)
    return finish(pcall(loaded[func], unpack(args, 1, args.n)))
end

return _M
