//! The policy engine: for each key on its way, a small state machine. Sans-io.
//!
//! A key without a flight has only its L1 entry. A *flight* ([`flight`]) is one key on its way: through L2
//! ([`descent`]), to the source ([`load`]), and what comes from outside meanwhile ([`outside`]): invalidations, sets and
//! the notices of other nodes. A flight whose question was put before an invalidation is *void*: its result still
//! answers those who asked before, but it is kept nowhere, and those who asked after get the next one.
//!
//! Invariant: L1 is written only by this module, under the engine's lock, so a decision and its effect are one
//! step. The engine never wakes anybody itself; it returns actions, which are carried out after the lock is gone.

mod descent;
mod flight;
mod load;
mod outside;
mod permits;

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

pub(crate) use flight::{Action, Ask, Ticket, Verdict, Waiting};
use flight::{Flight, Keep, Phase, Waiter};
pub(crate) use permits::Bounds;

use crate::entry::{Answer, Entry, Freshness, Level};
use crate::error::{Bound, CacheError};
use crate::fleet::Health;
use crate::l1::L1;
use crate::policy::{Jitter, Policy};
use crate::source::Params;
use crate::stats::{Counter, Counters};

/// Deliberate defects, to prove that the simulators find them.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    None,
    /// Results of void flights are kept.
    PopulateVoided,
    /// Who joins a load loads as well.
    LoadTwice,
    /// A failed load drops the value that should stand in.
    ErrorDropsValue,
    /// A loader that goes away takes the waiters with it.
    ForgetWaiters,
    /// A lease held elsewhere is not waited for.
    LoadWhenHeld,
    /// Notices do not void what is on its way.
    DeafFlights,
    /// Flights keep their permits.
    LeakPermits,
    /// An older version replaces a newer one in L1.
    OlderReplaces,
}

/// Which levels and services there are beside L1 and the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tiers {
    pub(crate) l2: bool,
    pub(crate) lock: bool,
}

/// What the engines of one cache share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) bounds: Arc<Bounds>,
    pub(crate) health: Arc<Health>,
    pub(crate) counters: Arc<Counters>,
}

/// The state machines of one shard of the keys.
pub(crate) struct Engine<W> {
    flights: HashMap<Bytes, Flight<W>, ahash::RandomState>,
    policy: Policy,
    tiers: Tiers,
    jitter: Jitter,
    ids: u64,
    shared: Shared,
    #[cfg(test)]
    pub(crate) mutation: Mutation,
}

/// How a flight began.
enum Began {
    /// The asker loads at once.
    Loader(Ticket),
    /// The flight is on its way; the asker was registered if it waits.
    OnItsWay,
}

impl<W: Waiting> Engine<W> {
    pub(crate) fn new(policy: Policy, tiers: Tiers, seed: u64, shared: Shared) -> Self {
        Self {
            flights: HashMap::with_hasher(ahash::RandomState::with_seeds(seed, 2, !seed, 3)),
            policy,
            tiers,
            jitter: Jitter::new(seed),
            ids: 0,
            shared,
            #[cfg(test)]
            mutation: Mutation::None,
        }
    }

    pub(crate) fn reconfigure(&mut self, policy: Policy) {
        self.policy = policy;
    }

