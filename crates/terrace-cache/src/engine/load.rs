//! The way to the source: who loads, what becomes of the result, and what stands in for a failure.
//!
//! Invariants: a load has a permit while it runs; an error never replaces a value; when a loader goes away, somebody who
//! waits takes over.

use bytes::Bytes;

use super::flight::{Action, Flight, Keep, Phase, Ticket, Void, Waiting};
use super::{Engine, Level};
use crate::entry::{Answer, Made};
use crate::error::{CacheError, LoadError};
use crate::l1::L1;
use crate::l2::TAGS_MAX;
use crate::source::Loaded;
use crate::stats::Counter;

impl<W: Waiting> Engine<W> {
    /// Goes to the source, by way of the fleet lock if there is one.
    pub(super) fn enter_source(
        &mut self,
        l1: &L1,
        key: Bytes,
        mut flight: Flight<W>,
        keep: Keep,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        flight.keep = keep;
        if !flight.permit {
            if !self.shared.bounds.loads.take() {
                return self.refuse(l1, &key, flight, now_ms, out);
            }
            flight.permit = true;
        }
        if self.tiers.lock && !flight.locked {
            flight.locked = true;
            flight.phase = Phase::Locking;
            let wait_ms = self.policy.lock_wait_ms;
            flight.deadline_ms = now_ms.saturating_add(wait_ms.saturating_mul(2).max(1));
            let ticket = self.put(key, flight);
            out.push(Action::Lock { ticket, wait_ms });
            return;
        }
        self.start(l1, key, flight, false, now_ms, out);
    }

    /// Event: the fleet lock was had, or not within its time. Whether the lock is of use.
    pub(crate) fn locked(&mut self, l1: &L1, ticket: &Ticket, now_ms: u64, out: &mut Vec<Action<W>>) -> bool {
        let Some(flight) = self.take(ticket) else { return false };
        self.start(l1, ticket.key.clone(), flight, false, now_ms, out);
        true
    }

    /// Finds a loader: the source for those who came without one, else one of those who wait. Ends the flight when there
    /// is nobody to load for.
    fn start(
        &mut self,
        l1: &L1,
        key: Bytes,
        mut flight: Flight<W>,
        caller_first: bool,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        flight.waiters.retain(|waiter| !waiter.who.is_gone());
        let caller = flight.waiters.iter().position(|waiter| !waiter.native);
        let by_caller = caller.filter(|_| caller_first || !flight.native);
        if let Some(at) = by_caller {
            let loader = flight.waiters.remove(at);
            flight.watched = !flight.waiters.is_empty();
            let watched = flight.watched;
            let ticket = self.enter_load(l1, key, flight, now_ms);
            if watched {
                out.push(Action::Watch(ticket.clone()));
            }
            out.push(Action::Hand(loader.who, ticket));
        } else if flight.native || !flight.waiters.is_empty() {
            flight.watched = true;
            let ticket = self.enter_load(l1, key, flight, now_ms);
            out.push(Action::Load(ticket));
        } else {
            self.release(&key, &flight, out);
            self.end(flight);
        }
    }

    /// A load begins now: nothing that was heard before can void it.
    pub(super) fn enter_load(&mut self, l1: &L1, key: Bytes, mut flight: Flight<W>, now_ms: u64) -> Ticket {
        self.bump(Counter::Loads);
        flight.phase = Phase::Loading;
        flight.deadline_ms = now_ms.saturating_add(self.policy.load_timeout_ms);
        flight.as_of = l1.marks.current();
        flight.void = None;
        self.put(key, flight)
    }

