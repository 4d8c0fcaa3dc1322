//! The slot through which a host function hands an operation to the scheduler: the function records a future
//! here, its Lua wrapper yields at once, and the run takes the future. Owns the invariant that no more than one
//! operation is recorded between two resumes.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;

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

/// Takes the recorded operation, if there is one.
pub(crate) fn take() -> Option<Operation> {
    SLOT.take()
}