    pub(crate) fn set_tiers(&mut self, tiers: Tiers) {
        self.tiers = tiers;
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Event: a lookup that [`L1::hit`] could not answer before the lock was taken.
    pub(crate) fn lookup(
        &mut self,
        l1: &L1,
        ask: Ask<'_>,
        waiter: impl FnOnce() -> W,
        out: &mut Vec<Action<W>>,
    ) -> Verdict {
        let now_ms = ask.now_ms;
        self.overdue(l1, ask.key, now_ms, out);
        let entry = l1.peek(ask.key);
        if let Some(entry) = &entry {
            let ended_ms = l1.marks.ended_ms(entry);
            if let Some(answer) = ended_ms.and_then(|ended_ms| entry.answer_now(now_ms, ended_ms)) {
                self.count_answer(&answer);
                return Verdict::Answer(answer);
            }
            match l1.freshness(entry, now_ms) {
                Freshness::Ahead | Freshness::Revalidate => return self.refresh(l1, entry, ask, waiter, out),
                // The entry of this key can only be replaced under the lock held here.
                Freshness::Dead => {
                    l1.remove(ask.key);
                }
                Freshness::Fresh | Freshness::OnError => {}
            }
        }
        self.bump(Counter::Misses);
        let key = ask.key;
        let refused = match self.join_or_begin(l1, ask, waiter, out) {
            Ok(verdict) => return verdict,
            Err(bound) => bound,
        };
        self.bump(match refused {
            Bound::Waiters => Counter::WaitersRefused,
            Bound::Loads => Counter::LoadsRefused,
            Bound::Lookups => Counter::LookupsRefused,
        });
        match l1.usable(key, now_ms) {
            Some(answer) => {
                self.count_answer(&answer);
                Verdict::Answer(answer)
            }
            None => Verdict::Refused(refused),
        }
    }

    /// Serves an entry that is due for a refresh, and begins it unless one is under way.
    fn refresh(
        &mut self,
        l1: &L1,
        entry: &Entry,
        ask: Ask<'_>,
        waiter: impl FnOnce() -> W,
        out: &mut Vec<Action<W>>,
    ) -> Verdict {
        let now_ms = ask.now_ms;
        let Some(answer) = l1.answer(entry, now_ms) else { return Verdict::Refused(Bound::Loads) };
        self.count_answer(&answer);
        if let Some(flight) = self.flights.get(ask.key) {
            entry.hold_refresh(flight.deadline_ms);
            return Verdict::Answer(answer);
        }
        if let Err(bound) = self.admit() {
            self.bump(if bound == Bound::Loads { Counter::LoadsRefused } else { Counter::LookupsRefused });
            entry.hold_refresh(now_ms.saturating_add(self.policy.error_retry_ms));
            return Verdict::Answer(answer);
        }
        entry.hold_refresh(now_ms.saturating_add(self.refresh_bound_ms()));
        self.bump(if answer.level == Level::Stale { Counter::Refreshes } else { Counter::RefreshesAhead });
        let native = ask.native;
        match self.begin(l1, ask, (!native).then_some(waiter), out) {
            Began::Loader(ticket) => Verdict::AnswerAndLoad(answer, ticket),
            Began::OnItsWay if native => Verdict::Answer(answer),
            Began::OnItsWay => Verdict::AnswerAndWait(answer),
        }
    }

    /// Event: a background refresh of a key is asked for. Whether one begins.
    pub(crate) fn refresh_now(&mut self, l1: &L1, key: &[u8], now_ms: u64, out: &mut Vec<Action<W>>) -> bool {
        self.overdue(l1, key, now_ms, out);
        if self.flights.contains_key(key) || self.admit().is_err() {
            return false;
        }
        if let Some(entry) = l1.peek(key) {
            entry.hold_refresh(now_ms.saturating_add(self.refresh_bound_ms()));
        }
        self.bump(Counter::Refreshes);
        let ask = Ask { key, now_ms, native: true, params: Params::new() };
        self.begin(l1, ask, None::<fn() -> W>, out);
        true
    }

    /// The longest that a refresh may take before another one may begin.
    fn refresh_bound_ms(&self) -> u64 {
        let l2_ms = if self.tiers.l2 { self.policy.l2_timeout_ms } else { 0 };
        self.policy.load_timeout_ms.saturating_add(l2_ms)
    }

    fn join_or_begin(
        &mut self,
        l1: &L1,
        ask: Ask<'_>,
        waiter: impl FnOnce() -> W,
        out: &mut Vec<Action<W>>,
    ) -> Result<Verdict, Bound> {
        if let Some(flight) = self.flights.get_mut(ask.key) {
            let waiters_max = self.policy.waiters_per_key_max.max(1);
            if flight.waiters.len() >= waiters_max {
                flight.waiters.retain(|waiter| !waiter.who.is_gone());
                if flight.waiters.len() >= waiters_max {
                    return Err(Bound::Waiters);
                }
            }
            let as_of = l1.marks.current();
            flight.waiters.push(Waiter { who: waiter(), native: ask.native, as_of });
            self.shared.counters.bump(Counter::Waits);
            #[cfg(test)]
            if self.mutation == Mutation::LoadTwice && matches!(flight.phase, Phase::Loading) {
                flight.id += 1 << 32;
                let (key, flight) = (Bytes::copy_from_slice(ask.key), flight.id);
                return Ok(Verdict::Load(Ticket { key, flight, params: ask.params }));
            }
            if !flight.watched && matches!(flight.phase, Phase::Loading) {
                flight.watched = true;
                let key = Bytes::copy_from_slice(ask.key);
                out.push(Action::Watch(Ticket { key, flight: flight.id, params: Params::new() }));
            }
            return Ok(Verdict::Joined);
        }
        self.admit()?;
        match self.begin(l1, ask, Some(waiter), out) {
            Began::Loader(ticket) => Ok(Verdict::Load(ticket)),
            Began::OnItsWay => Ok(Verdict::Joined),
        }
    }

    /// Takes the permits that a flight needs to begin.
    fn admit(&self) -> Result<(), Bound> {
        if !self.shared.bounds.flights.take() {
            return Err(Bound::Lookups);
        }
        if !self.tiers.l2 && !self.shared.bounds.loads.take() {
            self.shared.bounds.flights.give_back();
            return Err(Bound::Loads);
        }
        Ok(())
    }

    /// Begins a flight whose permits have been taken. A waiter is registered unless the asker loads at once.
    fn begin(
        &mut self,
        l1: &L1,
        ask: Ask<'_>,
        first: Option<impl FnOnce() -> W>,
        out: &mut Vec<Action<W>>,
    ) -> Began {
        let Ask { key, now_ms, native, params } = ask;
        let key = Bytes::copy_from_slice(key);
        let as_of = l1.marks.current();
        let mut flight = Flight {
            id: 0,
            phase: Phase::Asking,
            deadline_ms: 0,
            params,
            as_of,
            void: None,
            native,
            watched: false,
            permit: !self.tiers.l2,
            locked: false,
            keep: Keep::Local,
            waiters: Vec::new(),
            stale: None,
            heard: false,
            asks: 0,
            wait_until_ms: 0,
        };
        if !native && self.tiers == Tiers::default() {
            return Began::Loader(self.enter_load(l1, key, flight, now_ms));
        }
        flight.waiters.extend(first.map(|waiter| Waiter { who: waiter(), native, as_of }));
        self.descend(l1, key, flight, 0, now_ms, out);
        Began::OnItsWay
    }

    /// Counts an answer that L1 gave.
    pub(crate) fn count_answer(&self, answer: &Answer) {
        count_answer(&self.shared.counters, answer);
    }

    /// How many flights there are; a test's view.
    #[cfg(test)]
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }

