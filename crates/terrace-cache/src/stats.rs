//! Counters and latencies of a cache: bumped without contention on the hit path, summed when read.
//!
//! Each thread bumps its own slot of a small table of cache lines, so that workers do not fight for a line.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::histogram::Latencies;

/// Number of slots that threads are spread over.
const SLOTS: usize = 16;

macro_rules! counters {
    ($($(#[$doc:meta])* $counter:ident $field:ident,)*) => {
        /// What is counted; the index into a slot.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Counter {
            $($counter,)*
            Count,
        }

        /// What a cache has done since it was made, and what it holds now.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $field: u64,)*
            /// Entries in L1 now.
            pub entries: u64,
            /// Bytes in L1 now, as the bound counts them.
            pub size_bytes: u64,
            /// Loads running now.
            pub loads_running: u64,
            /// Keys on their way now, in L2 or at the source.
            pub lookups_running: u64,
            /// Whether L2 is asked; false while it is away, and without one.
            pub l2_up: bool,
            /// How long questions to L2 took.
            pub l2_latency: Latencies,
            /// How long loads by the source took. Loads of callers are not measured.
            pub source_latency: Latencies,
        }

        impl Counters {
            /// What was counted; what the cache holds now is left empty.
            pub(crate) fn read(&self) -> Stats {
                Stats { $($field: self.sum(Counter::$counter),)* ..Stats::default() }
            }
        }

        impl Stats {
            /// All counters by their names, as an exporter lists them.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
                [$((stringify!($field), self.$field),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Lookups answered by a fresh value in L1.
    Hits hits,
    /// Lookups answered by a fresh negative entry in L1 (not counted in `hits`).
    NegativeHits negative_hits,
    /// Lookups answered as absent by the filter of existing keys.
    FilterNegatives filter_negatives,
    /// Lookups answered by a value past its life, whether during a refresh or because a load failed.
    StaleServes stale_serves,
    /// Lookups that L1 could not answer.
    Misses misses,
    /// Misses that joined a key which was already on its way.
    Waits waits,
    /// Loads begun, refreshes included.
    Loads loads,
    /// Refreshes begun in the background for a value past its life.
    Refreshes refreshes,
    /// Refreshes begun in the background for a value near the end of its life.
    RefreshesAhead refreshes_ahead,
    /// Loads that failed, timeouts included.
    LoadErrors load_errors,
    /// Loads that took longer than the policy allows.
    LoadTimeouts load_timeouts,
    /// Results that came after their load had timed out; not stored.
    LateLoads late_loads,
    /// Results that were not stored because their key was invalidated or set while they were on their way.
    VoidedLoads voided_loads,
    /// Results that were not stored because L1 has a newer version.
    OlderLoads older_loads,
    /// Loads whose loader went away and that were handed to a waiter.
    HandOvers hand_overs,
    /// Times that the bound of waiters for a key was hit.
    WaitersRefused waiters_refused,
    /// Times that the bound of running loads was hit.
    LoadsRefused loads_refused,
    /// Times that the bound of keys on their way was hit.
    LookupsRefused lookups_refused,
    /// Invalidations, of keys, prefixes, tags and everything, by this process or heard of.
    Invalidations invalidations,
    /// Entries that L1 dropped to stay inside its bound.
    Evictions evictions,
    /// Questions that L2 answered with a fresh value that was used.
    L2Hits l2_hits,
    /// Questions that L2 answered with a lease.
    L2Misses l2_misses,
    /// Questions that L2 answered with the word that another node loads.
    LeasesHeld leases_held,
    /// Waits for another node's load.
    HeldWaits held_waits,
    /// Waits for another node's load that ended without it: a stale value was served, or a load ran past L2.
    Fallbacks fallbacks,
    /// Calls that L2 failed.
    L2Errors l2_errors,
    /// Calls that took L2 longer than the soft timeout.
    L2Timeouts l2_timeouts,
    /// Times that L2 was found to be away.
    L2Outages l2_outages,
    /// Lookups that went past L2 while it was away.
    L2Bypasses l2_bypasses,
    /// Fills that L2 kept.
    L2Fills l2_fills,
    /// Fills that L2 refused because their lease was void.
    L2FillsVoided l2_fills_voided,
    /// Fills that L2 refused because it knows a newer version.
    L2FillsOlder l2_fills_older,
    /// Times that L2 had an older version than L1 and was told so.
    Repairs repairs,
    /// Loads that went on without the fleet lock, because it was not had in time.
    LocksMissed locks_missed,
    /// Notices of L2 that were heard.
    Notices notices,
    /// Gaps in the notices.
    Gaps gaps,
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
}
