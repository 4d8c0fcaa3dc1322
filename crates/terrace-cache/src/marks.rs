//! Events that end the truth of many values at once, kept so that each costs the same however many values it means.
//!
//! All events that end the truth of values have one sequence of numbers. A value (or a question on its way) remembers the
//! number that was current when it was asked for; an event with a larger number that means it, ends it. Nothing is
//! scanned: tags and keys are hashed into tables of fixed size, and two that fall together share their events, which
//! costs a lookup and never shows an old value.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::entry::{Entry, NEVER_MS};

/// Size of the tables.
const SLOTS: usize = 4096;

/// An event that ended lives, and when.
#[derive(Debug, Default)]
struct Ending {
    number: AtomicU64,
    at_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct TagSlot {
    dropped: AtomicU64,
    ended: Ending,
}

/// The events of one cache.
pub(crate) struct Marks {
    number: AtomicU64,
    gap: Ending,
    /// The latest event that meant keys by a prefix, or all of them.
    swept: AtomicU64,
    tags: Box<[TagSlot]>,
    keys: Box<[AtomicU64]>,
    hasher: ahash::RandomState,
}

impl Marks {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            number: AtomicU64::new(1),
            gap: Ending::default(),
            swept: AtomicU64::new(0),
            tags: (0..SLOTS).map(|_| TagSlot::default()).collect(),
            keys: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: ahash::RandomState::with_seeds(seed, 11, 13, !seed),
        }
    }

    /// The number of the latest event.
    pub(crate) fn current(&self) -> u64 {
        self.number.load(Ordering::Acquire)
    }

    /// Event: notices may have been lost up to now. Lives of what was asked for before end now.
    pub(crate) fn gap(&self, now_ms: u64) -> u64 {
        let number = self.next();
        self.gap.mark(number, now_ms);
        number
    }

    /// Event: one key changed.
    pub(crate) fn key(&self, key: &[u8]) -> u64 {
        let number = self.next();
        self.keys[self.slot(key)].store(number, Ordering::Release);
        number
    }

    /// Event: the keys of a prefix changed.
    pub(crate) fn sweep(&self) -> u64 {
        let number = self.next();
        self.swept.store(number, Ordering::Release);
        number
    }

    /// Event: the values of a tag are no longer true, and are not to be served.
    pub(crate) fn drop_tag(&self, tag: &str) {
        self.tags[self.slot(tag.as_bytes())].dropped.store(self.next(), Ordering::Release);
    }

    /// Event: the values of a tag are past their life from now on.
    pub(crate) fn end_tag(&self, tag: &str, now_ms: u64) {
        self.tags[self.slot(tag.as_bytes())].ended.mark(self.next(), now_ms);
    }

    /// When the life of an entry ended; [`NEVER_MS`] if no event ended it, none if it is not to be served at all.
    pub(crate) fn ended_ms(&self, entry: &Entry) -> Option<u64> {
        let mut ended_ms = entry.ended_ms();
        if self.gap.number.load(Ordering::Acquire) > entry.as_of {
            ended_ms = ended_ms.min(self.gap.at_ms.load(Ordering::Relaxed));
        }
        for tag in &entry.tags {
            let slot = &self.tags[self.slot(tag.as_bytes())];
            if slot.dropped.load(Ordering::Acquire) > entry.as_of {
                return None;
            }
            if slot.ended.number.load(Ordering::Acquire) > entry.as_of {
                ended_ms = ended_ms.min(slot.ended.at_ms.load(Ordering::Relaxed));
            }
        }
        Some(ended_ms)
    }

    /// The latest event by a tag that a value of these tags, asked for as of `as_of`, is void by.
    pub(crate) fn tags_voided(&self, as_of: u64, tags: &[Arc<str>]) -> Option<u64> {
        let latest = |tag: &Arc<str>| {
            let slot = &self.tags[self.slot(tag.as_bytes())];
            slot.dropped.load(Ordering::Acquire).max(slot.ended.number.load(Ordering::Acquire))
        };
        tags.iter().map(latest).max().filter(|&number| number > as_of)
    }

    /// Whether any event that may have meant this value came after `as_of`. For questions that no flight stands for.
    pub(crate) fn touched(&self, as_of: u64, key: &[u8], tags: &[Arc<str>]) -> bool {
        self.keys[self.slot(key)].load(Ordering::Acquire) > as_of
            || self.swept.load(Ordering::Acquire) > as_of
            || self.tags_voided(as_of, tags).is_some()
    }

    fn next(&self) -> u64 {
        self.number.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn slot(&self, bytes: &[u8]) -> usize {
        (self.hasher.hash_one(Hashed(bytes)) % SLOTS as u64) as usize
    }
}

impl Ending {
    /// The instant goes first: whoever sees the number sees an instant that is not too late.
    fn mark(&self, number: u64, now_ms: u64) {
        self.at_ms.store(now_ms.min(NEVER_MS - 1), Ordering::Release);
        self.number.store(number, Ordering::Release);
    }
}

struct Hashed<'a>(&'a [u8]);

impl Hash for Hashed<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}
