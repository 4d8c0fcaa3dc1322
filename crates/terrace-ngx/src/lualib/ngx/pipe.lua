-- The module ngx.pipe: other processes and what goes through their pipes.

local ffi = require "ffi"
local base = require "terrace.base"

local native, take, text, await = base.native, base.take, base.text, base.await
local concat, error, find, pairs, setmetatable, tonumber, tostring, type =
    table.concat, error, string.find, pairs, setmetatable, tonumber, tostring, type
local ffi_gc, ffi_new, ffi_string = ffi.gc, ffi.new, ffi.string

local FAILED = base.FAILED
local STDIN, STDOUT, STDERR = 0, 1, 2
local LINE, BYTES, ANY, ALL = 0, 1, 2, 3
local TIMEOUT_MAX = 0xffffffff

local _M = { version = "0.1.29" }
local methods = {}
local process_mt = { __index = methods }

local function process_of(self)
    if type(self) ~= "table" or type(self[1]) ~= "cdata" then
        error("not a process instance", 3)
    end
    return self[1]
end

local function check_timeout(value, name)
    if not value then
        return -1
    elseif value < 0 or value > TIMEOUT_MAX then
        error("bad " .. name .. " option", 4)
    end
    return value
end

local function set_timeouts(process, write, stdout, stderr, wait)
    write, stdout = check_timeout(write, "write_timeout"), check_timeout(stdout, "stdout_read_timeout")
    stderr, wait = check_timeout(stderr, "stderr_read_timeout"), check_timeout(wait, "wait_timeout")
    native.process_timeouts(process, write, stdout, stderr, wait)
end

function methods.set_timeouts(self, write, stdout, stderr, wait)
    set_timeouts(process_of(self), write, stdout, stderr, wait)
end

function methods.pid(self)
    return native.process_pid(process_of(self))
end

local function read(self, pipe, kind, size)
    local code = native.process_read(self[1], pipe, kind, size, text)
    if code == 0 then
        return take()
    elseif code == 1 then
        return await()
    elseif code == FAILED then
        local err, partial = text[0], text[1]
        return nil, ffi_string(err.data, err.len), ffi_string(partial.data, partial.len)
    end
    base.refuse(code, 2)
end

for name, pipe in pairs { stdout = STDOUT, stderr = STDERR } do
    methods[name .. "_read_all"] = function(self)
        process_of(self)
        return read(self, pipe, ALL, 0)
    end

    methods[name .. "_read_line"] = function(self)
        process_of(self)
        return read(self, pipe, LINE, 0)
    end

    methods[name .. "_read_bytes"] = function(self, len)
        process_of(self)
        if len < 0 then
            error("bad len argument", 2)
        elseif len == 0 then
            return ""
        end
        return read(self, pipe, BYTES, len)
    end

    methods[name .. "_read_any"] = function(self, max)
        process_of(self)
        max = tonumber(max)
        if not max or max <= 0 then
            error("bad max argument", 2)
        end
        return read(self, pipe, ANY, max)
    end
end

function methods.write(self, data)
    local process = process_of(self)
    local t = type(data)
    if t == "table" then
        data = concat(data)
    elseif t == "number" then
        data = tostring(data)
    elseif t ~= "string" then
        error("bad data arg: string, number, or table expected, got " .. t, 2)
    end
    local code = native.process_write(process, data, #data, text)
    if code == 0 then
        return tonumber(text[0].len)
    elseif code == 1 then
        local sent, err = await()
        return sent, err == "broken pipe" and "closed" or err
    end
    return nil, take()
end

local directions = { stdin = STDIN, stdout = STDOUT, stderr = STDERR }

function methods.shutdown(self, direction)
    local process = process_of(self)
    local pipe = directions[direction]
    if not pipe then
        error("bad shutdown arg: " .. tostring(direction), 2)
    elseif native.process_shutdown(process, pipe, text) == 0 then
        return true
    end
    return nil, take()
end

function methods.wait(self)
    if native.process_wait(process_of(self), text) == 1 then
        return await()
    end
    return nil, take()
end

function methods.kill(self, signal)
    local process = process_of(self)
    if type(signal) ~= "number" then
        error("bad signal arg: number expected, got " .. tostring(signal), 2)
    elseif native.process_kill(process, signal, text) == 0 then
        return true
    end
    return nil, take()
end

local function read_args(args)
    local t = type(args)
    if t == "string" then
        return "/bin/sh\0-c\0" .. args .. "\0"
    elseif t ~= "table" then
        error("bad args arg: table expected, got " .. t, 3)
    elseif #args == 0 then
        error("bad args arg: non-empty table expected", 3)
    end
    local list = {}
    for i = 1, #args do
        list[i] = tostring(args[i])
    end
    return concat(list, "\0") .. "\0"
end

local function read_environ(environ)
    if type(environ) ~= "table" then
        error("bad environ option: table expected, got " .. type(environ), 3)
    end
    for i = 1, #environ do
        local entry = environ[i]
        if type(entry) ~= "string" then
            error("bad value at index " .. i .. " of environ option: string expected, got " .. type(entry), 3)
        elseif not find(entry, "=", 2, true) then
            error("bad value at index " .. i .. " of environ option: 'name=[value]' format expected, got '"
                .. entry .. "'", 3)
        end
    end
    return #environ > 0 and concat(environ, "\0") .. "\0" or ""
end

local code = ffi_new("int[1]")

function _M.spawn(args, opts)
    if ngx.get_phase() == "init" then
        error("API disabled in the current context", 2)
    end
    local packed, environ, merge = read_args(args), nil, 0
    if opts then
        if opts.buffer_size ~= nil and (tonumber(opts.buffer_size) or 0) < 1 then
            error("bad buffer_size option", 2)
        end
        merge = opts.merge_stderr and 1 or 0
        if opts.environ ~= nil then
            environ = read_environ(opts.environ)
        end
    end
    local process = native.process_spawn(packed, #packed, environ, environ and #environ or 0, merge, code, text)
    if code[0] == FAILED then
        return nil, take()
    elseif code[0] ~= 0 then
        base.refuse(code[0])
    end
    process = ffi_gc(process, native.process_free)
    if opts then
        set_timeouts(process, opts.write_timeout, opts.stdout_read_timeout, opts.stderr_read_timeout, opts.wait_timeout)
    end
    return setmetatable({ process }, process_mt)
end

return _M
