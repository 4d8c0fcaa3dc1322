//! What comes from outside: values that are set, invalidations, and the notices of L2.
//!
//! Invariant: an event voids what is on its way before it changes L1, in one step of the key's engine, so that no
//! question put before it can bring the old value back.

use bytes::Bytes;

use super::flight::{ALL_VERSIONS, Action, Phase, Waiting};
use super::{Engine, Keep, Level};
use crate::entry::{Answer, Entry, Freshness, Made};
use crate::l1::L1;
use crate::l2::{Stored, Version};
use crate::policy::OnChange;
use crate::stats::Counter;

impl<W: Waiting> Engine<W> {
    /// Event: the key was given a value from outside. It is newer than what is on its way, and answers those who wait.
    /// Nothing happens if L1 has a newer version. Returns what L2 is to be told.
    pub(crate) fn set(
        &mut self,
        l1: &L1,
        key: &[u8],
        made: Made,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) -> Option<Stored> {
        if made.version != 0 && made.version < l1.version(key, now_ms) {
            return None;
        }
        let number = l1.marks.key(key);
        let stored = made.stored();
        let (value, ttl_ms) = (made.value.clone(), made.ttl_ms);
        if let Some(flight) = self.flights.get_mut(key) {
            flight.void(number, ALL_VERSIONS);
            flight.native = false;
            let waiters = std::mem::take(&mut flight.waiters);
            self.wake(waiters, &Ok(Answer { value, level: Level::L1, age_ms: 0, ttl_ms }), out);
        }
        if ttl_ms > 0 {
            let cap_ms = self.policy.l1_ttl_ms.filter(|_| self.tiers.l2);
            let entry = made.entry(l1.marks.current(), now_ms, cap_ms, &self.policy);
            if self.tiers.l2 {
                entry.expect_notice();
            }
            l1.store(Bytes::copy_from_slice(key), entry, now_ms);
        } else {
            l1.remove(key);
        }
        Some(stored)
    }

    /// Event: L2 answered a question that no flight stood for (a bulk lookup). Kept unless something came meanwhile.
    pub(crate) fn adopt(
        &mut self,
        l1: &L1,
        key: Bytes,
        stored: Stored,
        as_of: u64,
        now_ms: u64,
    ) -> Option<Answer> {
        let stale = stored.version != 0 && stored.version < l1.version(&key, now_ms);
        if stale || l1.marks.touched(as_of, &key, &stored.tags) {
            return None;
        }
        self.bump(Counter::L2Hits);
        let made = Made::from(stored);
        let ttl_ms = made.ttl_ms.saturating_sub(made.age_ms);
        let answer = Answer { value: made.value.clone(), level: Level::L2, age_ms: made.age_ms, ttl_ms };
        l1.store(key, made.entry(as_of, now_ms, self.policy.l1_ttl_ms, &self.policy), now_ms);
        Some(answer)
    }

    /// Event: a snapshot has this entry. Stored unless the key is known or on its way.
    pub(crate) fn restore(&mut self, l1: &L1, key: Bytes, entry: Entry, now_ms: u64) -> bool {
        let usable = l1.freshness(&entry, now_ms) != Freshness::Dead;
        usable && !self.flights.contains_key(&key) && l1.peek(&key).is_none() && l1.store(key, entry, now_ms)
    }

    /// Event: the key's value is no longer true; values of `version` and newer are, unless it is zero. Whether L1 had one
    /// that is meant.
    pub(crate) fn changed(
        &mut self,
        l1: &L1,
        key: &[u8],
        version: Version,
        how: OnChange,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) -> bool {
        let number = l1.marks.key(key);
        let below = if version == 0 { ALL_VERSIONS } else { version };
        self.void(l1, key, number, below, now_ms, out);
        l1.change(key, version, how, now_ms)
    }

    /// Event: the keys of a prefix changed, by this number. The caller changes L1 when every engine has heard of it.
    pub(crate) fn swept(
        &mut self,
        l1: &L1,
        prefix: &[u8],
        number: u64,
        version: Version,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        let below = if version == 0 { ALL_VERSIONS } else { version };
        let keys: Vec<Bytes> = self.flights.keys().filter(|key| key.starts_with(prefix)).cloned().collect();
        for key in keys {
            self.void(l1, &key, number, below, now_ms, out);
        }
    }

    /// Notice: the key was filled with this version, by this node or another.
    pub(crate) fn noticed_fill(
        &mut self,
        l1: &L1,
        key: &[u8],
        version: Version,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        let below = if version == 0 { ALL_VERSIONS } else { version };
        if let Some(entry) = l1.peek(key) {
            let newer = if version == 0 { !entry.take_notice() } else { entry.version < version };
            if newer {
                l1.change(key, 0, self.policy.on_change, now_ms);
            }
        }
        let Some(flight) = self.flights.get_mut(key) else { return };
        match &mut flight.phase {
            Phase::Waiting => self.ask_again(l1, key, now_ms, out),
            // What is on its way may have been read before the fill.
            Phase::Asking => {
                let number = l1.marks.key(key);
                flight.void(number, below);
            }
            Phase::Loading if flight.keep == Keep::Brief || version != 0 => {
                let number = l1.marks.key(key);
                flight.void(number, below);
            }
            // Without a version L2 decides when it is filled. The first notice is that of the fill itself.
            Phase::Filling { notices, .. } if version == 0 => *notices += 1,
            Phase::Filling { made, .. } if made.version < version => {
                let number = l1.marks.key(key);
                flight.void(number, below);
            }
            Phase::Filling { .. } | Phase::Loading | Phase::Locking => {}
        }
    }

    /// Notice: a lease of the key was given back.
    pub(crate) fn noticed_release(&mut self, l1: &L1, key: &[u8], now_ms: u64, out: &mut Vec<Action<W>>) {
        let Some(flight) = self.flights.get_mut(key) else { return };
        flight.heard = true;
        if matches!(flight.phase, Phase::Waiting) {
            self.ask_again(l1, key, now_ms, out);
        }
    }

    /// Notice: notices may have been lost, by this number. The caller has marked L1; here, what is on its way may be void,
    /// and nobody waits for a notice that may be lost.
    pub(crate) fn noticed_gap(&mut self, l1: &L1, number: u64, now_ms: u64, out: &mut Vec<Action<W>>) {
        let keys: Vec<Bytes> = self.flights.keys().cloned().collect();
        for key in keys {
            self.void(l1, &key, number, ALL_VERSIONS, now_ms, out);
        }
    }

    /// Voids what is on its way for a key.
    fn void(
        &mut self,
        l1: &L1,
        key: &[u8],
        number: u64,
        below: Version,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        let Some(flight) = self.flights.get_mut(key) else { return };
        flight.void(number, below);
        if matches!(flight.phase, Phase::Waiting) {
            self.ask_again(l1, key, now_ms, out);
        }
    }

    /// Ends a wait for another node's load: L2 is asked again.
    fn ask_again(&mut self, l1: &L1, key: &[u8], now_ms: u64, out: &mut Vec<Action<W>>) {
        let Some((key, flight)) = self.flights.remove_entry(key) else { return };
        self.descend(l1, key, flight, 0, now_ms, out);
    }
}
