//! The front above an L2: two caches that share one in memory.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::*;
use crate::{
    BoxFuture, Filled, Found, L2Error, LeaseToken, Listener, LoadRequest, Loaded, Notice, OnChange, Scope,
    Stored, Version,
};

/// A value, and the lease that is out.
type Slot = (Option<Stored>, Option<LeaseToken>);

#[derive(Default)]
struct Memory {
    slots: Mutex<HashMap<Bytes, Slot>>,
    tokens: AtomicUsize,
    peeks: AtomicUsize,
    away: std::sync::atomic::AtomicBool,
    listeners: Mutex<Vec<Listener>>,
}

impl Memory {
    fn up(&self) -> Result<(), L2Error> {
        if self.away.load(Ordering::SeqCst) { Err(L2Error::Unavailable("away".into())) } else { Ok(()) }
    }

    fn tell(&self, notice: &Notice) {
        let listeners = self.listeners.lock().clone();
        listeners.iter().for_each(|listener| listener(notice.clone()));
    }

    fn put(&self, key: Bytes, token: Option<LeaseToken>, stored: Stored) -> Filled {
        let mut slots = self.slots.lock();
        let slot = slots.entry(key.clone()).or_default();
        if token.is_some() && slot.1 != token {
            return Filled::Voided;
        }
        let version = stored.version;
        *slot = (Some(stored), None);
        drop(slots);
        self.tell(&Notice::Filled { key, version });
        Filled::Stored
    }
}

/// One node's handle: each listens for itself.
struct Member(Arc<Memory>);

impl L2 for Member {
    fn get(&self, key: Bytes, lease_ms: u64) -> BoxFuture<'_, Result<Found, L2Error>> {
        Box::pin(async move {
            self.0.up()?;
            let mut slots = self.0.slots.lock();
            let slot = slots.entry(key).or_default();
            Ok(match slot {
                (Some(stored), _) => Found::Fresh(stored.clone()),
                (None, Some(_)) => Found::Held { remaining_ms: lease_ms, stale: None },
                (None, lease) => {
                    let token = self.0.tokens.fetch_add(1, Ordering::SeqCst) as u64 + 1;
                    *lease = Some(token);
                    Found::Lease { token, stale: None }
                }
            })
        })
    }

    fn peek(&self, keys: Vec<Bytes>) -> BoxFuture<'_, Result<Vec<Option<Stored>>, L2Error>> {
        Box::pin(async move {
            self.0.up()?;
            self.0.peeks.fetch_add(1, Ordering::SeqCst);
            let slots = self.0.slots.lock();
            Ok(keys.iter().map(|key| slots.get(key).and_then(|slot| slot.0.clone())).collect())
        })
    }

    fn fill(&self, key: Bytes, token: LeaseToken, stored: Stored) -> BoxFuture<'_, Result<Filled, L2Error>> {
        Box::pin(async move { self.0.up().map(|()| self.0.put(key, Some(token), stored)) })
    }

    fn set(&self, key: Bytes, stored: Stored) -> BoxFuture<'_, Result<Filled, L2Error>> {
        Box::pin(async move { self.0.up().map(|()| self.0.put(key, None, stored)) })
    }

    fn release(&self, key: Bytes, token: LeaseToken) -> BoxFuture<'_, Result<(), L2Error>> {
        Box::pin(async move {
            let mut slots = self.0.slots.lock();
            slots.entry(key.clone()).or_default().1.take_if(|held| *held == token);
            drop(slots);
            self.0.tell(&Notice::Released { key });
            Ok(())
        })
    }

    fn invalidate(&self, scope: Scope, version: Version) -> BoxFuture<'_, Result<u64, L2Error>> {
        Box::pin(async move {
            self.0.up()?;
            let Scope::Key(key) = &scope else { return Ok(0) };
            let had = self.0.slots.lock().remove(key).is_some_and(|slot| slot.0.is_some());
            self.0.tell(&Notice::Invalidated { scope, version });
            Ok(u64::from(had))
        })
    }

    fn listen(&self, listener: Listener) {
        self.0.listeners.lock().push(listener);
    }
}

#[derive(Default)]
struct Counting(AtomicUsize);

