//! The LuaJIT VM and its coroutine scheduler; knows no HTTP.
