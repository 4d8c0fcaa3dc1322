-- ngx.say, ngx.print, ngx.flush, ngx.eof, ngx.send_headers, ngx.exit, ngx.exec, ngx.redirect.

local base = require "terrace.base"
local sched = require "terrace.sched"

local native, refuse = base.native, base.refuse
local error, select, tostring, type = error, select, tostring, type
local leave = sched.exit

local writers = require "terrace.print"
local answered = writers.answered
local FILTERED = 2

-- A function that writes its arguments. A single string, the usual argument, goes by a call that traces compile through: in a
-- function of its own, as LuaJIT compiles no function of any number of arguments for itself.
local function writer(write_any, newline)
    local function write_one(value)
        if type(value) ~= "string" then
            return write_any(value)
        end
        local code = native.print_now(value, #value, newline)
        if code == 0 then
            return 1
        elseif code == FILTERED then
            return write_any(value)
        end
        return answered(code)
    end

    return function(...)
        if select("#", ...) == 1 then
            return write_one(...)
        end
        return write_any(...)
    end
end

ngx.say, ngx.print = writer(writers.say, 1), writer(writers.print, 0)

function ngx.flush(wait)
    if wait ~= nil and type(wait) ~= "boolean" then
        error("bad argument #1 to 'flush' (boolean expected, got " .. type(wait) .. ")", 2)
    end
    return writers.flush(wait)
end

ngx.eof, ngx.send_headers = writers.eof, writers.send_headers

local RESPONDING, HEADER_FILTER, TIMER, BALANCER, SET, LOG, HANDSHAKE =
    8 + 16 + 32 + 2048 + 8192, 64, 512, 1024, 4, 256, 16384 + 32768 + 65536 + 131072
    + 262144 + 524288
local band = bit.band

function ngx.exit(code)
    local phase = native.phase()
    if type(code) ~= "number" then
        error("bad argument #1 to 'exit' (number expected, got " .. type(code) .. ")", 2)
    end
    if code == ngx.AGAIN or code == ngx.DONE then
        error("bad argument to 'ngx.exit': does not accept NGX_AGAIN or NGX_DONE", 2)
    end
    if band(phase, RESPONDING) ~= 0 then
        if native.headers_sent() == 1 and code >= 300 and code ~= 444 and code ~= 408 and code ~= 499 then
            local sent = native.status()
            if code ~= sent then
                local line = "attempt to set status " .. code .. " via ngx.exit after sending out the response status "
                    .. sent
                native.log(ngx.ERR, line, #line)
            end
            code = 200
        end
        return leave(code)
    elseif phase == BALANCER then
        if code >= 200 then
            native.set_status(code)
        end
        return leave(code)
    elseif phase == TIMER or phase == HEADER_FILTER or band(phase, HANDSHAKE) ~= 0 then
        return leave(code)
    end
    refuse(base.BAD_CONTEXT)
end

local function query_of(args)
    local kind = type(args)
    if kind == "table" then
        return ngx.encode_args(args)
    elseif kind == "string" or kind == "number" then
        return tostring(args)
    elseif args == nil then
        return ""
    end
    error("bad argument #2 to 'exec' (string, number, or table expected, but got " .. kind .. ")", 3)
end

function ngx.exec(uri, args, ...)
    if select("#", ...) > 0 then
        error("expecting one or two arguments, but got " .. select("#", ...) + 2, 2)
    end
    if type(uri) == "number" then
        uri = tostring(uri)
    elseif type(uri) ~= "string" then
        error("bad argument #1 to 'exec' (string expected, got " .. type(uri) .. ")", 2)
    end
    if uri == "" then
        error("The uri argument is empty", 2)
    end
    if band(native.phase(), RESPONDING) == 0 then
        refuse(base.BAD_CONTEXT)
    end
    if native.headers_sent() == 1 then
        error("attempt to call ngx.exec after sending out response headers", 2)
    end
    local query = query_of(args)
    local code = native.exec(uri, #uri, query, #query)
    if code == -2 then
        error("unsafe uri", 2)
    elseif code < 0 then
        refuse(code)
    end
    return leave(0)
end

local redirects = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

local function escaped(byte)
    return ("\\x%02X"):format(byte:byte())
end

function ngx.redirect(uri, status, ...)
    if select("#", ...) > 0 then
        error("expecting one or two arguments", 2)
    elseif type(uri) ~= "string" and type(uri) ~= "number" then
        error("bad argument #1 to 'redirect' (string expected, got " .. (uri == nil and "nil" or type(uri)) .. ")", 2)
    end
    status = status or 302
    if not redirects[status] then
        error("only ngx.HTTP_MOVED_TEMPORARILY, ngx.HTTP_MOVED_PERMANENTLY, ngx.HTTP_PERMANENT_REDIRECT, "
            .. "ngx.HTTP_SEE_OTHER, and ngx.HTTP_TEMPORARY_REDIRECT are allowed", 2)
    end
    if band(native.phase(), RESPONDING) == 0 then
        refuse(base.BAD_CONTEXT)
    end
    if native.headers_sent() == 1 then
        error("attempt to call ngx.redirect after sending out the headers", 2)
    end
    uri = tostring(uri)
    local unsafe = uri:match("[%c]")
    if unsafe then
        error(("unsafe byte \"0x%02x\" in redirect uri \"%s\""):format(unsafe:byte(), (uri:gsub('[%c"\\]', escaped))), 2)
    end
    native.header_set("Location", 8, uri, #uri, 0)
    return leave(status)
end
