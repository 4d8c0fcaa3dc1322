//! L1: the memory level. A bounded, sharded, scan-resistant map from key to entry, shared by all workers.
//!
//! Invariant: the sum of the entries' weights never exceeds the bound. What a stored value may be used for at a
//! given time is decided here too ([`Entry::answer_now`]), from instants fixed when it was stored, so a hit reads
//! no policy and takes no lock but the read lock of its shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use quick_cache::sync::Cache as Map;
use quick_cache::{Lifecycle, Weighter};

use crate::policy::Policy;
use crate::stats::{Counter, Counters};

/// What each entry counts for beside its key and its value: map slot, two allocations, instants.
pub const ENTRY_OVERHEAD_BYTES: u64 = 192;

/// Guess at the size of an entry, from which L1's tables are dimensioned.
const ENTRY_BYTES_EXPECTED: u64 = 2048;

/// The level that answered a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// A fresh entry in the memory of this process.
    L1,
    /// The source, or the caller's own loader.
    Source,
    /// An entry past its life, during its refresh or because its reload failed.
    Stale,
}

impl Level {
    /// The word for response headers and logs: `L1`, `source` or `stale`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::Source => "source",
            Self::Stale => "stale",
        }
    }

    /// The `hit_level` that users of `resty.mlcache` know: 1 for memory, 3 for the callback, 4 for stale.
    pub fn hit_level(self) -> u8 {
        match self {
            Self::L1 => 1,
            Self::Source => 3,
            Self::Stale => 4,
        }
    }
}

/// The answer to a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The value; `None` when the source is known not to have it.
    pub value: Option<Bytes>,
    /// Which level answered.
    pub level: Level,
    /// Milliseconds since the value was stored.
    pub age_ms: u64,
    /// Milliseconds of fresh life that remain; 0 when stale, and for a value that was not stored.
    pub ttl_ms: u64,
}

/// What an entry is good for at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Serve.
    Fresh,
    /// Serve, and refresh.
    Revalidate,
    /// Serve only if a load fails.
    OnError,
    /// Of no use any more.
    Dead,
}

/// A value with the instants that decide its use.
#[derive(Debug)]
pub(crate) struct Entry {
    value: Option<Bytes>,
    stored_ms: u64,
    fresh_until_ms: u64,
    revalidate_until_ms: u64,
    error_until_ms: u64,
    /// In the revalidate window no refresh starts before this instant.
    refresh_not_before_ms: AtomicU64,
    /// In the error window the value is served without a load until this instant.
    failed_until_ms: AtomicU64,
}

impl Entry {
    pub(crate) fn new(value: Option<Bytes>, now_ms: u64, ttl_ms: u64, policy: &Policy) -> Self {
        let fresh_until_ms = now_ms.saturating_add(ttl_ms);
        let (revalidate_ms, error_ms) = match value {
            Some(_) => (policy.stale_while_revalidate_ms, policy.stale_if_error_ms),
            None => (0, 0),
        };
        let revalidate_until_ms = fresh_until_ms.saturating_add(revalidate_ms);
        Self {
            value,
            stored_ms: now_ms,
            fresh_until_ms,
            revalidate_until_ms,
            error_until_ms: revalidate_until_ms.max(fresh_until_ms.saturating_add(error_ms)),
            refresh_not_before_ms: AtomicU64::new(0),
            failed_until_ms: AtomicU64::new(0),
        }
    }

    pub(crate) fn freshness(&self, now_ms: u64) -> Freshness {
        if now_ms < self.fresh_until_ms {
            Freshness::Fresh
        } else if now_ms < self.revalidate_until_ms {
            Freshness::Revalidate
        } else if now_ms < self.error_until_ms {
            Freshness::OnError
        } else {
            Freshness::Dead
        }
    }

