//! The yield protocol between `coroutine.lua` and the scheduler: a private sentinel, a code, operands.

use std::ffi::{c_int, c_void};

/// Wait for the recorded operation.
pub(crate) const AWAIT: c_int = 1;
/// Start a light thread: coroutine, arguments.
pub(crate) const SPAWN: c_int = 2;
/// Wait for the first of some light threads to end: coroutines.
pub(crate) const WAIT: c_int = 3;
/// End a light thread, or forget one that has ended: coroutine.
pub(crate) const KILL: c_int = 4;
/// End the run: code.
pub(crate) const EXIT: c_int = 5;

/// As `AWAIT`, but the run does not wait for this thread: it ends without it.
pub(crate) const AWAIT_IDLE: c_int = 6;

static SENTINEL: u8 = 0;

/// The first value of every host yield; scripts cannot get hold of it.
pub(crate) fn sentinel() -> *mut c_void {
    std::ptr::from_ref(&SENTINEL).cast_mut().cast()
}
