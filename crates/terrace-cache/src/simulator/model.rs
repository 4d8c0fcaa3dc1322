//! A model of L2 with the semantics of the trait: leases, voiding, version floors, and failovers that lose the newest
//! writes. It checks that no write takes a key back.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::l2::{Filled, Found, LeaseToken, Stored, Version};

/// A deliberate defect of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    None,
    /// Older versions replace newer ones.
    AcceptOlder,
    /// Fills under a void lease are taken.
    AcceptVoid,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    stored: Option<(Stored, u64)>,
    lease: Option<(LeaseToken, u64)>,
    floor: Version,
    /// The version of the truth when the key was last invalidated or set here: nothing older may be stored.
    pub(super) truth: u64,
}

/// What the values of the simulation carry.
pub(super) fn truth_of(value: Option<&Bytes>) -> u64 {
    value.and_then(|value| value.first_chunk()).map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}

pub(super) struct Model {
    slots: Vec<Slot>,
    tokens: u64,
    /// What each write replaced, the newest last, for failovers.
    journal: VecDeque<(u64, usize, Slot)>,
    pub(super) defect: Defect,
    pub(super) violation: Option<String>,
}

/// How long writes can be lost by a failover.
pub(super) const LAG_MS: u64 = 60;

impl Model {
    pub(super) fn new(keys: usize, defect: Defect) -> Self {
        let slots = vec![Slot::default(); keys];
        Self { slots, tokens: 0, journal: VecDeque::new(), defect, violation: None }
    }

    pub(super) fn get(&mut self, key: usize, lease_ms: u64, now_ms: u64) -> Found {
        let slot = &self.slots[key];
        let aged = slot.stored.as_ref().map(|(stored, filled_ms)| Stored {
            age_ms: now_ms - filled_ms + stored.age_ms,
            ..stored.clone()
        });
        let live = aged.filter(|stored| stored.age_ms < stored.dead_ms);
        let stale = match live {
            Some(stored) if stored.age_ms < stored.ttl_ms => return Found::Fresh(stored),
            stale => stale,
        };
        if let Some((_, until_ms)) = slot.lease.filter(|(_, until_ms)| *until_ms > now_ms) {
            return Found::Held { remaining_ms: until_ms - now_ms, stale };
        }
        self.note(key, now_ms);
        self.tokens += 1;
        self.slots[key].lease = Some((self.tokens, now_ms + lease_ms));
        Found::Lease { token: self.tokens, stale }
    }

    pub(super) fn fill(&mut self, key: usize, token: LeaseToken, stored: Stored, now_ms: u64) -> Filled {
        let holds = self.slots[key].lease.is_some_and(|(held, _)| held == token);
        if !holds && self.defect != Defect::AcceptVoid {
            return Filled::Voided;
        }
        self.write(key, stored, now_ms)
    }

    pub(super) fn set(&mut self, key: usize, stored: Stored, truth: u64, now_ms: u64) -> Filled {
        let outcome = self.write(key, stored, now_ms);
        if outcome == Filled::Stored {
            let slot = &mut self.slots[key];
            slot.truth = slot.truth.max(truth);
        }
        outcome
    }

    pub(super) fn release(&mut self, key: usize, token: LeaseToken, now_ms: u64) -> bool {
        let holds = self.slots[key].lease.is_some_and(|(held, _)| held == token);
        if holds {
            self.note(key, now_ms);
            self.slots[key].lease = None;
        }
        holds
    }

    pub(super) fn invalidate(&mut self, key: usize, version: Version, truth: u64, now_ms: u64) {
        self.note(key, now_ms);
        let slot = &mut self.slots[key];
        if version == 0 || slot.stored.as_ref().is_some_and(|(stored, _)| stored.version < version) {
            slot.stored = None;
        }
        slot.lease = None;
        slot.floor = slot.floor.max(version);
        slot.truth = slot.truth.max(truth);
    }

    /// The newest writes are lost. The keys that went back behind an invalidation or a newer value.
    pub(super) fn fail_over(&mut self, now_ms: u64) -> Vec<usize> {
        let mut tainted = Vec::new();
        while let Some((at_ms, key, slot)) = self.journal.pop_back() {
            if at_ms + LAG_MS < now_ms {
                break;
            }
            let stored =
                |slot: &Slot| slot.stored.as_ref().map_or(0, |(stored, _)| truth_of(stored.value.as_ref()));
            let lost = &self.slots[key];
            if slot.truth < lost.truth || stored(&slot) < stored(lost) {
                tainted.push(key);
            }
            self.slots[key] = slot;
        }
        // A key that went back does not know how far.
        tainted.iter().for_each(|&key| self.slots[key].truth = 0);
        self.journal.clear();
        tainted
    }

    /// Nothing older than this may be read from now on.
    pub(super) fn truth(&self, key: usize) -> u64 {
        self.slots[key].truth
    }

    fn write(&mut self, key: usize, stored: Stored, now_ms: u64) -> Filled {
        let slot = &self.slots[key];
        let known = slot.stored.as_ref().map_or(0, |(stored, _)| stored.version).max(slot.floor);
        let older = stored.version != 0 && stored.version < known;
        if older && self.defect != Defect::AcceptOlder {
            self.note(key, now_ms);
            self.slots[key].lease = None;
            return Filled::Older(known);
        }
        let truth = truth_of(stored.value.as_ref());
        if older || truth < slot.truth {
            let floor = slot.truth;
            self.violation = Some(format!("L2 took key {key} back: {truth} stored, {floor} was due"));
        }
        self.note(key, now_ms);
        let slot = &mut self.slots[key];
        slot.stored = Some((stored, now_ms));
        slot.lease = None;
        Filled::Stored
    }

    fn note(&mut self, key: usize, now_ms: u64) {
        self.journal.push_back((now_ms, key, self.slots[key].clone()));
        while self.journal.front().is_some_and(|(at_ms, ..)| at_ms + LAG_MS < now_ms) {
            self.journal.pop_front();
        }
    }
}
