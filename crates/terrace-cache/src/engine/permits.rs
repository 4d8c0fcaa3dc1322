//! The bounds on what runs at once, shared by the engines of one cache.

use std::sync::atomic::{AtomicUsize, Ordering};

/// One bound: how many there are, and how many there may be.
#[derive(Debug)]
pub(crate) struct Permits {
    taken: AtomicUsize,
    max: AtomicUsize,
}

impl Permits {
    pub(crate) fn new(max: usize) -> Self {
        Self { taken: AtomicUsize::new(0), max: AtomicUsize::new(max.max(1)) }
    }

    pub(crate) fn resize(&self, max: usize) {
        self.max.store(max.max(1), Ordering::Relaxed);
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn take(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let more = |taken| (taken < max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    pub(super) fn give_back(&self) {
        let before = self.taken.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a permit was given back twice");
    }
}

/// What the engines of one cache share.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Keys on their way, in L2 or at the source.
    pub(crate) flights: Permits,
    /// Loads at the source.
    pub(crate) loads: Permits,
}

impl Bounds {
    pub(crate) fn new(flights_max: usize, loads_max: usize) -> Self {
        Self { flights: Permits::new(flights_max), loads: Permits::new(loads_max) }
    }
}
