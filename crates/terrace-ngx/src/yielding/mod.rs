//! Calls that wait. Each records a future and answers [`crate::ffi::AWAIT`]; the Lua side then yields to the
//! scheduler, which resumes it with the future's values.

pub mod abort;
mod body;
pub mod cache;
pub mod capture;
mod process;
mod semaphore;
mod sleep;
pub mod socket;
mod timer;
mod worker_thread;

use crate::ffi::Function;

/// All functions of all areas here.
pub fn functions() -> Vec<Function> {
    [
        abort::functions(),
        body::functions(),
        cache::functions(),
        capture::functions(),
        process::functions(),
        semaphore::functions(),
        sleep::functions(),
        socket::functions(),
        socket::udp::functions(),
        timer::functions(),
        worker_thread::functions(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
