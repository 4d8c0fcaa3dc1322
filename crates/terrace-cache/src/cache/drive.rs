//! Where the engine's actions become wakes, tasks and calls.
//!
//! Invariant: every action that asks for an event gets one: a task that is dropped or panics reports a failure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::{Clock, Parts};
use crate::engine::{Action, Ask, Bounds, Engine, Shared, Ticket, Tiers, Verdict, count_answer};
use crate::entry::{Answer, Entry};
use crate::error::{CacheError, LoadError};
use crate::filter::KeyFilter;
use crate::fleet::{Health, Rate};
use crate::histogram::Histogram;
use crate::l1::L1;
use crate::l2::{Filled, FleetLock, Found, L2, L2Error, LeaseToken, LockGuard, Scope, Stored, Version};
use crate::policy::Policy;
use crate::source::{LoadRequest, Loaded, Source};
use crate::stats::{Counter, Counters};
use crate::token::{LoadToken, Loader, Waiter, Woken};

/// Number of engines that the keys are spread over; only misses and writes lock one.
const ENGINES: usize = 64;

type Actions = Vec<Action<Waiter>>;

/// What all clones of a cache, its tokens and its tasks share.
pub(crate) struct Inner {
    pub(super) engines: Box<[Mutex<Engine<Waiter>>]>,
    hasher: ahash::RandomState,
    pub(crate) l1: L1,
    pub(super) source: RwLock<Option<Arc<dyn Source>>>,
    pub(super) l2: RwLock<Option<Arc<dyn L2>>>,
    pub(super) lock: RwLock<Option<Arc<dyn FleetLock>>>,
    pub(super) bounds: Arc<Bounds>,
    pub(super) health: Arc<Health>,
    pub(super) counters: Arc<Counters>,
    pub(super) refreshes: Rate,
    /// Invalidations of this node whose notices are still to come; see [`super::listen`].
    pub(super) own: Mutex<VecDeque<(Scope, Version)>>,
    pub(crate) filter: KeyFilter,
    pub(super) l2_latency: Histogram,
    pub(super) source_latency: Histogram,
    pub(super) runtime: Handle,
    pub(super) clock: Clock,
}

