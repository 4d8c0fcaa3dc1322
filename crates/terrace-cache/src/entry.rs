//! What is kept for a key, and what it is good for at a given time.
//!
//! Invariant: the instants of an entry are fixed when it is stored; afterwards its life can only be ended earlier. So a
//! hit reads no policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;

use crate::l2::{Stored, TAGS_MAX, Version};
use crate::policy::Policy;

/// The level that answered a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// A fresh entry in the memory of this process.
    L1,
    /// The level that the fleet shares.
    L2,
    /// The source, or the caller's own loader.
    Source,
    /// An entry past its life, during its refresh or because its reload failed.
    Stale,
}

impl Level {
    /// The word for response headers and logs: `L1`, `L2`, `source` or `stale`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::Source => "source",
            Self::Stale => "stale",
        }
    }

    /// The `hit_level` that users of `resty.mlcache` know: 1 for memory, 2 for the shared level, 3 for the callback, 4
    /// for stale.
    pub fn hit_level(self) -> u8 {
        match self {
            Self::L1 => 1,
            Self::L2 => 2,
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
    /// Milliseconds since the value was loaded.
    pub age_ms: u64,
    /// Milliseconds of fresh life that remain; 0 when stale, and for a value that was not stored.
    pub ttl_ms: u64,
}

/// What an entry is good for at a given time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Serve.
    Fresh,
    /// Serve as fresh, and refresh ahead of the end.
    Ahead,
    /// Serve, and refresh.
    Revalidate,
    /// Serve only if a load fails.
    OnError,
    /// Of no use any more.
    Dead,
}

/// Never: no instant is later.
pub(crate) const NEVER_MS: u64 = u64::MAX;

/// A value with the instants that decide its use.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) value: Option<Bytes>,
    pub(crate) version: Version,
    pub(crate) tags: Box<[Arc<str>]>,
    /// The number of the latest event, of those that end the truth of values, that the value is known to postdate.
    pub(crate) as_of: u64,
    /// May lie before the clock's zero, and then wraps.
    stored_ms: u64,
    refresh_from_ms: u64,
    fresh_until_ms: u64,
    revalidate_until_ms: u64,
    error_until_ms: u64,
    /// The life was ended at this instant, whatever it was to be.
    ended_ms: AtomicU64,
    /// No refresh starts before this instant.
    refresh_not_before_ms: AtomicU64,
    /// In the error window the value is served without a load until this instant.
    failed_until_ms: AtomicU64,
    /// The notice of this entry's own fill, which has no version to tell it by, is still to come.
    notice_due: AtomicBool,
}

/// What an entry is made of.
pub(crate) struct Made {
    pub(crate) value: Option<Bytes>,
    pub(crate) version: Version,
    pub(crate) tags: Vec<Arc<str>>,
    /// How old the value is.
    pub(crate) age_ms: u64,
    /// Its fresh life, counted from its age of zero.
    pub(crate) ttl_ms: u64,
    /// Its whole life with the stale windows, counted likewise.
    pub(crate) dead_ms: u64,
}

impl From<Stored> for Made {
    fn from(stored: Stored) -> Self {
        let Stored { value, version, age_ms, ttl_ms, dead_ms, tags } = stored;
        Self { value, version, tags, age_ms, ttl_ms, dead_ms: dead_ms.max(ttl_ms) }
    }
}

impl Made {
    /// A value that was loaded just now; the stale windows are the policy's.
    pub(crate) fn now(
        value: Option<Bytes>,
        version: Version,
        tags: Vec<Arc<str>>,
        ttl_ms: u64,
        policy: &Policy,
    ) -> Self {
        let window_ms = match value {
            Some(_) => policy.stale_while_revalidate_ms.max(policy.stale_if_error_ms),
            None => 0,
        };
        Self { value, version, tags, age_ms: 0, ttl_ms, dead_ms: ttl_ms.saturating_add(window_ms) }
    }

    /// The same as L2 keeps it.
    pub(crate) fn stored(&self) -> Stored {
        Stored {
            value: self.value.clone(),
            version: self.version,
            age_ms: self.age_ms,
            ttl_ms: self.ttl_ms,
            dead_ms: self.dead_ms,
            tags: self.tags.clone(),
        }
    }

    /// The entry of L1, with a fresh life from now of at most `cap_ms`.
    pub(crate) fn entry(mut self, as_of: u64, now_ms: u64, cap_ms: Option<u64>, policy: &Policy) -> Entry {
        self.tags.truncate(TAGS_MAX);
        let at = |life_ms: u64| now_ms.saturating_add(life_ms).saturating_sub(self.age_ms);
        let dead_at_ms = at(self.dead_ms);
        let cap_at_ms = now_ms.saturating_add(cap_ms.unwrap_or(u64::MAX));
        let fresh_until_ms = at(self.ttl_ms).min(cap_at_ms);
        let revalidate_ms = if self.value.is_some() { policy.stale_while_revalidate_ms } else { 0 };
        // Counted in lives, not from the instant, which cannot lie before the clock's zero.
        let revalidate_until_ms =
            at(self.ttl_ms.saturating_add(revalidate_ms)).min(cap_at_ms.saturating_add(revalidate_ms));
        let ahead_ms =
            fresh_until_ms.saturating_sub(now_ms) / 100 * u64::from(policy.refresh_ahead_percent.min(100));
        Entry {
            value: self.value,
            version: self.version,
            tags: self.tags.into_boxed_slice(),
            as_of,
            stored_ms: now_ms.wrapping_sub(self.age_ms),
            refresh_from_ms: if ahead_ms == 0 { NEVER_MS } else { fresh_until_ms - ahead_ms },
            fresh_until_ms,
            revalidate_until_ms: revalidate_until_ms.min(dead_at_ms).max(fresh_until_ms),
            error_until_ms: dead_at_ms.max(fresh_until_ms),
            ended_ms: AtomicU64::new(NEVER_MS),
            refresh_not_before_ms: AtomicU64::new(0),
            failed_until_ms: AtomicU64::new(0),
            notice_due: AtomicBool::new(false),
        }
    }
}