impl Source for Counting {
    fn load(&self, _request: LoadRequest) -> BoxFuture<'_, Result<Loaded, LoadError>> {
        let number = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move {
            tokio::task::yield_now().await;
            Ok(Loaded::found(format!("load {number}")))
        })
    }
}

fn fleet() -> (Arc<Memory>, Arc<Counting>, [Cache; 2]) {
    let (memory, source) = (Arc::new(Memory::default()), Arc::new(Counting::default()));
    let node = |seed| {
        Cache::build(Parts {
            policy: Policy { jitter_percent: 0, ..Policy::default() },
            source: Some(source.clone()),
            l2: Some(Arc::new(Member(memory.clone()))),
            lock: None,
            runtime: Handle::current(),
            clock: Arc::new(|| 1_000),
            seed,
        })
    };
    let nodes = [node(1), node(2)];
    (memory, source, nodes)
}

async fn get(cache: &Cache, key: &str) -> (String, Level) {
    let answer = match cache.lookup(key.as_bytes(), 1_000, Params::new) {
        Lookup::Hit(answer) => answer,
        Lookup::Wait(wait) => wait.await.expect("an answer"),
        Lookup::Failed(error) => panic!("{error}"),
    };
    (String::from_utf8(answer.value.expect("a value").to_vec()).expect("text"), answer.level)
}

#[tokio::test]
async fn one_load_serves_the_fleet_and_an_invalidation_reaches_all() {
    let (_, source, [a, b]) = fleet();
    let (first, second) = tokio::join!(get(&a, "k"), get(&b, "k"));
    assert_eq!((first.0.as_str(), second.0.as_str()), ("load 1", "load 1"));
    assert_eq!(source.0.load(Ordering::SeqCst), 1);
    let key = Scope::Key("k".into());
    assert_eq!(a.invalidate(key, 0, OnChange::Drop).done().await, Ok(1));
    assert_eq!((a.peek(b"k", 1_000), b.peek(b"k", 1_000)), (None, None));
    assert_eq!(get(&b, "k").await, ("load 2".to_owned(), Level::Source));
    assert_eq!(get(&a, "k").await, ("load 2".to_owned(), Level::L2));
    assert_eq!(get(&a, "k").await.1, Level::L1);
}

#[tokio::test]
async fn an_l2_that_is_away_costs_its_error_once_and_the_source_answers() {
    let (memory, _, [a, _]) = fleet();
    memory.away.store(true, Ordering::SeqCst);
    assert_eq!(get(&a, "k").await.1, Level::Source);
    assert_eq!(get(&a, "l").await.1, Level::Source);
    assert_eq!(get(&a, "k").await.1, Level::L1);
    let stats = a.stats();
    assert_eq!((stats.l2_errors, stats.l2_bypasses, stats.l2_up), (1, 1, false));
}

#[tokio::test]
async fn a_bulk_lookup_asks_l2_once_and_loads_the_rest() {
    let (memory, source, [a, b]) = fleet();
    for key in ["x", "y"] {
        get(&a, key).await;
    }
    let keys: Vec<Bytes> = ["x", "y", "z"].map(Bytes::from).to_vec();
    let answers = b.lookup_many(&keys, 1_000, |_| Params::new()).await;
    let levels: Vec<Level> = answers.into_iter().map(|answer| answer.expect("an answer").level).collect();
    assert_eq!(levels[..2], [Level::L2, Level::L2]);
    assert_eq!(memory.peeks.load(Ordering::SeqCst), 1);
    assert_eq!(source.0.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_caller_loads_for_the_fleet() {
    let (_, _, [a, b]) = fleet();
    let Begin::Wait(wait) = a.begin(b"k", 1_000) else { panic!("L2 is asked first") };
    let crate::Woken::Load(token) = wait.await else { panic!("nobody has it") };
    let answer = token.complete(Loaded::found("lua"));
    assert_eq!(answer.level, Level::Source);
    let Begin::Wait(wait) = b.begin(b"k", 1_000) else { panic!("L2 is asked first") };
    let crate::Woken::Answer(answer) = wait.await else { panic!("L2 has it, or soon") };
    assert_eq!(answer.level, Level::L2);
}
