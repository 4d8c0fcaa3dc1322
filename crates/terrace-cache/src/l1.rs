//! L1: the memory level. A bounded, sharded, scan-resistant map from key to entry, shared by all workers.
//!
//! Invariants: the sum of the entries' weights never exceeds the bound; an older version never replaces a newer one
//! that may still be served. A hit takes no lock but the read lock of its shard.

use std::cell::Cell;
use std::sync::Arc;

use bytes::Bytes;
use quick_cache::sync::Cache as Map;
use quick_cache::{Lifecycle, Weighter};

use crate::entry::{Answer, Entry, Freshness};
use crate::l2::Version;
use crate::marks::Marks;
use crate::policy::OnChange;
use crate::stats::{Counter, Counters};

/// What each entry counts for beside its key, its value and its tags: map slot, two allocations, instants.
pub const ENTRY_OVERHEAD_BYTES: u64 = 352;

/// What each tag of an entry counts for: the pointer to its text, which other entries share.
const TAG_BYTES: u64 = 16;

/// Guess at the size of an entry, from which L1's tables are dimensioned.
const ENTRY_BYTES_EXPECTED: u64 = 2048;

#[derive(Clone)]
struct ByBytes;

impl Weighter<Bytes, Arc<Entry>> for ByBytes {
    fn weight(&self, key: &Bytes, entry: &Arc<Entry>) -> u64 {
        let value_bytes = entry.value.as_ref().map_or(0, Bytes::len);
        (key.len() + value_bytes) as u64 + entry.tags.len() as u64 * TAG_BYTES + ENTRY_OVERHEAD_BYTES
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
    pub(crate) marks: Marks,
    /// A deliberate defect: older versions replace newer ones.
    #[cfg(test)]
    pub(crate) lax: bool,
}

impl L1 {
    pub(crate) fn new(size_bytes_max: u64, seed: u64, counters: Arc<Counters>) -> Self {
        let entries = (size_bytes_max / ENTRY_BYTES_EXPECTED).clamp(16, 1 << 20) as usize;
        let hasher = ahash::RandomState::with_seeds(seed, !seed, seed.rotate_left(32), 1);
        Self {
            map: Map::with(entries, bound(size_bytes_max), ByBytes, hasher, CountEvictions(counters)),
            marks: Marks::new(seed),
            #[cfg(test)]
            lax: false,
        }
    }

    /// The answer of a key's entry, if it can give one without a decision. Counts the entry as used.
    pub(crate) fn hit(&self, key: &[u8], now_ms: u64) -> Option<Answer> {
        let entry = self.map.get(key)?;
        entry.answer_now(now_ms, self.marks.ended_ms(&entry)?)
    }

    /// Finds an entry without counting it as used.
    pub(crate) fn peek(&self, key: &[u8]) -> Option<Arc<Entry>> {
        self.map.peek(key)
    }

    /// What an entry is good for, with all that ended its life.
    pub(crate) fn freshness(&self, entry: &Entry, now_ms: u64) -> Freshness {
        self.marks.ended_ms(entry).map_or(Freshness::Dead, |ended_ms| entry.freshness(now_ms, ended_ms))
    }

    /// The answer of an entry that may be served, fresh or stale.
    pub(crate) fn answer(&self, entry: &Entry, now_ms: u64) -> Option<Answer> {
        let ended_ms = self.marks.ended_ms(entry)?;
        (entry.freshness(now_ms, ended_ms) != Freshness::Dead).then(|| entry.answer(now_ms, ended_ms))
    }

    /// The answer of a key's entry, fresh or stale.
    pub(crate) fn usable(&self, key: &[u8], now_ms: u64) -> Option<Answer> {
        self.answer(&*self.peek(key)?, now_ms)
    }

    /// The version of a key's entry that may be served; zero if it has none, or there is no such entry.
    pub(crate) fn version(&self, key: &[u8], now_ms: u64) -> Version {
        let entry = self.peek(key).filter(|entry| self.freshness(entry, now_ms) != Freshness::Dead);
        entry.map_or(0, |entry| entry.version)
    }

    /// Stores an entry, unless the key has one of a newer version that may be served. Whether it was stored.
    pub(crate) fn store(&self, key: Bytes, entry: Entry, now_ms: u64) -> bool {
        let older = entry.version != 0 && entry.version < self.version(&key, now_ms);
        #[cfg(test)]
        let older = older && !self.lax;
        if older {
            return false;
        }
        self.map.insert(key, Arc::new(entry));
        true
    }

    pub(crate) fn remove(&self, key: &[u8]) -> bool {
        self.map.remove(key).is_some()
    }

    /// A key changed: its entry is dropped, or its life ends. Entries of `version` and newer stay, unless it is zero.
    /// Whether there was an entry that the change meant.
    pub(crate) fn change(&self, key: &[u8], version: Version, how: OnChange, now_ms: u64) -> bool {
        let Some(entry) = self.peek(key) else { return false };
        if version != 0 && entry.version >= version {
            return false;
        }
        match how {
            OnChange::Refresh if entry.value.is_some() => entry.end(now_ms),
            _ => drop(self.remove(key)),
        }
        true
    }

    /// The same for all keys of a prefix; looks at every entry. How many the change meant.
    pub(crate) fn sweep(&self, prefix: &[u8], version: Version, how: OnChange, now_ms: u64) -> u64 {
        let meant = Cell::new(0);
        self.map.retain(|key, entry| {
            if !key.starts_with(prefix) || (version != 0 && entry.version >= version) {
                return true;
            }
            meant.set(meant.get() + 1);
            let keep = how == OnChange::Refresh && entry.value.is_some();
            if keep {
                entry.end(now_ms);
            }
            keep
        });
        meant.get()
    }

    /// All entries that may be served at `now_ms`, with the instant that ended their lives.
    pub(crate) fn usables(&self, now_ms: u64) -> impl Iterator<Item = (Bytes, Arc<Entry>, u64)> {
        self.map.iter().filter_map(move |(key, entry)| {
            let ended_ms = self.marks.ended_ms(&entry)?;
            (entry.freshness(now_ms, ended_ms) != Freshness::Dead).then_some((key, entry, ended_ms))
        })
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