    /// Event: a load came back. Returns the answer for whoever did the load.
    pub(crate) fn loaded(
        &mut self,
        l1: &L1,
        ticket: &Ticket,
        loaded: Loaded,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) -> Answer {
        let (value, version, mut tags, ttl_ms) = match loaded {
            Loaded::Found { value, ttl_ms, version, tags } => {
                (Some(value), version, tags, ttl_ms.unwrap_or(self.policy.ttl_ms))
            }
            Loaded::NotFound { ttl_ms } => {
                (None, 0, Vec::new(), ttl_ms.unwrap_or(self.policy.negative_ttl_ms))
            }
        };
        tags.truncate(TAGS_MAX);
        let mut answer = Answer { value, level: Level::Source, age_ms: 0, ttl_ms: 0 };
        let Some(mut flight) = self.take(ticket) else {
            self.bump(Counter::LateLoads);
            return answer;
        };
        let key = ticket.key.clone();
        let by_tag = l1.marks.tags_voided(flight.as_of, &tags);
        let by_tag = by_tag.map(|_| Void { number: flight.as_of + 1, below: 0 });
        let void = flight.voids(version).or(by_tag);
        #[cfg(test)]
        let void = void.filter(|_| {
            !matches!(self.mutation, super::Mutation::PopulateVoided | super::Mutation::DeafFlights)
        });
        if let Some(void) = void {
            self.bump(Counter::VoidedLoads);
            let (early, late) = flight.split(void);
            self.wake(early, &Ok(answer.clone()), out);
            self.release(&key, &flight, out);
            flight.waiters = late;
            flight.waiters.retain(|waiter| !waiter.who.is_gone());
            if flight.waiters.is_empty() {
                self.end(flight);
            } else {
                self.descend(l1, key, flight, 0, now_ms, out);
            }
            return answer;
        }
        let ttl_ms = match flight.keep {
            Keep::Brief => ttl_ms.min(self.policy.l2_down_ttl_ms),
            Keep::Local | Keep::Fleet(_) => ttl_ms,
        };
        let ttl_ms = self.jitter.shorten(ttl_ms, self.policy.jitter_percent);
        let older = version != 0 && version < l1.version(&key, now_ms);
        if ttl_ms == 0 || older {
            return self.not_kept(l1, key, flight, answer, older, now_ms, out);
        }
        answer.ttl_ms = ttl_ms;
        let made = Made::now(answer.value.clone(), version, tags, ttl_ms, &self.policy);
        if let Keep::Fleet(token) = flight.keep {
            let waiters = std::mem::take(&mut flight.waiters);
            self.wake(waiters, &Ok(answer.clone()), out);
            self.give_back(&mut flight);
            self.enter_fill(key, flight, token, made, now_ms, out);
            return answer;
        }
        l1.store(key, made.entry(flight.as_of, now_ms, None, &self.policy), now_ms);
        let waiters = self.end(flight);
        self.wake(waiters, &Ok(answer.clone()), out);
        answer
    }

    /// A result that is told and not kept: its life is zero, or this node knows a newer version, which is told instead.
    #[expect(clippy::too_many_arguments, reason = "the rest of an event, with all its parts")]
    fn not_kept(
        &mut self,
        l1: &L1,
        key: Bytes,
        flight: Flight<W>,
        answer: Answer,
        older: bool,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) -> Answer {
        self.release(&key, &flight, out);
        let answer = if older {
            self.bump(Counter::OlderLoads);
            if let Some(entry) = l1.peek(&key) {
                entry.hold_refresh(now_ms.saturating_add(self.policy.error_retry_ms));
            }
            l1.usable(&key, now_ms).unwrap_or(answer)
        } else {
            l1.remove(&key);
            answer
        };
        let waiters = self.end(flight);
        self.wake(waiters, &Ok(answer.clone()), out);
        answer
    }

    /// Event: a load failed. Returns the outcome for whoever did the load.
    pub(crate) fn failed(
        &mut self,
        l1: &L1,
        ticket: &Ticket,
        error: LoadError,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) -> Result<Answer, CacheError> {
        let key = &ticket.key;
        let Some(mut flight) = self.take(ticket) else {
            self.bump(Counter::LateLoads);
            return self.fallback(l1, key, None, now_ms).ok_or(error.into());
        };
        self.bump(Counter::LoadErrors);
        #[cfg(test)]
        if self.mutation == super::Mutation::ErrorDropsValue {
            l1.remove(key);
            flight.stale = None;
        }
        if let Some(entry) = l1.peek(key) {
            entry.note_failure(now_ms.saturating_add(self.policy.error_retry_ms));
        }
        self.release(key, &flight, out);
        let outcome = self.fallback(l1, key, flight.stale.take(), now_ms).ok_or(error.into());
        let waiters = self.end(flight);
        self.wake(waiters, &outcome, out);
        outcome
    }

    /// Event: the loader went away without a result. The load goes on with a waiter, so that nobody hangs.
    pub(crate) fn abandoned(&mut self, l1: &L1, ticket: &Ticket, now_ms: u64, out: &mut Vec<Action<W>>) {
        let Some(mut flight) = self.take(ticket) else { return };
        let key = ticket.key.clone();
        #[cfg(test)]
        if self.mutation == super::Mutation::ForgetWaiters {
            self.end(flight);
            return;
        }
        flight.waiters.retain(|waiter| !waiter.who.is_gone());
        if !flight.waiters.is_empty() {
            self.bump(Counter::HandOvers);
        }
        // The source of those who came without a loader was not asked yet, unless it was the one that went away.
        flight.native = false;
        self.start(l1, key, flight, true, now_ms, out);
    }

    /// Event: a load has reached its deadline.
    pub(crate) fn expired(&mut self, l1: &L1, ticket: &Ticket, now_ms: u64, out: &mut Vec<Action<W>>) {
        if self.flights.get(&ticket.key).is_none_or(|flight| flight.id != ticket.flight) {
            return;
        }
        self.bump(Counter::LoadTimeouts);
        let error = LoadError::Timeout(self.policy.load_timeout_ms);
        // The outcome is for the loader, who is told when it comes back.
        drop(self.failed(l1, ticket, error, now_ms, out));
    }

    fn release(&self, key: &Bytes, flight: &Flight<W>, out: &mut Vec<Action<W>>) {
        if let Keep::Fleet(token) = flight.keep {
            out.push(Action::Release { key: key.clone(), token });
        }
    }
}
