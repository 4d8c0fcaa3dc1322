//! The front of the engine: what workers and scripts call, and where actions become wakes and tasks.
//!
//! Invariant: no lock of an engine is held while anybody is woken, spawned or dropped. L1 hits touch one read lock
//! of one shard of L1 and nothing else that is shared.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::engine::{Action, Ask, Engine, LoadPermits, Ticket, Verdict, count_answer};
use crate::error::{CacheError, LoadError};
use crate::l1::{Answer, Freshness, L1};
use crate::policy::Policy;
use crate::source::{LoadRequest, Loaded, Params, Source};
use crate::stats::{Counter, Counters, Stats};
use crate::token::{BeginWait, LoadToken, Loader, Wait, Waiter, Woken};

/// Number of engines that the keys are spread over; only misses and writes lock one.
const ENGINES: usize = 64;

/// The time in milliseconds on the clock that callers take `now_ms` from: any epoch, but never backwards for long.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A multi-level cache. Cheap to clone; all clones are the same cache.
#[derive(Clone)]
pub struct Cache {
    inner: Arc<Inner>,
}

/// What a lookup gives.
#[derive(Debug)]
pub enum Lookup {
    /// Answered by L1, at once.
    Hit(Answer),
    /// A load is under way; await its outcome.
    Wait(Wait),
    /// No answer, and none to wait for.
    Failed(CacheError),
}

/// What a lookup with the caller's own loader gives.
#[derive(Debug)]
pub enum Begin {
    /// Answered by L1, at once.
    Hit(Answer),
    /// Answered by L1 with a value past its life; the caller should load, after it has used the answer.
    Refresh(Answer, LoadToken),
    /// The caller loads now.
    Load(LoadToken),
    /// Somebody else loads; await the outcome, which may be to become the loader.
    Wait(BeginWait),
    /// No answer, and none to wait for.
    Failed(CacheError),
}

