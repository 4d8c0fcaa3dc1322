//! The policy engine: for each key with a load under way, a small state machine. Sans-io.
//!
//! A key without a flight has only its L1 entry. A *flight* is one load of one key: it knows who waits for it,
//! until when it is valid, and whether it has been *voided* by an invalidation or a set that came while it was on
//! its way. A voided flight still answers those who asked before the invalidation, but it stores nothing, and
//! those who asked after it get the next load.
//!
//! Invariant: L1 is written only by this module, under the engine's lock, so a decision and its effect are one
//! step. The engine never wakes anybody itself; it returns actions, which are carried out after the lock is gone.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::error::{Bound, CacheError, LoadError};
use crate::l1::{Answer, Entry, Freshness, L1, Level};
use crate::policy::{Jitter, Policy};
use crate::source::{Loaded, Params};
use crate::stats::{Counter, Counters};

/// Somebody who waits; the engine only asks whether they are still there.
pub(crate) trait Waiting {
    fn is_gone(&self) -> bool;
}

/// The right, and the duty, to end one flight.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    pub(crate) key: Bytes,
    pub(crate) flight: u64,
    pub(crate) params: Params,
}

/// A lookup that L1 could not answer without a decision.
pub(crate) struct Ask<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) now_ms: u64,
    /// Whether the source loads (then the asker waits) or the asker does.
    pub(crate) native: bool,
    pub(crate) params: Params,
}

/// What the asker does next.
#[derive(Debug)]
pub(crate) enum Verdict {
    Answer(Answer),
    /// Serve the stale answer and load in the background.
    AnswerAndLoad(Answer, Ticket),
    /// Load. A native asker has been registered as the first waiter; any other loads by itself.
    Load(Ticket),
    /// Wait for the load under way.
    Joined,
    Refused(Bound),
}

/// What the front carries out after an event.
#[derive(Debug)]
pub(crate) enum Action<W> {
    /// Give the outcome to a waiter.
    Wake(W, Result<Answer, CacheError>),
    /// Make a waiter the loader.
    Hand(W, Ticket),
    /// Ask the source.
    Load(Ticket),
    /// Report the flight as expired after the load timeout, if it has not ended by then.
    Watch(Ticket),
}

/// The bound on loads, shared by the engines of one cache.
#[derive(Debug)]
pub(crate) struct LoadPermits {
    running: AtomicUsize,
    max: AtomicUsize,
}

impl LoadPermits {
    pub(crate) fn new(max: usize) -> Self {
        Self { running: AtomicUsize::new(0), max: AtomicUsize::new(max.max(1)) }
    }

    pub(crate) fn resize(&self, max: usize) {
        self.max.store(max.max(1), Ordering::Relaxed);
    }

    pub(crate) fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    fn take(&self) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        let more = |running| (running < max).then_some(running + 1);
        self.running.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        let before = self.running.fetch_sub(1, Ordering::Relaxed);
        debug_assert!(before > 0, "a permit was given back twice");
    }
}

struct Waiter<W> {
    who: W,
    native: bool,
    /// Asked after the flight was voided: its result is too old for this waiter.
    late: bool,
}

struct Flight<W> {
    id: u64,
    deadline_ms: u64,
    params: Params,
    voided: bool,
    /// Somebody reports the deadline: the runtime of the source, or a watch.
    watched: bool,
    waiters: Vec<Waiter<W>>,
}

/// Deliberate defects, to prove that the simulator finds them.
#[cfg(test)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    None,
    PopulateVoided,
    LoadTwice,
    ErrorDropsValue,
    ForgetWaiters,
}

/// The state machines of one shard of the keys.
pub(crate) struct Engine<W> {
    flights: HashMap<Bytes, Flight<W>, ahash::RandomState>,
    policy: Policy,
    jitter: Jitter,
    flights_begun: u64,
    permits: Arc<LoadPermits>,
    counters: Arc<Counters>,
    #[cfg(test)]
    pub(crate) mutation: Mutation,
}

impl<W: Waiting> Engine<W> {
    pub(crate) fn new(policy: Policy, seed: u64, permits: Arc<LoadPermits>, counters: Arc<Counters>) -> Self {
        Self {
            flights: HashMap::with_hasher(ahash::RandomState::with_seeds(seed, 2, !seed, 3)),
            policy,
            jitter: Jitter::new(seed),
            flights_begun: 0,
            permits,
            counters,
            #[cfg(test)]
            mutation: Mutation::None,
        }
    }

