//! The slot through which a host function hands an operation to the scheduler: the function records a future
//! here, its Lua wrapper yields at once, and the run takes the future. Owns the invariant that no more than one
//! operation is recorded between two resumes.

use std::cell::Cell;
use std::ffi::c_int;
use std::future::Future;
use std::pin::Pin;

use mlua_sys::lua_State;

use crate::op;
use crate::value::Values;

/// A waiting operation; its output becomes the return values of `sched.await()`.
pub type Operation = Pin<Box<dyn Future<Output = Values>>>;

thread_local! {
    static SLOT: Cell<Option<Operation>> = const { Cell::new(None) };
}

/// Records the operation on which the running coroutine is about to wait. The Lua caller must yield at once
/// (`return sched.await()`); an operation recorded earlier and never awaited is dropped.
pub fn set(operation: Operation) {
    drop(SLOT.replace(Some(operation)));
}

/// Yields the running coroutine on the recorded operation, from a C function that ends with
/// `return yield_from(state)`; the operation's values become the function's results.
///
/// # Safety
/// `state` must be the one that the C function was called with, and nothing in its frames may need dropping.
pub unsafe fn yield_from(state: *mut lua_State) -> c_int {
    // SAFETY: two values fit any fresh C call; the caller vouches for the rest.
    unsafe {
        mlua_sys::lua_pushlightuserdata(state, op::sentinel());
        mlua_sys::lua_pushinteger(state, op::AWAIT as mlua_sys::lua_Integer);
        mlua_sys::lua_yield(state, 2)
    }
}

/// Takes the recorded operation, if there is one.
pub(crate) fn take() -> Option<Operation> {
    SLOT.take()
}
