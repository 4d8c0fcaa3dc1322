-- What every area of the ngx API shares: the native functions, text buffers, error codes.

local ffi = require "ffi"
local native = require "terrace.native"
local sched = require "terrace.sched"

local ffi_string = ffi.string
local error, type = error, type

local text = ffi.new("terrace_text[2]")
-- A reference: code that is interpreted would make one at each use.
local first = text[0]

local phases = {
    [1] = "init_by_lua*", [2] = "init_worker_by_lua*", [4] = "set_by_lua*", [8] = "rewrite_by_lua*",
    [16] = "access_by_lua*", [32] = "content_by_lua*", [64] = "header_filter_by_lua*",
    [128] = "body_filter_by_lua*", [256] = "log_by_lua*", [512] = "ngx.timer", [1024] = "balancer_by_lua*",
    [2048] = "server_rewrite_by_lua*", [4096] = "exit_worker_by_lua*",
    [8192] = "precontent_by_lua*", [16384] = "ssl_client_hello_by_lua*", [32768] = "ssl_certificate_by_lua*",
    [65536] = "ssl_session_fetch_by_lua*", [131072] = "ssl_session_store_by_lua*",
    [262144] = "proxy_ssl_certificate_by_lua*", [524288] = "proxy_ssl_verify_by_lua*",
}

local _M = {
    native = native,
    -- Two buffers for what native functions give; text[0] is the one that `take` reads.
    text = text,
    AWAIT = 1, DONE = 0, NOT_FOUND = -1, NO_REQUEST = -100, BAD_CONTEXT = -101, FAILED = -102,
    await = sched.await,
}

-- The string that the last native call left.
function _M.take()
    return ffi_string(first.data, first.len)
end

-- Raises Lua's error for an argument of the caller's caller that is no string.
function _M.check_string(value, position, name)
    if type(value) ~= "string" then
        error("bad argument #" .. position .. " to '" .. name .. "' (string expected, got " .. type(value) .. ")", 3)
    end
end

-- Raises what NO_REQUEST and BAD_CONTEXT mean, for the caller of the API function.
function _M.refuse(code, level)
    if code == -100 then
        error("no request found", (level or 1) + 2)
    end
    error("API disabled in the context of " .. (phases[native.phase()] or "unknown"), (level or 1) + 2)
end

-- As `refuse`, where OpenResty does not say which context it is.
function _M.refuse_here(code, level)
    if code == -100 then
        error("no request found", (level or 1) + 2)
    end
    error("API disabled in the current context", (level or 1) + 2)
end

-- Answers of functions that either are done or wait.
function _M.settle(code)
    if code == 1 then
        return sched.await()
    end
    return code
end

local metatable = {}
_M.metatable = metatable
-- Fields of `ngx` that are computed: name -> function.
_M.getters = {}
_M.setters = {}

local getters, setters = _M.getters, _M.setters
local rawset = rawset

metatable.__index = function(_, key)
    local get = getters[key]
    if get then
        return get()
    end
end

metatable.__newindex = function(ngx, key, value)
    local set = setters[key]
    if set then
        return set(value)
    end
    rawset(ngx, key, value)
end

setmetatable(ngx, metatable)

return _M
