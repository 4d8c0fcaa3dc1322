//! The caches of a generation, and how they outlive it.
//!
//! Invariant: a cache that the running generation uses is changed only by [`Caches::activate`], when the workers of
//! the next generation start; preparing a generation changes nothing that serves.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};

use terrace_base::clock;
use terrace_base::log::{ErrorLog, Level};
use terrace_cache::{Cache, FleetLock, L2, Parts, Policy, Source};
use terrace_conf::{ConfError, Position};
use terrace_http::Builder;
use terrace_kafka::ConsumerStats;
use terrace_stores::redis::RedisStats;
use terrace_stores::{BreakerStats, ZooKeeperLock, ZooKeeperOptions};
use tokio::runtime::Handle;

use super::cache_block::{CacheSpec, Files, MEMORY_BYTES_MIN, Named, Specs};
use super::changes::{self, Listening};
use super::chores::Chores;
use super::invalidation_block::{InvalidationSpec, Invalidations};
use super::lock_block::Locks;
use super::source_block::{OpenSource, SourceOptions, Sources};
use super::store_block::{OpenStore, StoreOptions, Stores};

/// The rules of `resty.mlcache` for what it keeps in a dictionary: scripts give every life, an old value stays until it makes
/// room, a load may take as long as a lock is held.
fn dictionary_policy(size_bytes: u64) -> Policy {
    Policy {
        jitter_percent: 0,
        stale_while_revalidate_ms: 0,
        stale_if_error_ms: 10 * 365 * 86_400_000,
        error_retry_ms: 0,
        load_timeout_ms: 30_000,
        loads_max: 65_536,
        lookups_max: 65_536,
        size_bytes_max: size_bytes.max(MEMORY_BYTES_MIN),
        ..Policy::default()
    }
}

/// One cache of a generation.
pub struct CacheEntry {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The name of its source, if it has one.
    pub source_name: Option<Arc<str>>,
    /// The name of the store behind it, if it has one.
    pub store_name: Option<Arc<str>>,
    /// The cache.
    pub cache: Cache,
    /// How it keeps, serves and reloads values.
    pub policy: Policy,
    source: Option<Arc<dyn Source>>,
    store: Option<(StoreOptions, OpenStore)>,
    lock: Option<Arc<dyn FleetLock>>,
    files: Files,
}

/// All tiered caches of a generation; [`terrace_http::Generation::shared`] has them. Empty while a configuration
/// is only checked.
#[derive(Default)]
pub struct Caches {
    entries: Vec<CacheEntry>,
    sources: Vec<(Arc<str>, SourceOptions, OpenSource)>,
    locks: Vec<(Arc<str>, ZooKeeperOptions, Arc<ZooKeeperLock>)>,
    invalidations: Vec<InvalidationSpec>,
    runtime: Option<Handle>,
    kept: Arc<Kept>,
    active: OnceFlag,
}

/// Starts as "not yet".
struct OnceFlag(Once);

impl Default for OnceFlag {
    fn default() -> Self {
        Self(Once::new())
    }
}

/// What reloads keep.
#[derive(Default)]
pub(super) struct Kept(Mutex<KeptByName>);

#[derive(Default)]
struct KeptByName {
    caches: HashMap<Arc<str>, Cache>,
    sources: HashMap<Arc<str>, (SourceOptions, OpenSource)>,
    /// By the name of the cache.
    stores: HashMap<Arc<str>, (StoreOptions, OpenStore)>,
    locks: HashMap<Arc<str>, (ZooKeeperOptions, Arc<ZooKeeperLock>)>,
    listening: HashMap<Arc<str>, Listening>,
    /// By the name of the dictionary; with the size.
    of_dictionaries: HashMap<Arc<str>, (u64, Cache)>,
    /// By the name of the cache.
    chores: HashMap<Arc<str>, Chores>,
    /// Of the running generation.
    log: Option<ErrorLog>,
}

impl Kept {
    fn locked(&self) -> MutexGuard<'_, KeptByName> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The running generation's cache of this name.
    pub(super) fn cache(&self, name: &str) -> Option<Cache> {
        self.locked().caches.get(name).cloned()
    }

    /// Writes to the running generation's log.
    pub(super) fn log(&self, level: Level, line: &str) {
        let log = self.locked().log.clone();
        log.unwrap_or_else(|| ErrorLog::stderr(Level::Error)).write(level, None, line.as_bytes());
    }
}

impl CacheEntry {
    /// What its store has met with, if it is Redis.
    pub(super) fn redis_stats(&self) -> Option<RedisStats> {
        self.store.as_ref().and_then(|(_, open)| open.redis_stats())
    }

    /// Its L2, if it has one.
    pub(super) fn l2(&self) -> Option<Arc<dyn L2>> {
        self.store.as_ref().map(|(_, open)| open.l2.clone())
    }
}

impl Caches {
    /// The runtime that calls to L2 run on; none while a configuration is only checked.
    pub(super) fn runtime(&self) -> Option<&Handle> {
        self.runtime.as_ref()
    }

