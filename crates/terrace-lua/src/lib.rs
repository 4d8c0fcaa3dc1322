//! The LuaJIT VM and its coroutine scheduler; knows no HTTP.
//!
//! One [`Vm`] per worker thread. [`start`] executes a chunk in a pooled coroutine; a [`Run`] goes on with code that waits,
//! together with the light threads that it spawns. A host function that has to wait records a future with [`pending::set`] and its Lua
//! wrapper returns `require("terrace.sched").await()`; the run awaits the future and resumes the coroutine with its
//! values, however deep it is nested in user coroutines.
//!
//! Invariants: a Lua error never jumps over a Rust destructor, a Rust panic never enters a Lua frame, and a run
//! leaves nothing behind in the VM, whichever way it ends.
//!
//! C modules (`lua_package_cpath`) find the Lua C API in the executable only if it exports its symbols: the
//! binary's build script must print `cargo:rustc-link-arg-bins=-rdynamic`. Threads that run a VM should have
//! [`THREAD_STACK_BYTES`] of stack.

mod bytecode;
mod error;
mod memory;
mod modules;
mod op;
mod operations;
pub mod pending;
mod raw;
mod run;
mod start;
mod value;
mod vm;
mod watchdog;

pub use error::{ErrorKind, LuaError};
pub use pending::Operation;
pub use run::Run;
pub use start::{Ended, Finish, Host, Started, start};
pub use value::{LuaRef, Value, Values};
pub use vm::{Chunk, THREAD_STACK_BYTES, Vm, VmOptions};

/// The raw C API, for crates that register native functions.
pub use mlua_sys as sys;

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod tests;
