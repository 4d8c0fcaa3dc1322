//! The seam to the level that a fleet shares: what L2 keeps, the leases it hands out, and what it tells its nodes.
//!
//! The engine owns these traits; the stores implement them. All of a call's effects on one key are one atomic step in
//! the store, so that every node sees the same order of leases, fills and invalidations.
//!
//! A *lease* (Nishtala et al., "Scaling Memcache at Facebook", 2013) is the right to fill one key. A miss hands out one
//! token; a fill must show it; an invalidation voids it. While it lasts, everybody else is told that the key is held.
//!
//! Times are lives and ages, never instants: the clocks of two nodes are not compared.

use std::sync::Arc;

use bytes::Bytes;

use crate::source::BoxFuture;

/// A version of a key's value; a larger one is newer. Zero: the source names none, and only the lease orders the fills.
pub type Version = u64;

/// Identifies one lease of one key. Never zero.
pub type LeaseToken = u64;

/// What L2 keeps for a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The value as it is served; none for a remembered absence.
    pub value: Option<Bytes>,
    /// Its version.
    pub version: Version,
    /// How long ago it was filled, by the store's clock. Ignored in a fill.
    pub age_ms: u64,
    /// How long after the fill it is fresh, jitter included.
    pub ttl_ms: u64,
    /// How long after the fill it is gone: `ttl_ms` and the longer stale window. The store drops it then.
    pub dead_ms: u64,
    /// Tags under which the value can be invalidated; at most [`TAGS_MAX`].
    pub tags: Vec<Arc<str>>,
}

/// Number of tags that a value may have.
pub const TAGS_MAX: usize = 16;

/// The answer of L2 to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A fresh value.
    Fresh(Stored),
    /// No fresh value, and nobody loads: the asker does, and shows the token when it fills.
    Lease {
        /// The right to fill.
        token: LeaseToken,
        /// A value past its life that may stand in.
        stale: Option<Stored>,
    },
    /// No fresh value, and somebody else loads.
    Held {
        /// How long the lease lasts unless it ends before.
        remaining_ms: u64,
        /// A value past its life that may stand in.
        stale: Option<Stored>,
    },
}

/// What became of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filled {
    /// Stored.
    Stored,
    /// Not stored: the lease was voided by an invalidation, or ran out and another was handed out.
    Voided,
    /// Not stored: L2 has, or has heard of, this newer version.
    Older(Version),
}

/// Which keys an invalidation means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One key.
    Key(Bytes),
    /// Every key that begins with this; the empty one is every key of the cache.
    Prefix(Bytes),
    /// Every value that was filled with this tag.
    Tag(Arc<str>),
}

/// What L2 tells every node of the fleet, the one that caused it included. Delivery is best effort and unordered between
/// keys; a gap in it is told as [`Notice::Gap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The key was filled with this version: who waits for a lease asks again; older copies in L1 are out of date.
    Filled {
        /// The key.
        key: Bytes,
        /// The version that it was filled with; zero if it has none.
        version: Version,
    },
    /// The lease of the key was given back without a fill.
    Released {
        /// The key.
        key: Bytes,
    },
    /// The values are no longer true. With a version, those of that version and newer still are.
    Invalidated {
        /// Which.
        scope: Scope,
        /// The version that the source has now; zero if it is not known.
        version: Version,
    },
    /// Notices may have been lost up to now: what L1 stored before is to be checked with L2 before it is called fresh.
    Gap,
}

/// Who hears the notices of an [`L2`]. Must neither block nor wait.
pub type Listener = Arc<dyn Fn(Notice) + Send + Sync>;

/// Why L2 gave no answer. Always followed by a miss: a reader never sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum L2Error {
    /// The store cannot be reached, is failing over, or refuses work.
    #[error("L2 is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The store took longer than its timeout.
    #[error("L2 did not answer within {0} ms")]
    Timeout(u64),
    /// The store does not understand what it is asked: a configuration to mend.
    #[error("L2 refuses the call: {0}")]
    Refused(Arc<str>),
}

/// The level that a fleet shares.
///
/// Runs on the background runtime. Implementations bound every call in time themselves, retry what is safe to retry within
/// that bound, and turn a value that they cannot read (foreign, truncated, corrupt, of another format) into a logged miss.
pub trait L2: Send + Sync {
    /// Looks a key up; hands out a lease of `lease_ms` if there is no fresh value and no lease.
    fn get(&self, key: Bytes, lease_ms: u64) -> BoxFuture<'_, Result<Found, L2Error>>;

    /// Looks keys up in as few round trips as the store allows, without handing out leases. One answer for each key, in order;
    /// none where there is no fresh value.
    fn peek(&self, keys: Vec<Bytes>) -> BoxFuture<'_, Result<Vec<Option<Stored>>, L2Error>>;

    /// Stores a value under a lease, ends the lease and tells the fleet.
    fn fill(&self, key: Bytes, token: LeaseToken, stored: Stored) -> BoxFuture<'_, Result<Filled, L2Error>>;

    /// Stores a value without a lease, unless L2 has a newer version; voids the lease of the key and tells the fleet.
    fn set(&self, key: Bytes, stored: Stored) -> BoxFuture<'_, Result<Filled, L2Error>>;

    /// Gives a lease back without a fill, so that the next asker gets one at once, and tells the fleet.
    fn release(&self, key: Bytes, token: LeaseToken) -> BoxFuture<'_, Result<(), L2Error>>;

    /// Drops values, voids leases, and tells the fleet. With a version that is not zero, values of that version and newer
    /// stay, and older ones are refused for a while. Idempotent. Answers how many values were dropped.
    fn invalidate(&self, scope: Scope, version: Version) -> BoxFuture<'_, Result<u64, L2Error>>;

    /// Begins to tell `listener` what happens in L2; at most once for each store.
    fn listen(&self, listener: Listener);
}

/// A lock that spans the fleet, for those who have a lock service: taken around a load, beside L2's lease.
pub trait FleetLock: Send + Sync {
    /// Waits up to `wait_ms` for the lock of a key. The guard releases it when it is dropped, and the service when the process
    /// dies. `None`: somebody else still has it.
    fn lock(&self, key: Bytes, wait_ms: u64) -> BoxFuture<'_, Result<Option<LockGuard>, L2Error>>;
}

/// Holds a [`FleetLock`]; dropping it releases the lock.
pub struct LockGuard(Option<Box<dyn FnOnce() + Send>>);

impl LockGuard {
    /// A guard that calls `release` when it is dropped; it must neither block nor wait.
    pub fn new(release: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(release)))
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        if let Some(release) = self.0.take() {
            release();
        }
    }
}

impl std::fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LockGuard")
    }
}
