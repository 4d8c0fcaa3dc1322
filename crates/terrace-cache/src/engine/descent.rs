//! The way through L2: asking it, waiting for another node's load, filling it.
//!
//! Invariants: what L2 answers is kept in L1 only if nothing that voids it was heard since L2 was asked; a load under a
//! lease is kept in L1 only if L2 took the fill; every wait has a bound.

use bytes::Bytes;

use super::flight::{Action, Flight, Keep, Phase, Ticket, Waiting};
use super::{Engine, Freshness};
use crate::entry::{Answer, Entry, Level, Made};
use crate::error::{Bound, CacheError};
use crate::l1::L1;
use crate::l2::{Filled, Found, L2Error, LeaseToken, Stored, Version};
use crate::stats::Counter;

/// How often one flight asks L2. Every question but the first follows something that was heard of the key, so this bounds
/// what a key that changes all the time can cost.
const ASKS_MAX: u8 = 16;

impl<W: Waiting> Engine<W> {
    /// Asks L2, or goes on to the source when L2 is not to be asked.
    pub(super) fn descend(
        &mut self,
        l1: &L1,
        key: Bytes,
        mut flight: Flight<W>,
        repair: Version,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        if !self.tiers.l2 {
            return self.enter_source(l1, key, flight, Keep::Local, now_ms, out);
        }
        if flight.asks >= ASKS_MAX {
            self.bump(Counter::Fallbacks);
            return self.enter_source(l1, key, flight, Keep::Brief, now_ms, out);
        }
        if !self.shared.health.allows(now_ms, self.policy.l2_retry_ms) {
            self.bump(Counter::L2Bypasses);
            return self.enter_source(l1, key, flight, Keep::Brief, now_ms, out);
        }
        self.give_back(&mut flight);
        flight.asks += 1;
        flight.as_of = l1.marks.current();
        flight.void = None;
        flight.heard = false;
        flight.phase = Phase::Asking;
        flight.deadline_ms = now_ms.saturating_add(self.policy.l2_timeout_ms.saturating_mul(2).max(1));
        let lease_ms = self.policy.lease_for_load_ms();
        let ticket = self.put(key, flight);
        out.push(Action::AskL2 { ticket, lease_ms, repair });
    }

    /// Event: L2 answered, failed, or took longer than the soft timeout.
    pub(crate) fn l2_answered(
        &mut self,
        l1: &L1,
        ticket: &Ticket,
        outcome: Result<Found, L2Error>,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        let Some(flight) = self.take(ticket) else {
            if let Ok(Found::Lease { token, .. }) = outcome {
                out.push(Action::Release { key: ticket.key.clone(), token });
            }
            return;
        };
        self.note_health(&outcome, now_ms);
        let key = ticket.key.clone();
        match outcome {
            Err(_) => self.enter_source(l1, key, flight, Keep::Brief, now_ms, out),
            Ok(Found::Fresh(stored)) => self.found(l1, key, flight, stored, now_ms, out),
            Ok(Found::Lease { token, stale }) => {
                self.bump(Counter::L2Misses);
                let flight = self.with_stale(l1, &key, flight, stale, now_ms, out);
                self.enter_source(l1, key, flight, Keep::Fleet(token), now_ms, out);
            }
            Ok(Found::Held { remaining_ms, stale }) => {
                self.bump(Counter::LeasesHeld);
                self.held(l1, key, flight, remaining_ms, stale, now_ms, out);
            }
        }
    }

    /// L2 has a fresh value.
    fn found(
        &mut self,
        l1: &L1,
        key: Bytes,
        mut flight: Flight<W>,
        stored: Stored,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        let version = stored.version;
        let voided =
            flight.voids(version).is_some() || l1.marks.tags_voided(flight.as_of, &stored.tags).is_some();
        #[cfg(test)]
        let voided = voided && self.mutation != super::Mutation::DeafFlights;
        if voided {
            // It may have been read before what was heard.
            return self.descend(l1, key, flight, 0, now_ms, out);
        }
        let known = l1.version(&key, now_ms);
        #[cfg(test)]
        let known = if self.mutation == super::Mutation::OlderReplaces { 0 } else { known };
        if version != 0 && version < known {
            // L2 has lost what this node still knows: a failover. It is told, and asked again.
            self.bump(Counter::Repairs);
            return self.descend(l1, key, flight, known, now_ms, out);
        }
        self.bump(Counter::L2Hits);
        let made = Made::from(stored);
        let ttl_ms = made.ttl_ms.saturating_sub(made.age_ms);
        let answer = Answer { value: made.value.clone(), level: Level::L2, age_ms: made.age_ms, ttl_ms };
        let entry = made.entry(flight.as_of, now_ms, self.policy.l1_ttl_ms, &self.policy);
        l1.store(key, entry, now_ms);
        flight.stale = None;
        let waiters = self.end(flight);
        self.wake(waiters, &Ok(answer), out);
    }

