//! The ngx.* API for Lua: synchronous calls by FFI, waiting calls by the scheduler, and the Lua library in the binary.