    /// The cache of this name.
    pub fn find(&self, name: &[u8]) -> Option<&Cache> {
        self.entry(name).map(|it| &it.cache)
    }

    /// The same with all that is known of it.
    pub fn entry(&self, name: &[u8]) -> Option<&CacheEntry> {
        self.entries.iter().find(|it| it.name.as_bytes() == name)
    }

    /// The cache that takes the place of a dictionary of this name and size for `resty.mlcache`: one for the process, kept by
    /// reloads. None while a configuration is only checked.
    pub fn of_dictionary(&self, name: &str, size_bytes: u64) -> Option<Cache> {
        let runtime = self.runtime.clone()?;
        let mut kept = self.kept.locked();
        let policy = dictionary_policy(size_bytes);
        if let Some((size, cache)) = kept.of_dictionaries.get_mut(name) {
            if std::mem::replace(size, policy.size_bytes_max) != policy.size_bytes_max {
                cache.reconfigure(policy, None);
            }
            return Some(cache.clone());
        }
        let cache = Cache::new(policy, None, runtime, Arc::new(now_ms), random_seed());
        kept.of_dictionaries.insert(name.into(), (policy.size_bytes_max, cache.clone()));
        Some(cache)
    }

    /// What the consumers of changes did, with the names of their blocks and their parts (`node`, `group`).
    pub(super) fn consumers(&self) -> Vec<(Arc<str>, &'static str, ConsumerStats)> {
        let kept = self.kept.locked();
        let of_block = |it: &Listening| {
            let name = it.spec.name.clone();
            it.stats().map(move |(part, stats)| (name.clone(), part, stats)).collect::<Vec<_>>()
        };
        let mut all: Vec<_> = kept.listening.values().flat_map(of_block).collect();
        all.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        all
    }

    /// What the breakers of sources did, with the sources' names.
    pub(super) fn breakers(&self) -> impl Iterator<Item = (&Arc<str>, BreakerStats)> {
        self.sources.iter().filter_map(|(name, _, open)| Some((name, open.breaker()?)))
    }

    /// All caches, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &CacheEntry> {
        self.entries.iter()
    }

    /// Gives this generation's settings to the caches that an earlier one made, lets go of those that it does not have,
    /// and begins to listen for changes. Does nothing the second time.
    pub fn activate(&self, log: &ErrorLog) {
        self.active.0.call_once(|| {
            let mut kept = self.kept.locked();
            kept.log = Some(log.clone());
            for entry in &self.entries {
                if kept.caches.contains_key(&entry.name) {
                    entry.cache.reconfigure(entry.policy, entry.source.clone());
                    let l2 = entry.store.as_ref().map(|(_, open)| open.l2.clone());
                    entry.cache.set_fleet(l2, entry.lock.clone());
                }
            }
            let caches = self.entries.iter().map(|it| (it.name.clone(), it.cache.clone()));
            kept.caches = caches.collect();
            let sources = self.sources.iter().cloned();
            kept.sources = sources.map(|(name, options, source)| (name, (options, source))).collect();
            let stores = self.entries.iter().filter_map(|it| Some((it.name.clone(), it.store.clone()?)));
            kept.stores = stores.collect();
            let locks = self.locks.iter().cloned();
            kept.locks = locks.map(|(name, options, lock)| (name, (options, lock))).collect();
            let Some(runtime) = &self.runtime else { return };
            let mut chores = std::mem::take(&mut kept.chores);
            let begin = |it: &CacheEntry| {
                let same = chores.remove(&it.name).filter(|chores| chores.files == it.files);
                let begun = || Chores::begin(it.cache.clone(), it.files.clone(), self.kept.clone(), runtime);
                (it.name.clone(), same.unwrap_or_else(begun))
            };
            kept.chores = self.entries.iter().map(begin).collect();
            let mut listening = std::mem::take(&mut kept.listening);
            let listen = |spec: &InvalidationSpec| {
                let same = listening.remove(&spec.name).filter(|it| it.spec.is_same(spec));
                let begun = || changes::listen(spec.clone(), &self.kept, log, runtime);
                (spec.name.clone(), same.unwrap_or_else(begun))
            };
            kept.listening = self.invalidations.iter().map(listen).collect();
        });
    }
}

/// The prepared caches of the configuration being built.
#[derive(Default)]
struct Prepared(Option<Arc<Caches>>);