    pub(crate) fn reconfigure(&mut self, policy: Policy) {
        self.policy = policy;
    }

    pub(crate) fn load_timeout_ms(&self) -> u64 {
        self.policy.load_timeout_ms
    }

    /// Event: a lookup that [`Entry::answer_now`] could not answer before the lock was taken.
    pub(crate) fn lookup(
        &mut self,
        l1: &L1,
        ask: Ask<'_>,
        waiter: impl FnOnce() -> W,
        out: &mut Vec<Action<W>>,
    ) -> Verdict {
        let now_ms = ask.now_ms;
        if let Some(flight) = self.flights.get(ask.key)
            && flight.deadline_ms <= now_ms
        {
            let id = flight.id;
            self.expired(l1, ask.key, id, now_ms, out);
        }
        let entry = l1.peek(ask.key);
        if let Some(entry) = &entry {
            if let Some(answer) = entry.answer_now(now_ms) {
                self.count_answer(&answer);
                return Verdict::Answer(answer);
            }
            match entry.freshness(now_ms) {
                Freshness::Revalidate => return self.revalidate(entry, ask),
                // The filled entry of this key can only be replaced under the lock held here.
                Freshness::Dead => {
                    l1.remove(ask.key);
                }
                Freshness::Fresh | Freshness::OnError => {}
            }
        }
        let fallback = entry.filter(|entry| entry.freshness(now_ms) == Freshness::OnError);
        self.counters.bump(Counter::Misses);
        let refused = match self.join_or_begin(ask, waiter, out) {
            Ok(verdict) => return verdict,
            Err(bound) => bound,
        };
        self.counters.bump(match refused {
            Bound::Waiters => Counter::WaitersRefused,
            Bound::Loads => Counter::LoadsRefused,
        });
        match fallback {
            Some(entry) => {
                self.counters.bump(Counter::StaleServes);
                Verdict::Answer(entry.answer(now_ms))
            }
            None => Verdict::Refused(refused),
        }
    }

    /// Serves an entry of the revalidate window, and begins its refresh unless one is under way.
    fn revalidate(&mut self, entry: &Entry, ask: Ask<'_>) -> Verdict {
        self.counters.bump(Counter::StaleServes);
        let answer = entry.answer(ask.now_ms);
        if let Some(flight) = self.flights.get(ask.key) {
            entry.hold_refresh(flight.deadline_ms);
            return Verdict::Answer(answer);
        }
        if !self.permits.take() {
            self.counters.bump(Counter::LoadsRefused);
            entry.hold_refresh(ask.now_ms.saturating_add(self.policy.error_retry_ms));
            return Verdict::Answer(answer);
        }
        entry.hold_refresh(ask.now_ms.saturating_add(self.policy.load_timeout_ms));
        self.counters.bump(Counter::Refreshes);
        Verdict::AnswerAndLoad(answer, self.begin(ask, None))
    }

