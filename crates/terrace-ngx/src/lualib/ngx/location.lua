-- ngx.location.capture, ngx.location.capture_multi.

local base = require "terrace.base"

local native, take, refuse, text, await = base.native, base.take, base.refuse, base.text, base.await
local list, collect, encode_args, contexts = base.list, base.collect, base.encode_args, base.contexts
local error, next, tonumber, tostring, type, unpack = error, next, tonumber, tostring, type, unpack

local FORWARD_BODY, COPY_VARS, SHARE_VARS = 1, 2, 4
local GET = 2
-- How many subrequests one call may make.
local SUBREQUESTS_MAX = 1000

-- All errors below are those of the API's caller, three functions up.
local LEVEL = 4

local function text_option(options, name, message)
    local value = options[name]
    local t = type(value)
    if t == "number" then
        return tostring(value)
    elseif t ~= "string" and t ~= "nil" then
        error(message, LEVEL)
    end
    return value
end

local function flag(options, name)
    local value = options[name]
    if value ~= nil and type(value) ~= "boolean" then
        error("Bad " .. name .. " option value", LEVEL)
    end
    return value
end

-- Names and values of an option that changes the subrequest last made.
local function set_each(options, name, set)
    local values = options[name]
    if values == nil then
        return
    elseif type(values) ~= "table" then
        error("Bad " .. name .. " option value", LEVEL)
    end
    for key, value in next, values do
        if type(key) ~= "string" then
            error("attempt to use a non-string key in the \"" .. name .. "\" option table", LEVEL)
        end
        local t = type(value)
        if t ~= "string" and t ~= "number" then
            error("attempt to use bad variable value type " .. t, LEVEL)
        end
        value = tostring(value)
        local code = set(key, #key, value, #value)
        if code ~= 0 then
            error("failed to adjust the subrequest: " .. (code == -5 and 500 or -1), LEVEL)
        end
    end
end

local function query_of(options)
    local args = options.args
    local t = type(args)
    if t == "table" then
        return (encode_args(args, LEVEL))
    elseif t == "number" then
        return tostring(args)
    elseif t ~= "string" and t ~= "nil" then
        error("Bad args option value", LEVEL)
    end
    return args or ""
end

local none = {}

-- Makes one subrequest.
local function add(uri, options, index, name)
    if type(uri) == "number" then
        uri = tostring(uri)
    elseif type(uri) ~= "string" then
        error("bad argument #1 to '" .. name .. "' (string expected, got " .. type(uri) .. ")", 3)
    end
    if options == nil then
        options = none
    elseif type(options) ~= "table" then
        error("expecting table as the 2nd argument for subrequest " .. index .. ", but got " .. type(options), 3)
    end
    local query = query_of(options)
    local flags = 0
    if flag(options, "share_all_vars") then
        flags = SHARE_VARS
    end
    if flag(options, "copy_all_vars") then
        flags = flags + COPY_VARS
    end
    if options.always_forward_body then
        flags = flags + FORWARD_BODY
    end
    local method = options.method
    if method ~= nil and type(method) ~= "number" then
        error("Bad http request method", 3)
    end
    local ctx = options.ctx
    if ctx ~= nil and type(ctx) ~= "table" then
        error("Bad ctx option value type " .. type(ctx) .. ", expected a Lua table", 3)
    end
    local body = text_option(options, "body", "Bad http request body")
    local code = native.capture_add(uri, #uri, query, #query, body, body and #body or 0, method or GET, flags)
    if code == -2 then
        error("unsafe uri in argument #1: " .. uri, 3)
    elseif code == -3 then
        error("failed to issue subrequest: -1", 3)
    elseif code == -4 then
        error("failed to adjust the subrequest: -1", 3)
    elseif code < 0 then
        refuse(code, 2)
    end
    set_each(options, "headers", native.capture_header)
    set_each(options, "vars", native.capture_var)
    if ctx then
        contexts[native.capture_context()] = ctx
    end
end

local function result(id, n)
    local status = native.capture_result(id, n, text)
    local body = take()
    native.capture_headers(id, n, list)
    local header = collect()
    header["Content-Length"] = tonumber(header["Content-Length"])
    return { status = status, header = header, body = body, truncated = native.capture_truncated(id, n) == 1 }
end

local function begin()
    local code = native.capture_begin()
    if code < 0 then
        refuse(code, 2)
    end
end

ngx.location = {}

function ngx.location.capture(uri, options)
    begin()
    add(uri, options, 0, "capture")
    native.capture_run()
    local id = await()
    local one = result(id, 0)
    native.capture_end(id)
    return one
end

function ngx.location.capture_multi(requests)
    if type(requests) ~= "table" then
        error("bad argument #1 to 'capture_multi' (table expected, got " .. type(requests) .. ")", 2)
    end
    local count = #requests
    if count == 0 then
        error("at least one subrequest should be specified", 2)
    elseif count > SUBREQUESTS_MAX then
        error("too many subrequests", 2)
    end
    begin()
    for i = 1, count do
        local one = requests[i]
        if one == nil then
            error("only array-like tables are allowed", 2)
        elseif type(one) ~= "table" then
            error("the query argument " .. (i - 1) .. " is not a table, but a " .. type(one), 2)
        elseif #one ~= 1 and #one ~= 2 then
            error("query argument " .. (i - 1) .. " expecting one or two arguments", 2)
        end
        add(one[1], one[2], i - 1, "capture_multi")
    end
    native.capture_run()
    local id = await()
    local all = {}
    for i = 1, count do
        all[i] = result(id, i - 1)
    end
    native.capture_end(id)
    return unpack(all, 1, count)
end
