//! The front of the engine: what workers and scripts call.
//!
//! Invariant: no lock of an engine is held while anybody is woken, spawned or dropped. L1 hits touch one read lock
//! of one shard of L1 and nothing else that is shared and written.

mod bulk;
mod drive;
mod listen;
mod writes;

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

pub(crate) use drive::Inner;
pub use writes::{Effect, Later, SetOptions};

use crate::engine::{Ask, Verdict};
use crate::entry::{Answer, Level};
use crate::error::{CacheError, LoadError};
use crate::l2::{FleetLock, L2};
use crate::policy::Policy;
use crate::source::{Params, Source};
use crate::stats::{Counter, Stats};
use crate::token::{BeginWait, LoadToken, Loader, Wait};

/// The time in milliseconds on the clock that callers take `now_ms` from: any epoch, but never backwards for long.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// A multi-level cache. Cheap to clone; all clones are the same cache.
#[derive(Clone)]
pub struct Cache {
    pub(crate) inner: Arc<Inner>,
}

/// What a cache is made of.
pub struct Parts {
    /// How it keeps, serves and reloads values.
    pub policy: Policy,
    /// Serves [`Cache::lookup`]; without one only [`Cache::begin`] loads.
    pub source: Option<Arc<dyn Source>>,
    /// The level that the fleet shares. The cache listens to its notices.
    pub l2: Option<Arc<dyn L2>>,
    /// Taken around every load, beside the lease of L2.
    pub lock: Option<Arc<dyn FleetLock>>,
    /// Runs the loads, the calls to L2 and their timeouts; must have its timer enabled.
    pub runtime: Handle,
    /// Tells when something came back.
    pub clock: Clock,
    /// Decides the jitter and the hash functions, so it must be random for each process.
    pub seed: u64,
}

/// What a lookup gives.
#[derive(Debug)]
pub enum Lookup {
    /// Answered by L1, at once.
    Hit(Answer),
    /// The key is on its way; await the outcome.
    Wait(Wait),
    /// No answer, and none to wait for.
    Failed(CacheError),
}

/// What a lookup with the caller's own loader gives.
#[derive(Debug)]
pub enum Begin {
    /// Answered by L1, at once.
    Hit(Answer),
    /// Answered by L1 with a value that is due for a refresh. After it has used the answer the caller should await the
    /// rest: it says whether to load ([`crate::Woken::Load`]), or that L2 or another had a newer value.
    Refresh(Answer, BeginWait),
    /// The caller loads now.
    Load(LoadToken),
    /// L2 is asked, or somebody else loads; await the outcome, which may be to become the loader.
    Wait(BeginWait),
    /// No answer, and none to wait for.
    Failed(CacheError),
}

impl Cache {
    /// Makes a cache of one process: L1 above a source. For the rest see [`Parts`].
    pub fn new(
        policy: Policy,
        source: Option<Arc<dyn Source>>,
        runtime: Handle,
        clock: Clock,
        seed: u64,
    ) -> Self {
        Self::build(Parts { policy, source, l2: None, lock: None, runtime, clock, seed })
    }

    /// Makes a cache, and listens to its L2 if it has one.
    pub fn build(parts: Parts) -> Self {
        let l2 = parts.l2.clone();
        let inner = Arc::new(Inner::new(parts));
        inner.listen_to(l2);
        Self { inner }
    }