impl Inner {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { policy, source, l2, lock, runtime, clock, seed } = parts;
        let counters = Arc::new(Counters::new());
        let shared = Shared {
            bounds: Arc::new(Bounds::new(policy.lookups_max, policy.loads_max)),
            health: Arc::new(Health::default()),
            counters: counters.clone(),
        };
        let tiers = Tiers { l2: l2.is_some(), lock: lock.is_some() };
        let engine = |index: usize| {
            let seed = seed.wrapping_add(index as u64);
            Mutex::new(Engine::new(policy, tiers, seed, shared.clone()))
        };
        Self {
            engines: (0..ENGINES).map(engine).collect(),
            hasher: ahash::RandomState::with_seeds(seed, 5, 7, !seed),
            l1: L1::new(policy.size_bytes_max, seed, counters.clone()),
            source: RwLock::new(source),
            l2: RwLock::new(l2),
            lock: RwLock::new(lock),
            bounds: shared.bounds,
            health: shared.health,
            counters,
            refreshes: Rate::default(),
            own: Mutex::default(),
            filter: KeyFilter::default(),
            l2_latency: Histogram::default(),
            source_latency: Histogram::default(),
            runtime,
            clock,
        }
    }

    pub(super) fn engine(&self, key: &[u8]) -> &Mutex<Engine<Waiter>> {
        let hash = self.hasher.hash_one(key);
        &self.engines[(hash % ENGINES as u64) as usize]
    }

    pub(crate) fn has_l2(&self) -> bool {
        self.l2.read().is_some()
    }

    /// Stores an entry of a snapshot, unless the key is known or on its way.
    pub(crate) fn restore(&self, key: bytes::Bytes, entry: Entry, now_ms: u64) -> bool {
        let engine = self.engine(&key);
        engine.lock().restore(&self.l1, key, entry, now_ms)
    }

    pub(crate) fn policy(&self) -> Policy {
        *self.engines[0].lock().policy()
    }

    pub(super) fn hit(&self, key: &[u8], now_ms: u64) -> Option<Answer> {
        let answer = self.l1.hit(key, now_ms)?;
        count_answer(&self.counters, &answer);
        Some(answer)
    }

    pub(super) fn ask(
        self: &Arc<Self>,
        ask: Ask<'_>,
        receiver: &mut Option<oneshot::Receiver<Woken>>,
    ) -> Verdict {
        let waiter = || {
            let (sender, receives) = oneshot::channel();
            *receiver = Some(receives);
            Waiter(sender)
        };
        self.step(ask.key, |engine, l1, _, out| engine.lookup(l1, ask, waiter, out))
    }

    /// One event of a key: the engine decides under its lock, and then its actions are carried out.
    pub(super) fn step<R>(
        self: &Arc<Self>,
        key: &[u8],
        event: impl FnOnce(&mut Engine<Waiter>, &L1, u64, &mut Actions) -> R,
    ) -> R {
        let mut actions = Vec::new();
        let now_ms = (self.clock)();
        let result = event(&mut self.engine(key).lock(), &self.l1, now_ms, &mut actions);
        self.carry_out(actions, None);
        result
    }

    pub(crate) fn loaded(self: &Arc<Self>, ticket: &Ticket, loaded: Loaded) -> Answer {
        if matches!(loaded, Loaded::Found { .. }) {
            self.filter.add(&ticket.key);
        }
        self.step(&ticket.key, |engine, l1, now_ms, out| engine.loaded(l1, ticket, loaded, now_ms, out))
    }

    pub(crate) fn failed(self: &Arc<Self>, ticket: &Ticket, error: LoadError) -> Result<Answer, CacheError> {
        self.step(&ticket.key, |engine, l1, now_ms, out| engine.failed(l1, ticket, error, now_ms, out))
    }

    pub(crate) fn abandoned(self: &Arc<Self>, ticket: &Ticket) {
        self.step(&ticket.key, |engine, l1, now_ms, out| engine.abandoned(l1, ticket, now_ms, out));
    }

    pub(crate) fn expired(self: &Arc<Self>, ticket: &Ticket) {
        self.step(&ticket.key, |engine, l1, now_ms, out| engine.expired(l1, ticket, now_ms, out));
    }

    fn l2_answered(self: &Arc<Self>, ticket: &Ticket, outcome: Result<Found, L2Error>) {
        if let Ok(Found::Fresh(Stored { value: Some(_), .. })) = outcome {
            self.filter.add(&ticket.key);
        }
        let event = |engine: &mut Engine<Waiter>, l1: &L1, now_ms, out: &mut Actions| {
            engine.l2_answered(l1, ticket, outcome, now_ms, out);
        };
        self.step(&ticket.key, event);
    }

    fn filled(self: &Arc<Self>, ticket: &Ticket, outcome: Result<Filled, L2Error>) {
        self.step(&ticket.key, |engine, l1, now_ms, out| engine.filled(l1, ticket, outcome, now_ms, out));
    }

    fn locked(self: &Arc<Self>, ticket: &Ticket, guard: Option<LockGuard>) {
        if guard.is_none() {
            self.counters.bump(Counter::LocksMissed);
        }
        let mut actions = Vec::new();
        let now_ms = (self.clock)();
        self.engine(&ticket.key).lock().locked(&self.l1, ticket, now_ms, &mut actions);
        self.carry_out(actions, guard);
    }

    /// `guard` goes with the load that begins, if one does.
    pub(super) fn carry_out(self: &Arc<Self>, actions: Actions, mut guard: Option<LockGuard>) {
        let mut actions = VecDeque::from(actions);
        while let Some(action) = actions.pop_front() {
            match action {
                // A send fails when the waiter is gone, and then nobody misses the answer.
                Action::Wake(waiter, Ok(answer)) => drop(waiter.0.send(Woken::Answer(answer))),
                Action::Wake(waiter, Err(error)) => drop(waiter.0.send(Woken::Failed(error))),
                Action::Hand(waiter, ticket) => {
                    let token = LoadToken::new(self.clone(), ticket, Loader::Caller, guard.take());
                    if let Err(Woken::Load(token)) = waiter.0.send(Woken::Load(token)) {
                        // Gone between the choice and the hand-over: choose again, here rather than in the drop
                        // of the token, so that many such waiters do not nest.
                        let ticket;
                        (ticket, guard) = token.defuse();
                        let mut more = Vec::new();
                        let now_ms = (self.clock)();
                        self.engine(&ticket.key).lock().abandoned(&self.l1, &ticket, now_ms, &mut more);
                        actions.extend(more);
                    }
                }
                Action::Load(ticket) => self.load(ticket, guard.take()),
                Action::Watch(ticket) => self.watch(ticket),
                Action::AskL2 { ticket, lease_ms, repair } => self.ask_l2(ticket, lease_ms, repair),
                Action::Wait { ticket, wait_ms } => self.wait(ticket, wait_ms),
                Action::Lock { ticket, wait_ms } => self.take_lock(ticket, wait_ms),
                Action::Fill { ticket, token, stored } => self.fill(ticket, token, stored),
                Action::Release { key, token } => self.release(key, token),
            }
        }
    }

    /// Asks the source on the background runtime.
    pub(super) fn load(self: &Arc<Self>, ticket: Ticket, guard: Option<LockGuard>) {
        let request = LoadRequest { key: ticket.key.clone(), params: ticket.params.clone() };
        let timeout_ms = self.engine(&ticket.key).lock().policy().load_timeout_ms;
        let token = LoadToken::new(self.clone(), ticket, Loader::Source, guard);
        let source = self.source.read().clone();
        let cache = self.clone();
        self.runtime.spawn(async move {
            let Some(source) = source else {
                drop(token.fail(LoadError::Unavailable("the source was taken away".into())));
                return;
            };
            let began = Instant::now();
            let outcome = timeout(Duration::from_millis(timeout_ms), source.load(request)).await;
            cache.source_latency.note(began.elapsed());
            // The outcomes are for the waiters, whom the engine tells; nobody waits for this task.
            match outcome {
                Ok(Ok(loaded)) => drop(token.complete(loaded)),
                Ok(Err(error)) => drop(token.fail(error)),
                Err(_) => token.expire(),
            }
        });
    }

    /// Ends a caller's load at its deadline, should it not have ended by then.
    fn watch(self: &Arc<Self>, ticket: Ticket) {
        let timeout_ms = self.engine(&ticket.key).lock().policy().load_timeout_ms;
        let cache = self.clone();
        self.runtime.spawn(async move {
            sleep(Duration::from_millis(timeout_ms)).await;
            cache.expired(&ticket);
        });
    }

    /// Asks L2. The question outlives the soft timeout, so that a lease that comes late is given back.
    fn ask_l2(self: &Arc<Self>, ticket: Ticket, lease_ms: u64, repair: Version) {
        let mut owed = Owed::new(self.clone(), ticket, |cache, ticket| {
            cache.l2_answered(ticket, Err(L2Error::Unavailable("the question was dropped".into())));
        });
        let l2 = self.l2.read().clone();
        let soft_ms = self.engine(&owed.ticket.key).lock().policy().l2_timeout_ms;
        self.runtime.spawn(async move {
            let Some(l2) = l2 else { return };
            let key = owed.ticket.key.clone();
            let began = Instant::now();
            let question = async {
                if repair != 0 {
                    l2.invalidate(Scope::Key(key.clone()), repair).await?;
                }
                l2.get(key.clone(), lease_ms).await
            };
            tokio::pin!(question);
            let mut soft = Some(Duration::from_millis(soft_ms));
            let outcome = loop {
                match soft.take() {
                    Some(soft) => match timeout(soft, &mut question).await {
                        Ok(outcome) => break outcome,
                        Err(_) => owed.cache.l2_answered(&owed.ticket, Err(L2Error::Timeout(soft_ms))),
                    },
                    None => break question.await,
                }
            };
            owed.cache.l2_latency.note(began.elapsed());
            owed.paid = true;
            owed.cache.l2_answered(&owed.ticket, outcome);
        });
    }

    fn wait(self: &Arc<Self>, ticket: Ticket, wait_ms: u64) {
        let cache = self.clone();
        self.runtime.spawn(async move {
            sleep(Duration::from_millis(wait_ms)).await;
            cache.step(&ticket.key, |engine, l1, now_ms, out| engine.waited(l1, &ticket, now_ms, out));
        });
    }

    fn take_lock(self: &Arc<Self>, ticket: Ticket, wait_ms: u64) {
        let mut owed = Owed::new(self.clone(), ticket, |cache, ticket| cache.locked(ticket, None));
        let lock = self.lock.read().clone();
        self.runtime.spawn(async move {
            let Some(lock) = lock else { return };
            // The service bounds the wait itself; should it not, the load goes on without the lock.
            let slack = Duration::from_millis(wait_ms.saturating_add(wait_ms / 2).saturating_add(1));
            let key = owed.ticket.key.clone();
            let guard = timeout(slack, lock.lock(key, wait_ms)).await;
            owed.paid = true;
            owed.cache.locked(&owed.ticket, guard.ok().and_then(Result::ok).flatten());
        });
    }

    fn fill(self: &Arc<Self>, ticket: Ticket, token: LeaseToken, stored: Stored) {
        let mut owed = Owed::new(self.clone(), ticket, |cache, ticket| {
            cache.filled(ticket, Err(L2Error::Unavailable("the fill was dropped".into())));
        });
        let l2 = self.l2.read().clone();
        let soft_ms = self.engine(&owed.ticket.key).lock().policy().l2_timeout_ms;
        self.runtime.spawn(async move {
            let Some(l2) = l2 else { return };
            let fill = l2.fill(owed.ticket.key.clone(), token, stored);
            tokio::pin!(fill);
            let outcome = match timeout(Duration::from_millis(soft_ms), &mut fill).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    owed.cache.filled(&owed.ticket, Err(L2Error::Timeout(soft_ms)));
                    fill.await
                }
            };
            owed.paid = true;
            owed.cache.filled(&owed.ticket, outcome);
        });
    }

    fn release(self: &Arc<Self>, key: bytes::Bytes, token: LeaseToken) {
        let Some(l2) = self.l2.read().clone() else { return };
        // A lease that cannot be given back runs out.
        self.runtime.spawn(async move { drop(l2.release(key, token).await) });
    }
}

/// An event that the engine was promised. Dropped before it was paid, it pays with a failure.
struct Owed<F: FnMut(&Arc<Inner>, &Ticket)> {
    cache: Arc<Inner>,
    ticket: Ticket,
    failure: F,
    paid: bool,
}

impl<F: FnMut(&Arc<Inner>, &Ticket)> Owed<F> {
    fn new(cache: Arc<Inner>, ticket: Ticket, failure: F) -> Self {
        Self { cache, ticket, failure, paid: false }
    }
}

impl<F: FnMut(&Arc<Inner>, &Ticket)> Drop for Owed<F> {
    fn drop(&mut self) {
        if !self.paid {
            (self.failure)(&self.cache, &self.ticket);
        }
    }
}
