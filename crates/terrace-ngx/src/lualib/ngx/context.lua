-- ngx.ctx, ngx.arg, ngx.get_phase, ngx.headers_sent, ngx.is_subrequest.

local ffi = require "ffi"
local base = require "terrace.base"

local native, take, refuse, text = base.native, base.take, base.refuse_here, base.text
local getters, setters = base.getters, base.setters
local error, type = error, type

local contexts = {}
base.contexts = contexts
local is_new = ffi.new("int[1]")

local function key_of_request()
    local key = native.context(is_new)
    if key < 0 then
        refuse(key, 2)
    end
    return key
end

function getters.ctx()
    local key = key_of_request()
    local ctx = contexts[key]
    if is_new[0] ~= 0 or not ctx then
        ctx = {}
        contexts[key] = ctx
    end
    return ctx
end

function setters.ctx(value)
    if type(value) ~= "table" then
        error("ctx should be a table while getting a " .. type(value), 3)
    end
    contexts[key_of_request()] = value
end

function getters.headers_sent()
    local sent = native.headers_sent()
    if sent < 0 then
        refuse(sent, 2)
    end
    return sent == 1
end

function getters.is_subrequest()
    return native.is_subrequest() == 1
end

local names = {
    [1] = "init", [2] = "init_worker", [4] = "set", [8] = "rewrite", [16] = "access", [32] = "content",
    [64] = "header_filter", [128] = "body_filter", [256] = "log", [512] = "timer", [1024] = "balancer",
    [2048] = "server_rewrite", [4096] = "exit_worker", [8192] = "precontent",
    [16384] = "ssl_client_hello", [32768] = "ssl_cert",
    [65536] = "ssl_session_fetch", [131072] = "ssl_session_store",
    [262144] = "proxy_ssl_cert", [524288] = "proxy_ssl_verify",
}

function ngx.get_phase()
    return names[native.phase()]
end

-- In a body filter ngx.arg[1] is the piece of body and ngx.arg[2] whether it is the last; in set_by_lua the
-- directive's arguments.
local function body_index(key)
    if key == 1 then
        native.body_arg(text)
        return take()
    elseif key == 2 then
        return native.body_arg(text) == 1
    end
end

local function flat(value)
    if type(value) == "table" then
        local parts = {}
        for i, v in ipairs(value) do
            parts[i] = flat(v)
        end
        return table.concat(parts)
    end
    if value == nil then
        return ""
    elseif type(value) ~= "string" and type(value) ~= "number" then
        error("bad chunk data type: " .. type(value), 3)
    end
    return tostring(value)
end

ngx.arg = setmetatable({}, {
    __index = function(_, key)
        local phase = native.phase()
        if phase == 128 then
            return body_index(key)
        elseif phase == 4 then
            return type(key) == "number" and native.set_arg(key, text) == 0 and take() or nil
        end
        error("API disabled in the current context", 2)
    end,
    __newindex = function(_, key, value)
        if native.phase() ~= 128 then
            error("API disabled in the current context", 2)
        end
        if key == 1 then
            local data = flat(value)
            native.set_body_arg(data, #data)
        elseif key == 2 then
            native.set_body_last(value and 1 or 0)
        else
            error("bad index: " .. tostring(key), 2)
        end
    end,
})