impl Cache {
    /// Makes a cache.
    ///
    /// `source` serves [`Cache::lookup`]; without one only [`Cache::begin`] loads. `runtime` runs the loads and
    /// their timeouts and must have its timer enabled. `clock` tells when a load came back. `seed` decides the
    /// jitter and the hash functions, so it must be random for each process.
    pub fn new(
        policy: Policy,
        source: Option<Arc<dyn Source>>,
        runtime: Handle,
        clock: Clock,
        seed: u64,
    ) -> Self {
        let counters = Arc::new(Counters::new());
        let permits = Arc::new(LoadPermits::new(policy.loads_max));
        let engine = |index: usize| {
            let seed = seed.wrapping_add(index as u64);
            Mutex::new(Engine::new(policy, seed, permits.clone(), counters.clone()))
        };
        let inner = Inner {
            engines: (0..ENGINES).map(engine).collect(),
            hasher: ahash::RandomState::with_seeds(seed, 5, 7, !seed),
            l1: L1::new(policy.size_bytes_max, seed, counters.clone()),
            source: RwLock::new(source),
            permits,
            counters,
            runtime,
            clock,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Looks a key up; loads it from the source when it is not there.
    ///
    /// `params` is called only when a load may be needed. A hit neither waits nor allocates.
    pub fn lookup(&self, key: &[u8], now_ms: u64, params: impl FnOnce() -> Params) -> Lookup {
        if let Some(answer) = self.inner.hit(key, now_ms) {
            return Lookup::Hit(answer);
        }
        if self.inner.source.read().is_none() {
            return Lookup::Failed(CacheError::NoSource);
        }
        let mut receiver = None;
        let ask = Ask { key, now_ms, native: true, params: params() };
        match self.inner.ask(ask, &mut receiver) {
            Verdict::Answer(answer) => Lookup::Hit(answer),
            Verdict::AnswerAndLoad(answer, ticket) => {
                self.inner.load(ticket);
                Lookup::Hit(answer)
            }
            Verdict::Load(ticket) => {
                self.inner.load(ticket);
                receiver.map_or(Lookup::Failed(LoadError::Abandoned.into()), |it| Lookup::Wait(Wait(it)))
            }
            Verdict::Joined => {
                receiver.map_or(Lookup::Failed(LoadError::Abandoned.into()), |it| Lookup::Wait(Wait(it)))
            }
            Verdict::Refused(bound) => Lookup::Failed(CacheError::Busy(bound)),
        }
    }

    /// Looks a key up for a caller who can load it: one caller gets the token, the others wait for it.
    pub fn begin(&self, key: &[u8], now_ms: u64) -> Begin {
        if let Some(answer) = self.inner.hit(key, now_ms) {
            return Begin::Hit(answer);
        }
        let mut receiver = None;
        let ask = Ask { key, now_ms, native: false, params: Params::new() };
        let token = |ticket| LoadToken::new(self.inner.clone(), ticket, Loader::Caller);
        match self.inner.ask(ask, &mut receiver) {
            Verdict::Answer(answer) => Begin::Hit(answer),
            Verdict::AnswerAndLoad(answer, ticket) => Begin::Refresh(answer, token(ticket)),
            Verdict::Load(ticket) => Begin::Load(token(ticket)),
            Verdict::Joined => {
                receiver.map_or(Begin::Failed(LoadError::Abandoned.into()), |it| Begin::Wait(BeginWait(it)))
            }
            Verdict::Refused(bound) => Begin::Failed(CacheError::Busy(bound)),
        }
    }

    /// What L1 holds for a key, fresh or inside a stale window. Loads nothing and counts nothing.
    pub fn peek(&self, key: &[u8], now_ms: u64) -> Option<Answer> {
        let entry = self.inner.l1.peek(key)?;
        (entry.freshness(now_ms) != Freshness::Dead).then(|| entry.answer(now_ms))
    }

    /// Stores a value, or with `None` a negative entry. It wins over any load under way, and answers those who wait.
    ///
    /// `ttl_ms` is taken exactly; the policy's life (not jittered) when absent. Zero stores nothing.
    pub fn set(&self, key: &[u8], value: Option<Bytes>, ttl_ms: Option<u64>, now_ms: u64) {
        let mut actions = Vec::new();
        let engine = self.inner.engine(key);
        engine.lock().filled(&self.inner.l1, key, value, ttl_ms, now_ms, &mut actions);
        self.inner.carry_out(actions);
    }

    /// Invalidates a key. A load that began before does not populate it. Returns whether L1 had it.
    pub fn delete(&self, key: &[u8]) -> bool {
        self.inner.engine(key).lock().invalidated(&self.inner.l1, key)
    }

    /// Invalidates every key.
    pub fn purge_all(&self) {
        self.inner.counters.bump(Counter::Invalidations);
        self.inner.engines.iter().for_each(|engine| engine.lock().all_invalidated());
        self.inner.l1.clear();
    }

    /// Takes over a new policy and source after a reload. Values, waits and counters stay; values that are stored
    /// keep the lives they were stored with.
    pub fn reconfigure(&self, policy: Policy, source: Option<Arc<dyn Source>>) {
        *self.inner.source.write() = source;
        self.inner.permits.resize(policy.loads_max);
        self.inner.engines.iter().for_each(|engine| engine.lock().reconfigure(policy));
        self.inner.l1.resize(policy.size_bytes_max);
    }

    /// The counters, and what the cache holds now.
    pub fn stats(&self) -> Stats {
        Stats {
            entries: self.inner.l1.entries(),
            size_bytes: self.inner.l1.size_bytes(),
            loads_running: self.inner.permits.running() as u64,
            ..self.inner.counters.read()
        }
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// What all clones of a cache, its tokens and its tasks share.
pub(crate) struct Inner {
    engines: Box<[Mutex<Engine<Waiter>>]>,
    hasher: ahash::RandomState,
    l1: L1,
    source: RwLock<Option<Arc<dyn Source>>>,
    permits: Arc<LoadPermits>,
    counters: Arc<Counters>,
    runtime: Handle,
    clock: Clock,
}

impl Inner {
    fn engine(&self, key: &[u8]) -> &Mutex<Engine<Waiter>> {
        let hash = self.hasher.hash_one(key);
        &self.engines[(hash % ENGINES as u64) as usize]
    }

    fn hit(&self, key: &[u8], now_ms: u64) -> Option<Answer> {
        let answer = self.l1.find(key)?.answer_now(now_ms)?;
        count_answer(&self.counters, &answer);
        Some(answer)
    }

    fn ask(self: &Arc<Self>, ask: Ask<'_>, receiver: &mut Option<oneshot::Receiver<Woken>>) -> Verdict {
        let mut actions = Vec::new();
        let waiter = || {
            let (sender, receives) = oneshot::channel();
            *receiver = Some(receives);
            Waiter(sender)
        };
        let engine = self.engine(ask.key);
        let verdict = engine.lock().lookup(&self.l1, ask, waiter, &mut actions);
        self.carry_out(actions);
        verdict
    }

    pub(crate) fn loaded(self: &Arc<Self>, ticket: &Ticket, loaded: Loaded) -> Answer {
        let mut actions = Vec::new();
        let now_ms = (self.clock)();
        let engine = self.engine(&ticket.key);
        let answer = engine.lock().loaded(&self.l1, ticket, loaded, now_ms, &mut actions);
        self.carry_out(actions);
        answer
    }

    pub(crate) fn failed(self: &Arc<Self>, ticket: &Ticket, error: LoadError) -> Result<Answer, CacheError> {
        let mut actions = Vec::new();
        let now_ms = (self.clock)();
        let engine = self.engine(&ticket.key);
        let outcome = engine.lock().failed(&self.l1, ticket, error, now_ms, &mut actions);
        self.carry_out(actions);
        outcome
    }

    pub(crate) fn abandoned(self: &Arc<Self>, ticket: &Ticket) {
        let mut actions = Vec::new();
        let now_ms = (self.clock)();
        self.engine(&ticket.key).lock().abandoned(ticket, now_ms, &mut actions);
        self.carry_out(actions);
    }

    pub(crate) fn expired(self: &Arc<Self>, ticket: &Ticket) {
        let mut actions = Vec::new();
        let now_ms = (self.clock)();
        let engine = self.engine(&ticket.key);
        engine.lock().expired(&self.l1, &ticket.key, ticket.flight, now_ms, &mut actions);
        self.carry_out(actions);
    }

    fn carry_out(self: &Arc<Self>, actions: Vec<Action<Waiter>>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                // A send fails when the waiter is gone, and then nobody misses the answer.
                Action::Wake(waiter, Ok(answer)) => drop(waiter.0.send(Woken::Answer(answer))),
                Action::Wake(waiter, Err(error)) => drop(waiter.0.send(Woken::Failed(error))),
                Action::Hand(waiter, ticket) => {
                    let token = LoadToken::new(self.clone(), ticket, Loader::Caller);
                    if let Err(Woken::Load(token)) = waiter.0.send(Woken::Load(token)) {
                        // Gone between the choice and the hand-over: choose again, here rather than in the drop
                        // of the token, so that many such waiters do not nest.
                        let ticket = token.defuse();
                        let mut more = Vec::new();
                        let now_ms = (self.clock)();
                        self.engine(&ticket.key).lock().abandoned(&ticket, now_ms, &mut more);
                        actions.extend(more);
                    }
                }
                Action::Load(ticket) => self.load(ticket),
                Action::Watch(ticket) => self.watch(ticket),
            }
        }
    }

    /// Asks the source on the background runtime.
    fn load(self: &Arc<Self>, ticket: Ticket) {
        let request = LoadRequest { key: ticket.key.clone(), params: ticket.params.clone() };
        let timeout_ms = self.engine(&ticket.key).lock().load_timeout_ms();
        let token = LoadToken::new(self.clone(), ticket, Loader::Source);
        let source = self.source.read().clone();
        self.runtime.spawn(async move {
            let Some(source) = source else {
                drop(token.fail(LoadError::Unavailable("the source was taken away".into())));
                return;
            };
            let load = source.load(request);
            // The outcomes are for the waiters, whom the engine tells; nobody waits for this task.
            match tokio::time::timeout(Duration::from_millis(timeout_ms), load).await {
                Ok(Ok(loaded)) => drop(token.complete(loaded)),
                Ok(Err(error)) => drop(token.fail(error)),
                Err(_) => token.expire(),
            }
        });
    }

    /// Ends a caller's load at its deadline, should it not have ended by then.
    fn watch(self: &Arc<Self>, ticket: Ticket) {
        let timeout_ms = self.engine(&ticket.key).lock().load_timeout_ms();
        let cache = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(Duration::from_millis(timeout_ms)).await;
            cache.expired(&ticket);
        });
    }
}

#[cfg(test)]
mod tests;
