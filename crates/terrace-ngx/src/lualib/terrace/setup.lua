-- Runs once in a fresh VM, with the address of the native functions, their declaration, and names and addresses of the
-- shared dictionaries by turns: makes `require "terrace.native"` and the `ngx` table.

local pointer, declaration = ...

local ffi = require "ffi"
-- Declarations are the process's, not the VM's table's: a second VM on this thread must not declare again.
if not pcall(ffi.typeof, "struct terrace_native") then
    ffi.cdef(declaration)
end
-- A table: code that is interpreted would search the fields of the struct from the first on at each call.
local struct, functions = ffi.cast("struct terrace_native *", pointer), {}
for name in declaration:match("struct terrace_native (%b{})"):gmatch("%(%*([%w_]+)%)%(") do
    functions[name] = struct[name]
end
package.loaded["terrace.native"] = functions
package.loaded["terrace.dicts"] = { select(3, ...) }

-- Modules of lua-resty-core call C functions of nginx, so a copy of it on the path must not stand before ours.
local builtin = package.loaders[#package.loaders]
setmetatable(package.preload, {
    __index = function(_, name)
        if type(name) == "string" and (name:find("^ngx%.") or name:find("^resty%.core")) then
            local loader = builtin(name)
            return type(loader) == "function" and loader or nil
        end
    end,
})

ngx = {}

-- The order matters only where one area builds on another.
local areas = {
    "constants", "time", "encode", "ndk", "req", "body", "context", "location", "log", "output", "header", "var", "sleep", "socket", "udp", "thread", "timer", "worker", "worker_thread", "re", "shared",
}
for _, area in ipairs(areas) do
    require("terrace.ngx." .. area)
end
require "terrace.openssl"
require "terrace.system_packages"

package.loaded["ngx"] = ngx
require "resty.core"

-- Globals live as long as the worker and are every request's: whoever makes one while serving is told.
local INITIAL = 1 + 2
local native, traceback, getinfo = package.loaded["terrace.native"], debug.traceback, debug.getinfo
local log, WARN = ngx.log, ngx.WARN
setmetatable(_G, {
    __newindex = function(globals, key, value)
        rawset(globals, key, value)
        if bit.band(native.phase(), INITIAL) ~= 0 then
            return
        end
        local info = getinfo(2, "S")
        if info and info.what == "C" then
            -- A C module that registers itself, as require lets it.
            return
        end
        log(WARN, "writing a global Lua variable ('", tostring(key), "') which may lead to race conditions "
            .. "between concurrent requests, so prefer the use of 'local' variables", traceback("", 2))
    end,
})
