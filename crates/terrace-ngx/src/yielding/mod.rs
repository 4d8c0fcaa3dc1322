//! Calls that wait. Each records a future and answers [`crate::ffi::AWAIT`]; the Lua side then yields to the
//! scheduler, which resumes it with the future's values.

mod body;
pub mod cache;
pub mod capture;
mod semaphore;
mod sleep;
mod socket;
mod timer;

use crate::ffi::Function;

/// All functions of all areas here.
pub fn functions() -> Vec<Function> {
    [
        body::functions(),
        cache::functions(),
        capture::functions(),
        semaphore::functions(),
        sleep::functions(),
        socket::functions(),
        socket::udp::functions(),
        timer::functions(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
