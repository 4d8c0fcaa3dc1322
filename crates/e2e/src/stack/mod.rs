//! Real servers for tests and for `make stack`: each a process of the real program, on ports from the system, in a
//! folder of its own, up when `start` returns.
//!
//! A service is gone when it is dropped: process and folder. When the whole test process ends, however it ends, the
//! system kills what it started and a watchdog removes the folders. Expensive services have `shared()`, one for all
//! tests of a binary.

pub mod home;
pub mod process;
pub mod redis;
pub mod redis_cluster;
pub mod resp;

pub use home::Home;
pub use process::Process;
pub use redis::Redis;
pub use redis_cluster::RedisCluster;
