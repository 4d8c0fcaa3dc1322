-- ngx.say, ngx.print, ngx.flush, ngx.eof, ngx.send_headers, ngx.exit, ngx.exec, ngx.redirect.

local base = require "terrace.base"
local sched = require "terrace.sched"

local native, refuse, await = base.native, base.refuse, base.await
local concat, select, tostring, type, error = table.concat, select, tostring, type, error
local null = ngx.null
local leave = sched.exit

local NEST_MAX = 100

-- Appends the text of a value to `out`, arrays flattened.
local function append(out, n, value, position, name, depth)
    local t = type(value)
    if t == "string" or t == "number" then
        out[n + 1] = value
        return n + 1
    elseif t == "boolean" or t == "nil" then
        out[n + 1] = tostring(value)
        return n + 1
    elseif value == null then
        out[n + 1] = "null"
        return n + 1
    elseif t == "table" then
        if depth >= NEST_MAX then
            error("bad argument #" .. position .. " to '" .. name .. "' (the table is nested too deeply)", 4)
        end
        local count = #value
        for key in pairs(value) do
            if type(key) ~= "number" or key < 1 or key > count or key % 1 ~= 0 then
                error("bad argument #" .. position .. " to '" .. name .. "' (non-array table found)", 4)
            end
        end
        for i = 1, count do
            n = append(out, n, value[i], position, name, depth + 1)
        end
        return n
    end
    error("bad argument #" .. position .. " to '" .. name
        .. "' (string, number, boolean, nil, ngx.null, or array table expected, got " .. t .. ")", 4)
end

local failures = { [-2] = "seen eof", [-3] = "nginx output filter error" }

local function written(code)
    if code == 0 then
        return 1
    elseif code == 1 then
        return await()
    elseif failures[code] then
        return nil, failures[code]
    end
    refuse(code, 2)
end

local function write_all(name, newline, ...)
    local parts, n = {}, 0
    for i = 1, select("#", ...) do
        n = append(parts, n, (select(i, ...)), i, name, 0)
    end
    local text = concat(parts)
    return written(native.print(text, #text, newline))
end

function ngx.say(...)
    local text = ...
    if select("#", ...) == 1 and type(text) == "string" then
        return written(native.print(text, #text, 1))
    end
    return write_all("say", 1, ...)
end

function ngx.print(...)
    local text = ...
    if select("#", ...) == 1 and type(text) == "string" then
        return written(native.print(text, #text, 0))
    end
    return write_all("print", 0, ...)
end

function ngx.flush(wait)
    if wait ~= nil and type(wait) ~= "boolean" then
        error("bad argument #1 to 'flush' (boolean expected, got " .. type(wait) .. ")", 2)
    end
    return written(native.flush(wait and 1 or 0))
end

function ngx.eof()
    return written(native.eof())
end

function ngx.send_headers()
    return written(native.send_headers())
end

local RESPONDING, HEADER_FILTER, TIMER, BALANCER, SET, LOG =
    8 + 16 + 32 + 2048, 64, 512, 1024, 4, 256
local band = bit.band

function ngx.exit(code)
    local phase = native.phase()
    if type(code) ~= "number" then
        error("bad argument #1 to 'exit' (number expected, got " .. type(code) .. ")", 2)
    end
    if band(phase, RESPONDING) ~= 0 then
        if native.headers_sent() == 1 and code >= 300 and code ~= 444 and code ~= 408 and code ~= 499 then
            ngx.log(ngx.ERR, "attempt to set status ", code, " via ngx.exit after sending out the response status ",
                native.status())
            code = 200
        end
        return leave(code)
    elseif phase == HEADER_FILTER or phase == BALANCER then
        if code >= 200 then
            native.set_status(code)
        end
        return leave(code)
    elseif phase == TIMER then
        return leave(code)
    end
    refuse(base.BAD_CONTEXT)
end

function ngx.exec(uri, args)
    if type(uri) ~= "string" or uri == "" then
        error("bad argument #1 to 'exec' (string expected, got " .. type(uri) .. ")", 2)
    end
    if native.headers_sent() == 1 then
        error("attempt to call ngx.exec after sending out response headers", 2)
    end
    local query = ""
    if args ~= nil then
        query = type(args) == "table" and ngx.encode_args(args) or tostring(args)
    end
    if uri:byte(1) ~= 64 then
        local at = uri:find("?", 1, true)
        if at then
            local own = uri:sub(at + 1)
            uri = uri:sub(1, at - 1)
            query = query == "" and own or (own .. "&" .. query)
        end
    end
    local code = native.exec(uri, #uri, query, #query)
    if code < 0 then
        refuse(code)
    end
    return leave(0)
end

local redirects = { [301] = true, [302] = true, [303] = true, [307] = true, [308] = true }

function ngx.redirect(uri, status)
    status = status or 302
    if not redirects[status] then
        error("only ngx.HTTP_MOVED_TEMPORARILY, ngx.HTTP_MOVED_PERMANENTLY, ngx.HTTP_PERMANENT_REDIRECT, "
            .. "ngx.HTTP_SEE_OTHER, and ngx.HTTP_TEMPORARY_REDIRECT are allowed", 2)
    end
    local sent = native.headers_sent()
    if sent == 1 then
        error("attempt to call ngx.redirect after sending out the headers", 2)
    end
    if band(native.phase(), RESPONDING) == 0 then
        refuse(base.BAD_CONTEXT)
    end
    uri = tostring(uri)
    if uri:find("[\r\n%z]") then
        error("unsafe byte in redirect uri \"" .. uri:gsub("[%c]", "?") .. "\"", 2)
    end
    native.header_set("Location", 8, uri, #uri, 0)
    return leave(status)
end
