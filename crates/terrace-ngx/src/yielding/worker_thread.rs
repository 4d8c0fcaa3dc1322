//! `ngx.run_worker_thread`: hands packed arguments to a thread of a pool and waits for packed results.

use std::ffi::c_int;

use smallvec::smallvec;
use terrace_lua::{Value, pending};
use tokio::sync::oneshot;

use crate::ffi::{AWAIT, BAD_CONTEXT, DONE, NO_REQUEST, NOT_FOUND, bytes, functions};
use crate::host::current;
use crate::phase::{LuaPhase, RESPONDING};
use crate::threads::Job;

functions! {
    "int (*thread_pool)(const char *, size_t)" => pool,
    "int (*thread_run)(int, const char *, size_t, const char *, size_t, const char *, size_t)" => run,
}

/// Where a worker's code may hand work over.
const ALLOWED: u32 = RESPONDING | LuaPhase::Timer as u32;
/// The queue is full, or no thread can be started.
const NOT_POSTED: c_int = -2;

/// The number of a pool.
extern "C" fn pool(name: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    let name = unsafe { bytes(name, len) };
    current(|h| {
        if !h.is_in(ALLOWED) {
            return BAD_CONTEXT;
        }
        let found = h.lua.main.pools.iter().position(|p| p.name.as_bytes() == name);
        found.and_then(|i| c_int::try_from(i).ok()).unwrap_or(NOT_FOUND)
    })
    .unwrap_or(NO_REQUEST)
}

/// The value of the wait is the packed results, or nil and an error.
extern "C" fn run(
    pool: c_int,
    module: *const u8,
    module_len: usize,
    function: *const u8,
    function_len: usize,
    args: *const u8,
    args_len: usize,
) -> c_int {
    // SAFETY: Lua strings.
    let [module, function, args] =
        unsafe { [bytes(module, module_len), bytes(function, function_len), bytes(args, args_len)] }
            .map(<[u8]>::to_vec);
    current(|h| {
        let pools = &h.lua.main.pools;
        let Some(pool) = usize::try_from(pool).ok().and_then(|i| pools.get(i)) else { return NOT_FOUND };
        let (reply, answer) = oneshot::channel();
        if pool.post(Job { module, function, args, reply }).is_err() {
            return NOT_POSTED;
        }
        pending::set(Box::pin(async move {
            match answer.await {
                Ok(Ok(packed)) => smallvec![Value::from(packed)],
                Ok(Err(error)) => smallvec![Value::Nil, Value::from(error)],
                Err(_) => smallvec![Value::Nil, Value::from("no available Lua vm")],
            }
        }));
        AWAIT
    })
    .unwrap_or(DONE)
}
