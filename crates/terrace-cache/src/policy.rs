//! The policy of a cache: lives, windows, timeouts and bounds, with their defaults; and the seeded jitter.

/// How a cache keeps, serves and reloads values. All times are milliseconds.
///
/// The life of a value has up to four parts, counted from the moment it was stored:
///
/// ```text
/// |---- fresh: ttl less jitter ----|-- stale_while_revalidate --|
///                                  |--------- stale_if_error ---------|
/// ```
///
/// Fresh, it is served at once. In the revalidate window it is served at once and one refresh starts in the
/// background. In what remains of the error window a lookup waits for a load, and gets the old value if that load
/// fails. After both windows it is as if it were absent. Negative entries have no stale windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Life of a value whose loader names none. Default 600 000 (10 minutes).
    pub ttl_ms: u64,
    /// Each loaded value lives up to this share less than its ttl, so that values loaded together do not expire
    /// together. Percent, at most 100; default 10. Values set explicitly are not jittered.
    pub jitter_percent: u8,
    /// Life of a negative entry ("the source has no such thing"). Default 5 000; zero keeps none.
    pub negative_ttl_ms: u64,
    /// How long after its life a value is still served while it is refreshed. Default 60 000; zero switches it off.
    pub stale_while_revalidate_ms: u64,
    /// How long after its life a value still stands in for a failed load. Default 3 600 000; zero switches it off.
    pub stale_if_error_ms: u64,
    /// After a failed load, how long a stale value is served without trying the source again. Default 1 000.
    pub error_retry_ms: u64,
    /// A load that takes longer is void: its waiters get the stale value or an error. Default 5 000.
    pub load_timeout_ms: u64,
    /// How many lookups may wait for one key. Default 4 096; at least 1.
    pub waiters_per_key_max: usize,
    /// How many loads may run at once in the whole cache. Default 256; at least 1.
    pub loads_max: usize,
    /// Bound of L1 in bytes: keys, values and [`crate::ENTRY_OVERHEAD_BYTES`] for each entry. Default 64 MiB;
    /// rounded down to whole KiB, at least one. A
    /// value that is larger than its shard of L1 (the bound divided by the number of shards, which is a few per
    /// processor) is served but not kept.
    pub size_bytes_max: u64,
    /// An entry in the last part of its fresh life is served, and one refresh begins in the background. Percent of the
    /// life, at most 100; default 0: off.
    pub refresh_ahead_percent: u8,
    /// What an invalidation that comes as a notice of L2 does to the copy in L1. Default [`OnChange::Drop`].
    pub on_change: OnChange,
    /// How many invalidations of a key with [`OnChange::Refresh`] begin their refresh at once, each second; for those
    /// beyond it the next lookup does. Default 100.
    pub invalidation_refreshes_per_s: u32,
    /// The longest fresh life in L1 of a value that L2 has. Default none: what remains of its life in L2.
    pub l1_ttl_ms: Option<u64>,
    /// Soft timeout of a call to L2. A lookup that waits longer goes on to the source, and what L2 says later is only
    /// used to give a lease back; the call itself is bounded by the store. Default 250.
    pub l2_timeout_ms: u64,
    /// When L2 fails and nothing succeeded for `l2_timeout_ms`, it is left alone for this long; then one lookup tries,
    /// and on its success all do. Default 1 000.
    pub l2_retry_ms: u64,
    /// Fresh life of what was loaded past L2: L2 was away, or a lease was held elsewhere for too long. No notice is sure
    /// to reach such a value. Default 10 000.
    pub l2_down_ttl_ms: u64,
    /// How long L2 keeps the right to load for one node. Default 10 000; at least `load_timeout_ms`, `lock_wait_ms` and
    /// twice `l2_timeout_ms` together count.
    pub lease_ms: u64,
    /// How long a lookup waits for a load of another node before it takes a stale value or loads by itself. Default
    /// 1 000.
    pub held_wait_ms: u64,
    /// How long a load waits for the fleet lock, where there is one, before it goes on without it. Default 1 000.
    pub lock_wait_ms: u64,
    /// How many keys may be on their way at once, in L2 or at the source. Default 8 192; at least 1.
    pub lookups_max: usize,
}

/// What a change does to the copies in L1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// They are dropped: no lookup is answered by them any more.
    #[default]
    Drop,
    /// Their life ends: they are served as past their life (for `stale_while_revalidate_ms` from now, and in place of an
    /// error for `stale_if_error_ms`) while one refresh is under way.
    Refresh,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl_ms: 600_000,
            jitter_percent: 10,
            negative_ttl_ms: 5_000,
            stale_while_revalidate_ms: 60_000,
            stale_if_error_ms: 3_600_000,
            error_retry_ms: 1_000,
            load_timeout_ms: 5_000,
            waiters_per_key_max: 4_096,
            loads_max: 256,
            size_bytes_max: 64 * 1024 * 1024,
            refresh_ahead_percent: 0,
            on_change: OnChange::Drop,
            invalidation_refreshes_per_s: 100,
            l1_ttl_ms: None,
            l2_timeout_ms: 250,
            l2_retry_ms: 1_000,
            l2_down_ttl_ms: 10_000,
            lease_ms: 10_000,
            held_wait_ms: 1_000,
            lock_wait_ms: 1_000,
            lookups_max: 8_192,
        }
    }
}

impl Policy {
    /// The lease that L2 is asked for: long enough for a load that takes all the time it may.
    pub(crate) fn lease_for_load_ms(&self) -> u64 {
        let load_ms = self.load_timeout_ms.saturating_add(self.lock_wait_ms);
        self.lease_ms.max(load_ms.saturating_add(self.l2_timeout_ms.saturating_mul(2)))
    }
}

/// A seeded stream of numbers (SplitMix64, Steele, Lea and Flood 2014): enough to spread expiry, not for secrets.
#[derive(Clone, Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number of the stream.
    pub(crate) fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `ttl_ms` shortened by a drawn part of at most `percent` of it; a life that is not zero stays above zero.
    pub(crate) fn shorten(&mut self, ttl_ms: u64, percent: u8) -> u64 {
        let widest =
            ttl_ms / 100 * u64::from(percent.min(100)) + ttl_ms % 100 * u64::from(percent.min(100)) / 100;
        let cut = self.draw() % (widest + 1);
        (ttl_ms - cut).max(ttl_ms.min(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_only_shortens_and_never_beyond_its_share() {
        let mut jitter = Jitter::new(7);
        let lives: Vec<u64> = (0..1000).map(|_| jitter.shorten(600_000, 10)).collect();
        assert!(lives.iter().all(|&life| (540_000..=600_000).contains(&life)));
        assert!(lives.iter().any(|&life| life < 550_000) && lives.iter().any(|&life| life > 590_000));
    }

    #[test]
    fn jitter_keeps_the_edges() {
        let mut jitter = Jitter::new(7);
        assert_eq!(jitter.shorten(0, 100), 0);
        assert!((0..100).all(|_| jitter.shorten(1, 100) == 1));
        assert!((0..100).all(|_| jitter.shorten(u64::MAX - 1, 100) >= 1));
        assert_eq!(jitter.shorten(1234, 0), 1234);
    }
}