    /// The answer, if this entry can give one without anyone starting or awaiting a load.
    pub(crate) fn answer_now(&self, now_ms: u64) -> Option<Answer> {
        let serve = match self.freshness(now_ms) {
            Freshness::Fresh => true,
            Freshness::Revalidate => now_ms < self.refresh_not_before_ms.load(Ordering::Relaxed),
            Freshness::OnError => now_ms < self.failed_until_ms.load(Ordering::Relaxed),
            Freshness::Dead => false,
        };
        serve.then(|| self.answer(now_ms))
    }

    /// The answer that this entry gives at `now_ms`, fresh or stale.
    pub(crate) fn answer(&self, now_ms: u64) -> Answer {
        let ttl_ms = self.fresh_until_ms.saturating_sub(now_ms);
        Answer {
            value: self.value.clone(),
            level: if ttl_ms > 0 { Level::L1 } else { Level::Stale },
            age_ms: now_ms.saturating_sub(self.stored_ms),
            ttl_ms,
        }
    }

    /// Keeps lookups in the revalidate window from starting a refresh before `until_ms`.
    pub(crate) fn hold_refresh(&self, until_ms: u64) {
        self.refresh_not_before_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Notes a failed load: until `until_ms` the value is served without another attempt.
    pub(crate) fn note_failure(&self, until_ms: u64) {
        self.refresh_not_before_ms.store(until_ms, Ordering::Relaxed);
        self.failed_until_ms.store(until_ms, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Bytes, Arc<Entry>> for ByBytes {
    fn weight(&self, key: &Bytes, entry: &Arc<Entry>) -> u64 {
        let value_bytes = entry.value.as_ref().map_or(0, Bytes::len);
        (key.len() + value_bytes) as u64 + ENTRY_OVERHEAD_BYTES
    }
}

#[derive(Clone)]
struct CountEvictions(Arc<Counters>);

impl Lifecycle<Bytes, Arc<Entry>> for CountEvictions {
    type RequestState = ();

    fn begin_request(&self) -> Self::RequestState {}

    /// Unlike `on_evict`, not called for an entry that makes way for a newer one of its key.
    fn before_evict(&self, (): &mut Self::RequestState, _key: &Bytes, _entry: &mut Arc<Entry>) {
        self.0.bump(Counter::Evictions);
    }
}

/// The memory level.
pub(crate) struct L1 {
    map: Map<Bytes, Arc<Entry>, ByBytes, ahash::RandomState, CountEvictions>,
}

impl L1 {
    pub(crate) fn new(size_bytes_max: u64, seed: u64, counters: Arc<Counters>) -> Self {
        let entries = (size_bytes_max / ENTRY_BYTES_EXPECTED).clamp(16, 1 << 20) as usize;
        let hasher = ahash::RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 1);
        Self { map: Map::with(entries, bound(size_bytes_max), ByBytes, hasher, CountEvictions(counters)) }
    }

    /// Finds an entry and counts it as used.
    pub(crate) fn find(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.map.get(key)
    }

    /// Finds an entry without counting it as used.
    pub(crate) fn peek(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.map.peek(key)
    }

    pub(crate) fn insert(&self, key: Bytes, entry: Entry) {
        self.map.insert(key, Arc::new(entry));
    }

    pub(crate) fn remove(&self, key: &[u8]) -> bool {
        self.map.remove(key).is_some()
    }

    pub(crate) fn clear(&self) {
        self.map.clear();
    }

    pub(crate) fn resize(&self, size_bytes_max: u64) {
        let size_bytes_max = bound(size_bytes_max);
        if self.map.capacity() != size_bytes_max {
            self.map.set_capacity(size_bytes_max);
        }
    }

    pub(crate) fn entries(&self) -> u64 {
        self.map.len() as u64
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.map.weight()
    }
}

/// The bound in whole KiB, so that it divides evenly among the shards instead of being rounded up.
fn bound(size_bytes_max: u64) -> u64 {
    (size_bytes_max / 1024).max(1) * 1024
}