impl Entry {
    /// What the entry is good for, if its life was ended at `ended_ms` at the latest: all windows move by what it lost.
    pub(crate) fn freshness(&self, now_ms: u64, ended_ms: u64) -> Freshness {
        let now_ms = self.seen_from(now_ms, ended_ms);
        if now_ms < self.fresh_until_ms {
            if now_ms < self.refresh_from_ms { Freshness::Fresh } else { Freshness::Ahead }
        } else if now_ms < self.revalidate_until_ms {
            Freshness::Revalidate
        } else if now_ms < self.error_until_ms {
            Freshness::OnError
        } else {
            Freshness::Dead
        }
    }

    /// The answer, if this entry can give one without anyone starting or awaiting a load.
    pub(crate) fn answer_now(&self, now_ms: u64, ended_ms: u64) -> Option<Answer> {
        let serve = match self.freshness(now_ms, ended_ms) {
            Freshness::Fresh => true,
            Freshness::Ahead | Freshness::Revalidate => {
                now_ms < self.refresh_not_before_ms.load(Ordering::Relaxed)
            }
            Freshness::OnError => now_ms < self.failed_until_ms.load(Ordering::Relaxed),
            Freshness::Dead => false,
        };
        serve.then(|| self.answer(now_ms, ended_ms))
    }

    /// The answer that this entry gives at `now_ms`, fresh or stale.
    pub(crate) fn answer(&self, now_ms: u64, ended_ms: u64) -> Answer {
        let ttl_ms = self.fresh_until_ms.saturating_sub(self.seen_from(now_ms, ended_ms));
        Answer {
            value: self.value.clone(),
            level: if ttl_ms > 0 { Level::L1 } else { Level::Stale },
            age_ms: self.age_ms(now_ms),
            ttl_ms,
        }
    }

    /// Milliseconds since the value was loaded; 0 should the clock have gone back.
    pub(crate) fn age_ms(&self, now_ms: u64) -> u64 {
        u64::try_from(now_ms.wrapping_sub(self.stored_ms).cast_signed()).unwrap_or(0)
    }

    /// The fresh life and the whole life, counted from the load, as they stand at `now_ms`.
    pub(crate) fn lives_ms(&self, now_ms: u64, ended_ms: u64) -> (u64, u64) {
        let (age_ms, now_ms) = (self.age_ms(now_ms), self.seen_from(now_ms, ended_ms));
        let left = |until_ms: u64| until_ms.saturating_sub(now_ms);
        (age_ms.saturating_add(left(self.fresh_until_ms)), age_ms.saturating_add(left(self.error_until_ms)))
    }

    /// When the entry's own life was ended; [`NEVER_MS`] if it was not.
    pub(crate) fn ended_ms(&self) -> u64 {
        self.ended_ms.load(Ordering::Relaxed)
    }

    /// Ends the life at `now_ms`: from then on the entry is past it, and is due for a refresh.
    pub(crate) fn end(&self, now_ms: u64) {
        self.ended_ms.fetch_min(now_ms, Ordering::Relaxed);
        self.refresh_not_before_ms.store(0, Ordering::Relaxed);
    }

    /// Keeps lookups from starting a refresh before `until_ms`.
    pub(crate) fn hold_refresh(&self, until_ms: u64) {
        self.refresh_not_before_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Notes a failed load: until `until_ms` the value is served without another attempt.
    pub(crate) fn note_failure(&self, until_ms: u64) {
        self.refresh_not_before_ms.store(until_ms, Ordering::Relaxed);
        self.failed_until_ms.store(until_ms, Ordering::Relaxed);
    }

    /// Expects one notice of a fill without a version, which is the entry's own.
    pub(crate) fn expect_notice(&self) {
        self.notice_due.store(true, Ordering::Relaxed);
    }

    /// Whether the notice of a fill without a version is this entry's own; so once.
    pub(crate) fn take_notice(&self) -> bool {
        self.notice_due.swap(false, Ordering::Relaxed)
    }

    fn seen_from(&self, now_ms: u64, ended_ms: u64) -> u64 {
        if ended_ms >= self.fresh_until_ms {
            return now_ms;
        }
        now_ms.saturating_add(self.fresh_until_ms - ended_ms).max(self.fresh_until_ms)
    }
}
