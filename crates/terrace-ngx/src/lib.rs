//! The `ngx.*` API for Lua, the `*_by_lua` directives, and the Lua library in the binary.
//!
//! Synchronous calls are Rust functions with a fixed ABI ([`ffi`]), handed to Lua as a struct of function pointers so
//! that LuaJIT's traces compile through them; they return codes and never raise, unwind or enter Lua. Calls that
//! wait ([`yielding`]) record a future and yield; the scheduler of `terrace-lua` awaits it. The Lua side of both is in
//! `lualib/`, beside the modules that scripts `require`.

mod chunks;
mod directives;
mod escape;
mod ffi;
mod handlers;
mod host;
mod lualib;
mod native;
mod packages;
mod phase;
mod settings;
mod threads;
mod vm;
mod yielding;

pub use directives::ALL;
