//! Counters of one store.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a [`RedisL2`](super::RedisL2) has met with since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisStats {
    /// Commands sent again after a wait: the server was lost, loading, or no master.
    pub retries: u64,
    /// MOVED and ASK followed.
    pub redirections: u64,
    /// Masters found to have lost their place.
    pub failovers: u64,
    /// Subscriptions to notices that could not be made or were lost.
    pub subscriptions_lost: u64,
    /// Fresh values that a replica gave.
    pub replica_hits: u64,
    /// Lookups that a replica did not answer, so that the master was asked.
    pub replica_misses: u64,
    /// Values that could not be read.
    pub unreadable: u64,
}

#[derive(Default)]
pub(super) struct Counters {
    pub(super) subscriptions_lost: AtomicU64,
    pub(super) replica_hits: AtomicU64,
    pub(super) replica_misses: AtomicU64,
    pub(super) unreadable: AtomicU64,
}

impl Counters {
    pub(super) fn count(&self, which: impl Fn(&Self) -> &AtomicU64) {
        which(self).fetch_add(1, Ordering::Relaxed);
    }
}
