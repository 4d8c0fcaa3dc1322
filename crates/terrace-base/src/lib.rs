//! Units, clock and logs: what every other crate of Terrace stands on.
//!
//! It depends on no other crate of the workspace, knows neither HTTP nor configuration, and takes no lock on the
//! request path: the clock is cached per thread and log files are cached per thread.
#![forbid(unsafe_code)]

mod civil;
pub mod clock;
pub mod http_date;
pub mod log;
mod os_error;
pub mod units;

pub use os_error::OsError;
