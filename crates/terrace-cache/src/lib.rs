//! The multi-level cache engine: policy as a sans-io state machine; knows no wire client.
//!
//! From the inside out:
//!
//! - the *engine* (private): a state machine per key. Events go in (lookup, L2 answered, loaded, failed, filled,
//!   invalidated, noticed, time is up), actions come out (ask L2, take the lock, load, fill, give back, wake, hand over).
//!   It holds no clock, no socket and no source of randomness: time and seed are arguments. Seeded simulators drive it in
//!   the tests, alone and as fleets.
//! - *L1*: the memory level, bounded in bytes, shared by every worker of the process.
//! - the seams: [`L2`], the level that a fleet shares, with leases and notices; [`FleetLock`]; [`Source`].
//! - [`Cache`]: the front. An L1 hit is answered synchronously without an allocation; anything else is a future
//!   that the fill wakes. Loads run on a background runtime through a [`Source`], or in the caller itself
//!   through a [`LoadToken`] (a Lua loader in the worker's own VM).
//!
//! What holds under every interleaving:
//!
//! 1. one load per key across the fleet while a lease lasts; the others wait for it or are served stale. Past L2 (it is
//!    away, or the wait is over) one per key in each process;
//! 2. a load that began before an invalidation of its key never populates L1 or L2 after it, and a lookup that began after
//!    this node heard of the invalidation is never answered by that load. A failover of L2 that loses the invalidation
//!    itself leaves only the bound on age: no value is served beyond its life and its stale windows;
//! 3. neither L2 nor L1 replaces a version by an older one;
//! 4. an error never replaces a value, and inside the stale-if-error window it is the value that is served;
//! 5. L1 stays inside its bound of bytes, flights and loads inside theirs, whatever the keys;
//! 6. every waiter is woken: by the fill, by the failure, by the timeout, or by being handed the load.
#![forbid(unsafe_code)]

mod cache;
mod engine;
mod entry;
mod error;
mod filter;
mod fleet;
mod histogram;
mod l1;
mod l2;
mod marks;
mod policy;
mod snapshot;
mod source;
mod stats;
mod token;
pub mod version;

#[cfg(test)]
mod simulator;

pub use cache::{Begin, Cache, Clock, Effect, Later, Lookup, Parts, SetOptions};
pub use entry::{Answer, Level};
pub use error::{Bound, CacheError, Fault, LoadError};
pub use filter::{FILTER_BITS_MAX, FilterBuild};
pub use histogram::{LATENCY_BOUNDS_US, Latencies};
pub use l1::ENTRY_OVERHEAD_BYTES;
pub use l2::{
    Filled, FleetLock, Found, L2, L2Error, LeaseToken, Listener, LockGuard, Notice, Scope, Stored, TAGS_MAX,
    Version,
};
pub use policy::{OnChange, Policy};
pub use snapshot::{SNAPSHOT_VERSION, SnapshotError};
pub use source::{BoxFuture, LoadRequest, Loaded, Param, Params, Source};
pub use stats::Stats;
pub use token::{BeginWait, LoadToken, Wait, Woken};
