-- Runs once in a fresh VM, with the address of the native functions, their declaration, and names and addresses of the
-- shared dictionaries by turns: makes `require "terrace.native"` and the `ngx` table.

local pointer, declaration = ...

local ffi = require "ffi"
-- Declarations are the process's, not the VM's table's: a second VM on this thread must not declare again.
if not pcall(ffi.typeof, "struct terrace_native") then
    ffi.cdef(declaration)
end
package.loaded["terrace.native"] = ffi.cast("struct terrace_native *", pointer)
package.loaded["terrace.dicts"] = { select(3, ...) }

ngx = {}

-- The order matters only where one area builds on another.
local areas = {
    "constants", "time", "encode", "ndk", "req", "body", "context", "location", "log", "output", "header", "var", "sleep", "socket", "udp", "thread", "timer", "worker", "re", "shared",
}
for _, area in ipairs(areas) do
    require("terrace.ngx." .. area)
end

package.loaded["ngx"] = ngx
