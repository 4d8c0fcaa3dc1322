-- The body functions of ngx.req.

local base = require "terrace.base"

local native, take, refuse, text, await = base.native, base.take, base.refuse, base.text, base.await
local list, collect = base.list, base.collect
local leave = require("terrace.sched").exit
local band = bit.band
local error, tonumber, tostring, type = error, tonumber, tostring, type
local req = ngx.req

local READ, DISCARDED, IN_FILE = 1, 2, 4
local ARGS_MAX = 100

-- A body that cannot be read ends the request.
function req.read_body()
    local code = native.read_body()
    if code == 1 then
        code = await()
    end
    if code > 0 then
        return leave(code)
    elseif code < 0 then
        refuse(code)
    end
end

local function state()
    local bits = native.body_state()
    if bits < 0 then
        refuse(bits, 2)
    end
    return bits
end

function req.discard_body()
    local code = native.body_discard()
    if code < 0 then
        refuse(code)
    end
end

function req.get_body_data(max)
    state()
    if native.body_data(max or -1, text) ~= 0 then
        return nil
    end
    return take()
end

function req.get_body_file()
    state()
    if native.body_file(text) ~= 0 then
        return nil
    end
    return take()
end

function req.get_post_args(max)
    local bits = state()
    if band(bits, DISCARDED) ~= 0 then
        return {}
    elseif band(bits, READ) == 0 then
        error("no request body found; maybe you should turn on lua_need_request_body?", 2)
    elseif band(bits, IN_FILE) ~= 0 then
        return nil, "request body in temp file not supported"
    end
    native.body_args(max or ARGS_MAX, list)
    return collect()
end

-- Raises for the API's caller unless the body may be replaced.
local function replaceable()
    local bits = native.body_state()
    if bits < 0 then
        refuse(bits, 2)
    elseif band(bits, DISCARDED) ~= 0 then
        error("request body already discarded asynchronously", 3)
    elseif band(bits, READ) == 0 then
        error("request body not read yet", 3)
    end
end

local function expect_string(value, name)
    local t = type(value)
    if t == "number" then
        return tostring(value)
    elseif t ~= "string" then
        error("bad argument #1 to '" .. name .. "' (string expected, got "
            .. (value == nil and "no value" or t) .. ")", 3)
    end
    return value
end

function req.set_body_data(data)
    data = expect_string(data, "set_body_data")
    replaceable()
    native.body_set_data(data, #data)
end

function req.set_body_file(path, auto_clean)
    path = expect_string(path, "set_body_file")
    replaceable()
    if native.body_set_file(path, #path, auto_clean and 1 or 0, text) ~= 0 then
        error(take(), 2)
    end
end

function req.init_body(size)
    if size ~= nil then
        size = tonumber(size)
        if not size or size < 0 then
            error("bad size argument: " .. tostring(size), 2)
        end
    end
    replaceable()
    native.body_init(size or -1)
end

-- Codes of body_append and body_finish.
local function made(code)
    if code == -1 then
        error("request_body not initialized", 3)
    elseif code == base.FAILED then
        error(take(), 3)
    elseif code < 0 then
        refuse(code, 2)
    end
end

function req.append_body(data)
    data = expect_string(data, "append_body")
    made(native.body_append(data, #data, text))
end

function req.finish_body()
    made(native.body_finish())
end

-- Bodies are read whole, with read_body; the connection itself is not given away.
function req.socket()
    return nil, "not supported"
end
