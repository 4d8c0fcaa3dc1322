//! Counters of a cache: bumped without contention on the hit path, summed when read.
//!
//! Each thread bumps its own slot of a small table of cache lines, so that workers do not fight for a line.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Number of slots that threads are spread over.
const SLOTS: usize = 16;

/// What is counted; the index into a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Counter {
    Hits,
    NegativeHits,
    StaleServes,
    Misses,
    Waits,
    Loads,
    Refreshes,
    LoadErrors,
    LoadTimeouts,
    LateLoads,
    VoidedLoads,
    HandOvers,
    WaitersRefused,
    LoadsRefused,
    Invalidations,
    Evictions,
    Count,
}

#[repr(align(128))]
struct Slot([AtomicU64; Counter::Count as usize]);

/// The counters of one cache.
pub(crate) struct Counters(Box<[Slot]>);

impl Counters {
    pub(crate) fn new() -> Self {
        Self((0..SLOTS).map(|_| Slot(std::array::from_fn(|_| AtomicU64::new(0)))).collect())
    }

    pub(crate) fn bump(&self, counter: Counter) {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SLOT: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SLOTS;
        }
        // A thread that is being torn down has lost its slot; any slot is right, only slower.
        let slot = SLOT.try_with(|slot| *slot).unwrap_or(0);
        self.0[slot].0[counter as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn sum(&self, counter: Counter) -> u64 {
        self.0.iter().map(|slot| slot.0[counter as usize].load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn read(&self) -> Stats {
        Stats {
            hits: self.sum(Counter::Hits),
            negative_hits: self.sum(Counter::NegativeHits),
            stale_serves: self.sum(Counter::StaleServes),
            misses: self.sum(Counter::Misses),
            waits: self.sum(Counter::Waits),
            loads: self.sum(Counter::Loads),
            refreshes: self.sum(Counter::Refreshes),
            load_errors: self.sum(Counter::LoadErrors),
            load_timeouts: self.sum(Counter::LoadTimeouts),
            late_loads: self.sum(Counter::LateLoads),
            voided_loads: self.sum(Counter::VoidedLoads),
            hand_overs: self.sum(Counter::HandOvers),
            waiters_refused: self.sum(Counter::WaitersRefused),
            loads_refused: self.sum(Counter::LoadsRefused),
            invalidations: self.sum(Counter::Invalidations),
            evictions: self.sum(Counter::Evictions),
            entries: 0,
            size_bytes: 0,
            loads_running: 0,
        }
    }
}

/// What a cache has done since it was made, and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Lookups answered by a fresh value in L1.
    pub hits: u64,
    /// Lookups answered by a fresh negative entry in L1 (not counted in `hits`).
    pub negative_hits: u64,
    /// Lookups answered by a value past its life, whether during a refresh or because a load failed.
    pub stale_serves: u64,
    /// Lookups that L1 could not answer.
    pub misses: u64,
    /// Misses that joined a load which was already running.
    pub waits: u64,
    /// Loads begun, refreshes included.
    pub loads: u64,
    /// Loads begun in the background for a value that was served stale.
    pub refreshes: u64,
    /// Loads that failed, timeouts included.
    pub load_errors: u64,
    /// Loads that took longer than the policy allows.
    pub load_timeouts: u64,
    /// Results that came after their load had timed out; not stored.
    pub late_loads: u64,
    /// Results that were not stored because their key was invalidated or set while they were on their way.
    pub voided_loads: u64,
    /// Loads whose loader went away and that were handed to a waiter.
    pub hand_overs: u64,
    /// Times that the bound of waiters for a key was hit.
    pub waiters_refused: u64,
    /// Times that the bound of running loads was hit.
    pub loads_refused: u64,
    /// Keys deleted, and purges of everything.
    pub invalidations: u64,
    /// Entries that L1 dropped to stay inside its bound.
    pub evictions: u64,
    /// Entries in L1 now.
    pub entries: u64,
    /// Bytes in L1 now, as the bound counts them.
    pub size_bytes: u64,
    /// Loads running now.
    pub loads_running: u64,
}