    /// Looks a key up; loads it from the source when no level has it.
    ///
    /// `params` is called only when a load may be needed. A hit neither waits nor allocates.
    pub fn lookup(&self, key: &[u8], now_ms: u64, params: impl FnOnce() -> Params) -> Lookup {
        if let Some(answer) = self.inner.hit(key, now_ms) {
            return Lookup::Hit(answer);
        }
        if self.inner.source.read().is_none() {
            return Lookup::Failed(CacheError::NoSource);
        }
        if let Some(answer) = self.filtered(key) {
            return Lookup::Hit(answer);
        }
        let mut receiver = None;
        let ask = Ask { key, now_ms, native: true, params: params() };
        match self.inner.ask(ask, &mut receiver) {
            Verdict::Answer(answer) | Verdict::AnswerAndWait(answer) => Lookup::Hit(answer),
            Verdict::AnswerAndLoad(answer, ticket) => {
                self.inner.load(ticket, None);
                Lookup::Hit(answer)
            }
            Verdict::Load(ticket) => {
                self.inner.load(ticket, None);
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
        if let Some(answer) = self.inner.hit(key, now_ms).or_else(|| self.filtered(key)) {
            return Begin::Hit(answer);
        }
        let mut receiver = None;
        let ask = Ask { key, now_ms, native: false, params: Params::new() };
        let token = |ticket| LoadToken::new(self.inner.clone(), ticket, Loader::Caller, None);
        let abandoned = || CacheError::from(LoadError::Abandoned);
        match self.inner.ask(ask, &mut receiver) {
            Verdict::Answer(answer) => Begin::Hit(answer),
            Verdict::AnswerAndLoad(answer, ticket) => Begin::Refresh(answer, BeginWait::ready(token(ticket))),
            Verdict::AnswerAndWait(answer) => match receiver {
                Some(receiver) => Begin::Refresh(answer, BeginWait(receiver)),
                None => Begin::Hit(answer),
            },
            Verdict::Load(ticket) => Begin::Load(token(ticket)),
            Verdict::Joined => {
                receiver.map_or_else(|| Begin::Failed(abandoned()), |it| Begin::Wait(BeginWait(it)))
            }
            Verdict::Refused(bound) => Begin::Failed(CacheError::Busy(bound)),
        }
    }

    /// What L1 holds for a key, fresh or inside a stale window. Asks nobody else and counts nothing.
    pub fn peek(&self, key: &[u8], now_ms: u64) -> Option<Answer> {
        self.inner.l1.usable(key, now_ms)
    }

    /// Takes over a new policy and source after a reload. Values, waits and counters stay; values that are stored
    /// keep the lives they were stored with.
    pub fn reconfigure(&self, policy: Policy, source: Option<Arc<dyn Source>>) {
        *self.inner.source.write() = source;
        self.inner.bounds.loads.resize(policy.loads_max);
        self.inner.bounds.flights.resize(policy.lookups_max);
        self.inner.engines.iter().for_each(|engine| engine.lock().reconfigure(policy));
        self.inner.l1.resize(policy.size_bytes_max);
    }

    /// Takes over another L2 and lock after a reload, and listens to the new L2. Does nothing to the L2 if it is the same
    /// one; else what L1 has is checked with the new one, as after a gap in the notices.
    pub fn set_fleet(&self, l2: Option<Arc<dyn L2>>, lock: Option<Arc<dyn FleetLock>>) {
        self.inner.set_fleet(l2, lock);
    }

    /// The counters, and what the cache holds now.
    pub fn stats(&self) -> Stats {
        let inner = &self.inner;
        Stats {
            entries: inner.l1.entries(),
            size_bytes: inner.l1.size_bytes(),
            loads_running: inner.bounds.loads.taken() as u64,
            lookups_running: inner.bounds.flights.taken() as u64,
            l2_up: inner.l2.read().is_some() && inner.health.is_up(),
            l2_latency: inner.l2_latency.read(),
            source_latency: inner.source_latency.read(),
            ..inner.counters.read()
        }
    }

    /// The answer to a lookup of a key that the filter of existing keys does not know.
    fn filtered(&self, key: &[u8]) -> Option<Answer> {
        if self.inner.filter.may_exist(key) {
            return None;
        }
        self.inner.counters.bump(Counter::FilterNegatives);
        Some(Answer { value: None::<Bytes>, level: Level::L1, age_ms: 0, ttl_ms: 0 })
    }
}

impl std::fmt::Debug for Cache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cache").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod fleet_tests;
#[cfg(test)]
mod tests;
