//! A worker's event loop: tasks, descriptors and timers of one thread.
//!
//! Nothing here is shared between threads except the wakers of tasks, so that a request costs no atomic operation and no
//! lock. A thread has one [`EventLoop`] at most; the functions of this crate mean the one of their thread.
#![forbid(unsafe_code)]

mod core;
mod event_loop;
mod poller;
mod source;
mod tasks;
mod timers;

#[cfg(test)]
mod tests;

pub use event_loop::EventLoop;
pub use source::Source;
pub use tasks::{TaskHandle, spawn, yield_now};
pub use timers::{Elapsed, Sleep, sleep, sleep_until, timeout, timeout_at};