    /// L2 has nothing fresh, and another node loads.
    #[expect(clippy::too_many_arguments, reason = "an event with all its parts")]
    fn held(
        &mut self,
        l1: &L1,
        key: Bytes,
        flight: Flight<W>,
        remaining_ms: u64,
        stale: Option<Stored>,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        #[cfg(test)]
        if self.mutation == super::Mutation::LoadWhenHeld {
            return self.enter_source(l1, key, flight, Keep::Brief, now_ms, out);
        }
        if flight.heard {
            return self.descend(l1, key, flight, 0, now_ms, out);
        }
        let mut flight = self.with_stale(l1, &key, flight, stale, now_ms, out);
        if flight.wait_until_ms == 0 {
            flight.wait_until_ms = now_ms.saturating_add(self.policy.held_wait_ms).max(1);
        }
        let wait_ms = flight.wait_until_ms.saturating_sub(now_ms).min(remaining_ms.max(1));
        flight.waiters.retain(|waiter| !waiter.who.is_gone());
        if flight.waiters.is_empty() {
            // A refresh that another node does; the notice of its fill, or the next lookup after this, ends the old copy.
            if let Some(entry) = l1.peek(&key) {
                entry.hold_refresh(now_ms.saturating_add(wait_ms));
            }
            self.end(flight);
            return;
        }
        if wait_ms == 0 {
            return self.waited_enough(l1, key, flight, now_ms, out);
        }
        self.bump(Counter::HeldWaits);
        flight.phase = Phase::Waiting;
        flight.deadline_ms = now_ms.saturating_add(wait_ms);
        let ticket = self.put(key, flight);
        out.push(Action::Wait { ticket, wait_ms });
    }

    /// Event: the time of a wait for another node's load is up.
    pub(crate) fn waited(&mut self, l1: &L1, ticket: &Ticket, now_ms: u64, out: &mut Vec<Action<W>>) {
        let Some(flight) = self.take(ticket) else { return };
        let key = ticket.key.clone();
        if now_ms < flight.wait_until_ms {
            return self.descend(l1, key, flight, 0, now_ms, out);
        }
        self.waited_enough(l1, key, flight, now_ms, out);
    }

    /// The other node's load takes too long: a stale value if there is one, else the source, past L2.
    fn waited_enough(
        &mut self,
        l1: &L1,
        key: Bytes,
        mut flight: Flight<W>,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        self.bump(Counter::Fallbacks);
        match self.fallback(l1, &key, flight.stale.take(), now_ms) {
            Some(answer) => {
                let waiters = self.end(flight);
                self.wake(waiters, &Ok(answer), out);
            }
            None => self.enter_source(l1, key, flight, Keep::Brief, now_ms, out),
        }
    }

    /// Remembers what L2 has past its life. Inside the revalidate window it answers at once those who need not load.
    fn with_stale(
        &mut self,
        l1: &L1,
        key: &Bytes,
        mut flight: Flight<W>,
        stale: Option<Stored>,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) -> Flight<W> {
        let Some(stored) = stale else { return flight };
        let version = stored.version;
        if flight.voids(version).is_some() || (version != 0 && version < l1.version(key, now_ms)) {
            return flight;
        }
        let entry = Made::from(stored).entry(flight.as_of, now_ms, Some(0), &self.policy);
        if l1.freshness(&entry, now_ms) != Freshness::Revalidate {
            flight.stale = Some(entry);
            return flight;
        }
        let Some(answer) = l1.answer(&entry, now_ms) else { return flight };
        flight.native |= flight.waiters.iter().any(|waiter| waiter.native);
        flight.waiters.retain(|waiter| !waiter.who.is_gone());
        let mut served = std::mem::take(&mut flight.waiters);
        if !flight.native {
            // One of the callers has to load.
            let loader = served.pop();
            flight.waiters.extend(loader);
        }
        if l1.usable(key, now_ms).is_none() {
            entry.hold_refresh(now_ms.saturating_add(self.refresh_bound_ms()));
            l1.store(key.clone(), entry, now_ms);
        }
        self.wake(served, &Ok(answer), out);
        flight
    }

    /// Asks L2 to keep what was loaded under a lease. Those who wait have been answered.
    pub(super) fn enter_fill(
        &mut self,
        key: Bytes,
        mut flight: Flight<W>,
        token: LeaseToken,
        made: Made,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        let stored = made.stored();
        flight.phase = Phase::Filling { made, loaded_ms: now_ms, notices: 0 };
        flight.deadline_ms = now_ms.saturating_add(self.policy.l2_timeout_ms.saturating_mul(2).max(1));
        let ticket = self.put(key, flight);
        out.push(Action::Fill { ticket, token, stored });
    }

