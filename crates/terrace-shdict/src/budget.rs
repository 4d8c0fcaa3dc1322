//! The byte budget of one dictionary, shared by its shards.
//!
//! One counter for the whole dictionary rather than a share per shard: an item as large as most of the
//! dictionary stays storable. Bytes are reserved before an entry exists and handed over to it on insertion;
//! a reservation that is dropped gives its bytes back.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Counters of how often a dictionary met its bounds, since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Valid entries removed to make room.
    pub evicted: u64,
    /// Expired entries removed, by any operation.
    pub expired: u64,
    /// Writes refused with "no memory".
    pub no_memory: u64,
}

#[derive(Debug)]
pub(crate) struct Budget {
    capacity_bytes: usize,
    used_bytes: AtomicUsize,
    evicted: AtomicU64,
    expired: AtomicU64,
    no_memory: AtomicU64,
}

impl Budget {
    pub(crate) fn new(capacity_bytes: usize) -> Self {
        Self {
            capacity_bytes,
            used_bytes: AtomicUsize::new(0),
            evicted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
            no_memory: AtomicU64::new(0),
        }
    }

    pub(crate) fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    pub(crate) fn used_bytes(&self) -> usize {
        self.used_bytes.load(Relaxed)
    }

    // Relaxed is enough: the counter guards no other memory, entries are published by their shard's lock.
    pub(crate) fn reserve(&self, bytes: usize) -> Option<Reservation<'_>> {
        let mut used = self.used_bytes.load(Relaxed);
        loop {
            let wanted = used.checked_add(bytes).filter(|wanted| *wanted <= self.capacity_bytes)?;
            match self.used_bytes.compare_exchange_weak(used, wanted, Relaxed, Relaxed) {
                Ok(_) => return Some(Reservation { budget: self, bytes }),
                Err(current) => used = current,
            }
        }
    }

    /// Gives back the bytes of an entry that was removed by its owner.
    pub(crate) fn release(&self, bytes: usize) {
        let before = self.used_bytes.fetch_sub(bytes, Relaxed);
        debug_assert!(before >= bytes, "released {bytes} of {before} used bytes");
    }

    /// Gives back the bytes of an entry that was removed because it expired or to make room.
    pub(crate) fn release_reclaimed(&self, bytes: usize, expired: bool) {
        self.release(bytes);
        let counter = if expired { &self.expired } else { &self.evicted };
        counter.fetch_add(1, Relaxed);
    }

    pub(crate) fn count_no_memory(&self) {
        self.no_memory.fetch_add(1, Relaxed);
    }

    pub(crate) fn stats(&self) -> Stats {
        Stats {
            evicted: self.evicted.load(Relaxed),
            expired: self.expired.load(Relaxed),
            no_memory: self.no_memory.load(Relaxed),
        }
    }
}

/// Bytes taken from the budget for an entry that is not yet inserted.
#[must_use]
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Reservation<'_> {
    /// Hands exactly `bytes` over to an entry and returns the rest, if any.
    pub(crate) fn commit(mut self, bytes: usize) {
        debug_assert!(self.bytes >= bytes, "entry of {bytes} bytes on a reservation of {}", self.bytes);
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.bytes != 0 {
            self.budget.release(self.bytes);
        }
    }
}
