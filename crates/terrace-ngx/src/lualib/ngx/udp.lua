-- ngx.socket.udp.

local ffi = require "ffi"
local base = require "terrace.base"
local socket = require "terrace.ngx.socket"

local native, refuse, await, text = base.native, base.refuse, base.await, base.text
local refused, check_timeout = socket.refused, socket.check_timeout
local ffi_gc = ffi.gc
local error, setmetatable, tonumber, tostring, type = error, setmetatable, tonumber, tostring, type
local concat, find = table.concat, string.find

local BYTES_MAX = 8192
local NEST_MAX = 100

local methods = {}
local socket_mt = { __index = methods }

function ngx.socket.udp()
    if native.phase() == 1 then
        refuse(base.BAD_CONTEXT)
    end
    return setmetatable({ ffi_gc(native.udp_new(), native.udp_free) }, socket_mt)
end

function methods.settimeout(self, ms)
    native.udp_timeout(self[1], check_timeout(ms))
end

function methods.bind(self, address)
    address = tostring(address)
    if native.udp_bind(self[1], address, #address) ~= 0 then
        return nil, "bad address"
    end
    return 1
end

function methods.setpeername(self, host, port)
    host = tostring(host)
    local number = tonumber(port)
    if not find(host, "^[uU][nN][iI][xX]:") then
        if not number then
            error("bad argument #2 to 'setpeername' (number expected, got " .. type(port) .. ")", 2)
        elseif number < 0 or number > 65535 then
            return nil, "bad port number: " .. number
        end
    end
    local code = native.udp_peer(self[1], host, #host, number or 0, text)
    if code == 0 then
        return 1
    elseif code == 1 then
        return await()
    end
    return refused(code)
end

local function flat(out, value, depth)
    for i = 1, #value do
        local piece = value[i]
        if type(piece) == "table" then
            if depth >= NEST_MAX then
                error("bad argument #1 to 'send' (the table is nested too deeply)", 0)
            end
            flat(out, piece, depth + 1)
        else
            out[#out + 1] = tostring(piece)
        end
    end
    return out
end

function methods.send(self, data)
    local t = type(data)
    if t == "table" then
        data = concat(flat({}, data, 1))
    elseif t == "number" or t == "boolean" or t == "nil" then
        data = tostring(data)
    elseif t ~= "string" then
        error("bad argument #1 to 'send' (string, number, boolean, nil, or array table expected, got " .. t .. ")", 2)
    end
    local code = native.udp_send(self[1], data, #data, text)
    if code == 0 then
        return 1
    end
    return refused(code)
end

function methods.receive(self, size)
    if size ~= nil then
        size = tonumber(size)
        if not size then
            error("bad argument #1 to 'receive' (number expected)", 2)
        end
    end
    local code = native.udp_receive(self[1], size or BYTES_MAX)
    if code == 1 then
        return await()
    end
    return refused(code)
end

function methods.close(self)
    local code = native.udp_close(self[1])
    if code == 0 then
        return 1
    end
    return refused(code)
end