/// Makes the generation's caches: those of an earlier generation by their names, new ones else. Only checks that
/// what they name exists when there is no runtime to load on (`-t`).
pub(super) fn prepare(b: &mut Builder) -> Result<Arc<Caches>, ConfError> {
    if let Some(caches) = &b.state::<Prepared>().0 {
        return Ok(caches.clone());
    }
    let kept = b.persistent.of::<Kept>();
    let runtime = b.persistent.background();
    let mut caches = Caches { kept: kept.clone(), runtime: runtime.clone(), ..Caches::default() };
    let known = kept.locked();
    for spec in &b.state::<Sources>().0 {
        let same = known.sources.get(&spec.name).filter(|(options, _)| *options == spec.options);
        let source = same.map_or(&spec.open, |(_, source)| source);
        caches.sources.push((spec.name.clone(), spec.options.clone(), source.clone()));
    }
    for spec in &b.state::<Locks>().0 {
        let same = known.locks.get(&spec.name).filter(|(options, _)| *options == spec.options);
        let lock = match same {
            Some((_, lock)) => lock.clone(),
            // Checked when the block was read.
            None => match ZooKeeperLock::new(spec.options.clone()) {
                Ok(lock) => Arc::new(lock),
                Err(_) => continue,
            },
        };
        caches.locks.push((spec.name.clone(), spec.options.clone(), lock));
    }
    for spec in b.state::<Specs>().0.clone() {
        let entry = make(b, &caches, &known, &kept, spec)?;
        caches.entries.extend(entry);
    }
    caches.invalidations = b.state::<Invalidations>().0.clone();
    check_invalidations(b, &caches.invalidations)?;
    drop(known);
    let caches = Arc::new(caches);
    b.state::<Prepared>().0 = Some(caches.clone());
    Ok(caches)
}

/// One cache with all that it names; none when there is no runtime.
fn make(
    b: &mut Builder,
    caches: &Caches,
    known: &KeptByName,
    kept: &Arc<Kept>,
    spec: CacheSpec,
) -> Result<Option<CacheEntry>, ConfError> {
    let CacheSpec { name, policy, source, l2, lock, files } = spec;
    let source = find(&caches.sources, &source, |(name, ..)| name, "cache source")?;
    let lock = find(&caches.locks, &lock, |(name, ..)| name, "cache lock")?;
    let store = find(&b.state::<Stores>().0, &l2, |it| &it.name, "cache store")?;
    let refused = |error: String| match &l2 {
        Some((_, at)) => ConfError::at(at, error),
        None => ConfError::new(error),
    };
    let options = store.map(|it| it.of_cache(&name));
    if let Some(options) = &options {
        options.check().map_err(refused)?;
    }
    let Some(runtime) = caches.runtime.clone() else { return Ok(None) };
    let store_name = store.map(|it| it.name.clone());
    let store = match options {
        None => None,
        Some(options) => Some(match known.stores.get(&name).filter(|(same, _)| *same == options) {
            Some(same) => same.clone(),
            None => {
                let (kept, whose) = (kept.clone(), name.clone());
                let report = move |line: String| {
                    kept.log(Level::Warn, &format!("tiered cache \"{whose}\": {line}"));
                };
                let open = options.open(runtime.clone(), Arc::new(report)).map_err(refused)?;
                (options, open)
            }
        }),
    };
    let source_name = source.map(|(name, ..)| name.clone());
    let source = source.map(|(_, _, open)| open.source.clone());
    let lock = lock.map(|(_, _, lock)| lock.clone() as Arc<dyn FleetLock>);
    let make = || {
        let (source, lock) = (source.clone(), lock.clone());
        let l2 = store.as_ref().map(|(_, open)| open.l2.clone());
        Cache::build(Parts {
            policy,
            source,
            l2,
            lock,
            runtime,
            clock: Arc::new(now_ms),
            seed: random_seed(),
        })
    };
    let cache = known.caches.get(&name).cloned().unwrap_or_else(make);
    Ok(Some(CacheEntry { name, source_name, store_name, cache, policy, source, store, lock, files }))
}

/// What a cache names, if it names anything.
fn find<'a, T>(
    all: &'a [T],
    named: &Named,
    name_of: impl Fn(&T) -> &Arc<str>,
    what: &str,
) -> Result<Option<&'a T>, ConfError> {
    let Some((name, at)) = named else { return Ok(None) };
    match all.iter().find(|it| **name_of(it) == **name) {
        Some(found) => Ok(Some(found)),
        None => Err(ConfError::at(at, format!("unknown {what} \"{name}\""))),
    }
}

fn check_invalidations(b: &mut Builder, all: &[InvalidationSpec]) -> Result<(), ConfError> {
    let caches = &b.state::<Specs>().0;
    let named = all.iter().flat_map(|it| it.rules.iter().zip(&it.named_at));
    let unknown = |(rule, _): &(&terrace_kafka::mapping::Rule, &Position)| {
        !caches.iter().any(|it| it.name == rule.cache)
    };
    match named.into_iter().find(unknown) {
        Some((rule, at)) => Err(ConfError::at(at, format!("unknown tiered cache \"{}\"", rule.cache))),
        None => Ok(()),
    }
}

/// The time when a load came back: the workers' monotonic clock, read now, because the threads of the background
/// runtime do not keep theirs up to date.
pub(super) fn now_ms() -> u64 {
    clock::update();
    clock::monotonic_ms()
}

/// The standard library seeds its hash maps from the system's randomness, and so gives some of it away.
fn random_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}