    /// Event: L2 took a fill, refused it, failed, or took longer than the soft timeout.
    pub(crate) fn filled(
        &mut self,
        l1: &L1,
        ticket: &Ticket,
        outcome: Result<Filled, L2Error>,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        let Some(mut flight) = self.take(ticket) else { return };
        self.note_health(&outcome, now_ms);
        let key = ticket.key.clone();
        let phase = std::mem::replace(&mut flight.phase, Phase::Asking);
        let Phase::Filling { mut made, loaded_ms, notices } = phase else {
            debug_assert!(false, "a fill ends the phase that began it");
            self.end(flight);
            return;
        };
        let cap_ms = match outcome {
            Ok(Filled::Stored) => {
                self.bump(Counter::L2Fills);
                self.policy.l1_ttl_ms
            }
            Ok(Filled::Voided) => {
                self.bump(Counter::L2FillsVoided);
                #[cfg(test)]
                if self.mutation == super::Mutation::PopulateVoided {
                    l1.store(key.clone(), made.entry(flight.as_of, now_ms, None, &self.policy), now_ms);
                }
                return self.next_round(l1, key, flight, now_ms, out);
            }
            Ok(Filled::Older(newest)) => {
                self.bump(Counter::L2FillsOlder);
                l1.change(&key, newest, crate::policy::OnChange::Drop, now_ms);
                return self.next_round(l1, key, flight, now_ms, out);
            }
            Err(_) => Some(self.policy.l2_down_ttl_ms),
        };
        let voided = flight.voids(made.version).is_some()
            || notices > 1
            || l1.marks.tags_voided(flight.as_of, &made.tags).is_some();
        #[cfg(test)]
        let voided = voided && self.mutation != super::Mutation::DeafFlights;
        if voided {
            self.bump(Counter::VoidedLoads);
            return self.next_round(l1, key, flight, now_ms, out);
        }
        made.age_ms = now_ms.saturating_sub(loaded_ms);
        let unversioned = made.version == 0;
        let answer = Answer {
            value: made.value.clone(),
            level: Level::Source,
            age_ms: made.age_ms,
            ttl_ms: made.ttl_ms.saturating_sub(made.age_ms),
        };
        let entry = made.entry(flight.as_of, now_ms, cap_ms, &self.policy);
        if unversioned && notices == 0 {
            entry.expect_notice();
        }
        l1.store(key, entry, now_ms);
        let waiters = self.end(flight);
        self.wake(waiters, &Ok(answer), out);
    }

    /// What was loaded is kept nowhere: those who came since ask again.
    fn next_round(
        &mut self,
        l1: &L1,
        key: Bytes,
        mut flight: Flight<W>,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        if let Some(entry) = l1.peek(&key) {
            // The old copy, if one is still served, is due for another refresh.
            entry.hold_refresh(0);
        }
        flight.waiters.retain(|waiter| !waiter.who.is_gone());
        if flight.waiters.is_empty() {
            self.end(flight);
            return;
        }
        self.descend(l1, key, flight, 0, now_ms, out);
    }

    /// The bound on loads was hit.
    pub(super) fn refuse(
        &mut self,
        l1: &L1,
        key: &Bytes,
        mut flight: Flight<W>,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        self.bump(Counter::LoadsRefused);
        if let Keep::Fleet(token) = flight.keep {
            out.push(Action::Release { key: key.clone(), token });
        }
        let stale = flight.stale.take();
        let outcome = self.fallback(l1, key, stale, now_ms).ok_or(CacheError::Busy(Bound::Loads));
        if let Some(entry) = l1.peek(key) {
            entry.hold_refresh(now_ms.saturating_add(self.policy.error_retry_ms));
        }
        let waiters = self.end(flight);
        self.wake(waiters, &outcome, out);
    }

    /// The value that stands in for one that cannot be had: L1's, or what L2 had past its life, which L1 then keeps so
    /// that not every lookup tries again.
    pub(super) fn fallback(&self, l1: &L1, key: &Bytes, stale: Option<Entry>, now_ms: u64) -> Option<Answer> {
        if let Some(answer) = l1.usable(key, now_ms) {
            return Some(answer);
        }
        let entry = stale?;
        let answer = l1.answer(&entry, now_ms)?;
        entry.note_failure(now_ms.saturating_add(self.policy.error_retry_ms));
        l1.store(key.clone(), entry, now_ms);
        Some(answer)
    }

    /// An answer that came after its timeout does not count: L2 is too slow to be of use.
    fn note_health<T>(&self, outcome: &Result<T, L2Error>, now_ms: u64) {
        let Err(error) = outcome else { return self.shared.health.succeeded(now_ms) };
        self.bump(match error {
            L2Error::Timeout(_) => Counter::L2Timeouts,
            L2Error::Unavailable(_) | L2Error::Refused(_) => Counter::L2Errors,
        });
        if self.shared.health.failed(now_ms, self.policy.l2_timeout_ms, self.policy.l2_retry_ms) {
            self.bump(Counter::L2Outages);
        }
    }
}