    fn join_or_begin(
        &mut self,
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
            flight.waiters.push(Waiter { who: waiter(), native: ask.native, late: flight.voided });
            self.counters.bump(Counter::Waits);
            #[cfg(test)]
            if self.mutation == Mutation::LoadTwice {
                flight.id += 1 << 32;
                let (key, flight) = (Bytes::copy_from_slice(ask.key), flight.id);
                return Ok(Verdict::Load(Ticket { key, flight, params: ask.params }));
            }
            if !flight.watched {
                flight.watched = true;
                let key = Bytes::copy_from_slice(ask.key);
                out.push(Action::Watch(Ticket { key, flight: flight.id, params: Params::new() }));
            }
            return Ok(Verdict::Joined);
        }
        if !self.permits.take() {
            return Err(Bound::Loads);
        }
        let first = ask.native.then(|| Waiter { who: waiter(), native: true, late: false });
        Ok(Verdict::Load(self.begin(ask, first)))
    }

    /// Begins a flight whose permit has been taken.
    fn begin(&mut self, ask: Ask<'_>, first: Option<Waiter<W>>) -> Ticket {
        self.counters.bump(Counter::Loads);
        self.flights_begun += 1;
        let key = Bytes::copy_from_slice(ask.key);
        let flight = Flight {
            id: self.flights_begun,
            deadline_ms: ask.now_ms.saturating_add(self.policy.load_timeout_ms),
            params: ask.params.clone(),
            voided: false,
            watched: ask.native,
            waiters: first.into_iter().collect(),
        };
        let ticket = Ticket { key: key.clone(), flight: flight.id, params: ask.params };
        let replaced = self.flights.insert(key, flight);
        debug_assert!(replaced.is_none(), "a second flight for one key");
        ticket
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
        let (value, ttl_ms) = match loaded {
            Loaded::Found { value, ttl_ms, .. } => (Some(value), ttl_ms.unwrap_or(self.policy.ttl_ms)),
            Loaded::NotFound { ttl_ms } => (None, ttl_ms.unwrap_or(self.policy.negative_ttl_ms)),
        };
        let mut answer = Answer { value, level: Level::Source, age_ms: 0, ttl_ms: 0 };
        let Some(flight) = self.flight(ticket) else {
            self.counters.bump(Counter::LateLoads);
            return answer;
        };
        let voided = flight.voided;
        #[cfg(test)]
        let voided = voided && self.mutation != Mutation::PopulateVoided;
        if voided {
            self.counters.bump(Counter::VoidedLoads);
            let (late, early) = self.take_waiters(&ticket.key).into_iter().partition(|waiter| waiter.late);
            wake(early, Ok(answer.clone()), out);
            self.next_loader(ticket, late, now_ms, out);
            return answer;
        }
        let ttl_ms = self.jitter.shorten(ttl_ms, self.policy.jitter_percent);
        if ttl_ms > 0 {
            answer.ttl_ms = ttl_ms;
            l1.insert(ticket.key.clone(), Entry::new(answer.value.clone(), now_ms, ttl_ms, &self.policy));
        } else {
            l1.remove(&ticket.key);
        }
        wake(self.end(&ticket.key), Ok(answer.clone()), out);
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
        if self.flight(ticket).is_none() {
            self.counters.bump(Counter::LateLoads);
            return self.stand_in(l1, &ticket.key, error, now_ms);
        }
        self.counters.bump(Counter::LoadErrors);
        #[cfg(test)]
        if self.mutation == Mutation::ErrorDropsValue {
            l1.remove(&ticket.key);
        }
        if let Some(entry) = l1.peek(&ticket.key) {
            entry.note_failure(now_ms.saturating_add(self.policy.error_retry_ms));
        }
        let outcome = self.stand_in(l1, &ticket.key, error, now_ms);
        let waiters = self.end(&ticket.key);
        if matches!(&outcome, Ok(answer) if answer.level == Level::Stale) {
            waiters.iter().for_each(|_| self.counters.bump(Counter::StaleServes));
        }
        wake(waiters, outcome.clone(), out);
        outcome
    }

    /// Event: the loader went away without a result. The load goes on with a waiter, so that nobody hangs.
    pub(crate) fn abandoned(&mut self, ticket: &Ticket, now_ms: u64, out: &mut Vec<Action<W>>) {
        if self.flight(ticket).is_none() {
            return;
        }
        let waiters = self.take_waiters(&ticket.key);
        #[cfg(test)]
        if self.mutation == Mutation::ForgetWaiters {
            self.end(&ticket.key);
            return;
        }
        if !waiters.is_empty() {
            self.counters.bump(Counter::HandOvers);
        }
        self.next_loader(ticket, waiters, now_ms, out);
    }

    /// Event: a flight has reached its deadline.
    pub(crate) fn expired(
        &mut self,
        l1: &L1,
        key: &[u8],
        flight: u64,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        let ticket = Ticket { key: Bytes::copy_from_slice(key), flight, params: Params::new() };
        if self.flight(&ticket).is_some() {
            self.counters.bump(Counter::LoadTimeouts);
            let error = LoadError::Timeout(self.policy.load_timeout_ms);
            // The outcome is for the loader, who is told when it comes back.
            drop(self.failed(l1, &ticket, error, now_ms, out));
        }
    }

    /// Event: the key's value is no longer true. Returns whether L1 had one.
    pub(crate) fn invalidated(&mut self, l1: &L1, key: &[u8]) -> bool {
        self.counters.bump(Counter::Invalidations);
        self.void(key);
        l1.remove(key)
    }

    /// Event: no value is true any more. The caller clears L1 when every engine has heard of it.
    pub(crate) fn all_invalidated(&mut self) {
        self.flights.values_mut().for_each(Flight::void);
    }

    /// Event: the key was given a value from outside. It is newer than any load under way.
    pub(crate) fn filled(
        &mut self,
        l1: &L1,
        key: &[u8],
        value: Option<Bytes>,
        ttl_ms: Option<u64>,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        let default_ms = if value.is_some() { self.policy.ttl_ms } else { self.policy.negative_ttl_ms };
        let ttl_ms = ttl_ms.unwrap_or(default_ms);
        let entry = Entry::new(value.clone(), now_ms, ttl_ms, &self.policy);
        self.void(key);
        let waiters = self.take_waiters(key);
        wake(waiters, Ok(Answer { value, level: Level::L1, age_ms: 0, ttl_ms }), out);
        if ttl_ms > 0 {
            l1.insert(Bytes::copy_from_slice(key), entry);
        } else {
            l1.remove(key);
        }
    }

    /// Counts an answer that L1 gave.
    pub(crate) fn count_answer(&self, answer: &Answer) {
        count_answer(&self.counters, answer);
    }

    /// How many flights there are; a test's view.
    #[cfg(test)]
    pub(crate) fn flights(&self) -> usize {
        self.flights.len()
    }

    fn flight(&mut self, ticket: &Ticket) -> Option<&mut Flight<W>> {
        self.flights.get_mut(&ticket.key).filter(|flight| flight.id == ticket.flight)
    }

    fn void(&mut self, key: &[u8]) {
        if let Some(flight) = self.flights.get_mut(key) {
            flight.void();
        }
    }

    fn take_waiters(&mut self, key: &[u8]) -> Vec<Waiter<W>> {
        self.flights.get_mut(key).map(|flight| std::mem::take(&mut flight.waiters)).unwrap_or_default()
    }

    /// Removes a flight and returns those who waited for it.
    fn end(&mut self, key: &[u8]) -> Vec<Waiter<W>> {
        let Some(flight) = self.flights.remove(key) else { return Vec::new() };
        self.permits.give_back();
        flight.waiters
    }

    /// What a failed load answers: the value inside its window, else the error.
    fn stand_in(&self, l1: &L1, key: &[u8], error: LoadError, now_ms: u64) -> Result<Answer, CacheError> {
        match l1.peek(key).filter(|entry| entry.freshness(now_ms) != Freshness::Dead) {
            Some(entry) => Ok(entry.answer(now_ms)),
            None => Err(error.into()),
        }
    }

    /// Turns the flight of `ticket` into a new load for `waiters`, by one of them or by the source; ends it when
    /// nobody is left.
    fn next_loader(
        &mut self,
        ticket: &Ticket,
        mut waiters: Vec<Waiter<W>>,
        now_ms: u64,
        out: &mut Vec<Action<W>>,
    ) {
        waiters.retain(|waiter| !waiter.who.is_gone());
        if waiters.is_empty() {
            self.end(&ticket.key);
            return;
        }
        self.counters.bump(Counter::Loads);
        self.flights_begun += 1;
        let id = self.flights_begun;
        let deadline_ms = now_ms.saturating_add(self.policy.load_timeout_ms);
        let Some(flight) = self.flights.get_mut(&ticket.key) else { return };
        let next = Ticket { key: ticket.key.clone(), flight: id, params: flight.params.clone() };
        let loader = waiters.iter().position(|waiter| !waiter.native).map(|at| waiters.remove(at));
        waiters.iter_mut().for_each(|waiter| waiter.late = false);
        flight.id = id;
        flight.deadline_ms = deadline_ms;
        flight.voided = false;
        flight.watched = loader.is_none() || !waiters.is_empty();
        flight.waiters = waiters;
        match loader {
            Some(loader) => {
                if flight.watched {
                    out.push(Action::Watch(next.clone()));
                }
                out.push(Action::Hand(loader.who, next));
            }
            None => out.push(Action::Load(next)),
        }
    }
}

impl<W> Flight<W> {
    fn void(&mut self) {
        self.voided = true;
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

fn wake<W>(waiters: Vec<Waiter<W>>, outcome: Result<Answer, CacheError>, out: &mut Vec<Action<W>>) {
    out.extend(waiters.into_iter().map(|waiter| Action::Wake(waiter.who, outcome.clone())));
}