    /// Whether the load of a ticket goes on, and under which lease; a test's view.
    #[cfg(test)]
    pub(crate) fn load_under(&self, ticket: &Ticket) -> Option<Option<crate::l2::LeaseToken>> {
        let flight = self.flights.get(&ticket.key).filter(|flight| flight.id == ticket.flight)?;
        Some(match flight.keep {
            Keep::Fleet(token) => Some(token),
            Keep::Local | Keep::Brief => None,
        })
    }

    /// Whether a key has a flight; a test's view.
    #[cfg(test)]
    pub(crate) fn has_flight(&self, key: &[u8]) -> bool {
        self.flights.contains_key(key)
    }

    fn bump(&self, counter: Counter) {
        self.shared.counters.bump(counter);
    }

    /// Reports the phase of a key's flight as timed out, should nobody have done so.
    fn overdue(&mut self, l1: &L1, key: &[u8], now_ms: u64, out: &mut Vec<Action<W>>) {
        let Some(flight) = self.flights.get(key).filter(|flight| flight.deadline_ms <= now_ms) else {
            return;
        };
        let key = Bytes::copy_from_slice(key);
        let ticket = Ticket { key, flight: flight.id, params: Params::new() };
        let timeout = || crate::l2::L2Error::Timeout(self.policy.l2_timeout_ms);
        match flight.phase {
            Phase::Asking => self.l2_answered(l1, &ticket, Err(timeout()), now_ms, out),
            Phase::Waiting => self.waited(l1, &ticket, now_ms, out),
            Phase::Locking => {
                self.locked(l1, &ticket, now_ms, out);
            }
            Phase::Loading => self.expired(l1, &ticket, now_ms, out),
            Phase::Filling { .. } => self.filled(l1, &ticket, Err(timeout()), now_ms, out),
        }
    }

    /// Takes the flight out of the map, if the ticket's phase is the one that it is in.
    fn take(&mut self, ticket: &Ticket) -> Option<Flight<W>> {
        self.flights.get(&ticket.key).filter(|flight| flight.id == ticket.flight)?;
        self.flights.remove(&ticket.key)
    }

    /// Puts a flight that enters a phase into the map.
    fn put(&mut self, key: Bytes, mut flight: Flight<W>) -> Ticket {
        self.ids += 1;
        flight.id = self.ids;
        let ticket = Ticket { key: key.clone(), flight: flight.id, params: flight.params.clone() };
        let replaced = self.flights.insert(key, flight);
        debug_assert!(replaced.is_none(), "a second flight for one key");
        ticket
    }

    /// Ends a flight that has been taken out of the map.
    fn end(&mut self, mut flight: Flight<W>) -> Vec<Waiter<W>> {
        #[cfg(test)]
        if self.mutation == Mutation::LeakPermits {
            return flight.waiters;
        }
        self.give_back(&mut flight);
        self.shared.bounds.flights.give_back();
        flight.waiters
    }

    fn give_back(&self, flight: &mut Flight<W>) {
        if std::mem::take(&mut flight.permit) {
            self.shared.bounds.loads.give_back();
        }
    }

    /// Gives the outcome to everybody in the list.
    fn wake(&self, waiters: Vec<Waiter<W>>, outcome: &Result<Answer, CacheError>, out: &mut Vec<Action<W>>) {
        if matches!(outcome, Ok(answer) if answer.level == Level::Stale) {
            waiters.iter().for_each(|_| self.bump(Counter::StaleServes));
        }
        out.extend(waiters.into_iter().map(|waiter| Action::Wake(waiter.who, outcome.clone())));
    }
}

/// Counts an answer that L1 gave, by its kind.
pub(crate) fn count_answer(counters: &Counters, answer: &Answer) {
    counters.bump(match (answer.level, &answer.value) {
        (Level::Stale, _) => Counter::StaleServes,
        (_, None) => Counter::NegativeHits,
        (_, Some(_)) => Counter::Hits,
    });
}
