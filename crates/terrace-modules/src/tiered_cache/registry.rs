//! The caches of a generation, and how they outlive it.
//!
//! Invariant: a cache that the running generation uses is changed only by [`Caches::activate`], when the workers of
//! the next generation start; preparing a generation changes nothing that serves.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, Once, PoisonError};

use terrace_base::clock;
use terrace_cache::{Cache, Policy, Source};
use terrace_conf::ConfError;
use terrace_http::Builder;
use terrace_stores::{SqlOptions, SqlSource};

use super::cache_block::{CacheSpec, Specs};
use super::source_block::Sources;

/// One cache of a generation.
pub struct CacheEntry {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// The name of its source, if it has one.
    pub source_name: Option<Arc<str>>,
    /// The cache.
    pub cache: Cache,
    /// How it keeps, serves and reloads values.
    pub policy: Policy,
    source: Option<Arc<dyn Source>>,
}

/// All tiered caches of a generation; [`terrace_http::Generation::shared`] has them. Empty while a configuration
/// is only checked.
#[derive(Default)]
pub struct Caches {
    entries: Vec<CacheEntry>,
    sources: Vec<(Arc<str>, SqlOptions, Arc<SqlSource>)>,
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
struct Kept(Mutex<KeptByName>);

#[derive(Default)]
struct KeptByName {
    caches: HashMap<Arc<str>, Cache>,
    sources: HashMap<Arc<str>, (SqlOptions, Arc<SqlSource>)>,
}

impl Caches {
    /// The cache of this name.
    pub fn find(&self, name: &[u8]) -> Option<&Cache> {
        self.entry(name).map(|it| &it.cache)
    }

    /// The same with all that is known of it.
    pub fn entry(&self, name: &[u8]) -> Option<&CacheEntry> {
        self.entries.iter().find(|it| it.name.as_bytes() == name)
    }

    /// All caches, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &CacheEntry> {
        self.entries.iter()
    }

    /// Gives this generation's settings to the caches that an earlier one made, and lets go of those that it does
    /// not have. Does nothing the second time.
    pub fn activate(&self) {
        self.active.0.call_once(|| {
            let mut kept = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
            for entry in &self.entries {
                if kept.caches.contains_key(&entry.name) {
                    entry.cache.reconfigure(entry.policy, entry.source.clone());
                }
            }
            let caches = self.entries.iter().map(|it| (it.name.clone(), it.cache.clone()));
            kept.caches = caches.collect();
            let sources = self.sources.iter().cloned();
            kept.sources = sources.map(|(name, options, source)| (name, (options, source))).collect();
        });
    }
}

/// The prepared caches of the configuration being built.
#[derive(Default)]
struct Prepared(Option<Arc<Caches>>);

/// Makes the generation's caches: those of an earlier generation by their names, new ones else. Only checks that
/// the sources exist when there is no runtime to load on (`-t`).
pub(super) fn prepare(b: &mut Builder) -> Result<Arc<Caches>, ConfError> {
    if let Some(caches) = &b.state::<Prepared>().0 {
        return Ok(caches.clone());
    }
    let kept = b.persistent.of::<Kept>();
    let runtime = b.persistent.background();
    let specs = b.state::<Specs>().0.clone();
    let mut caches = Caches { kept: kept.clone(), ..Caches::default() };
    let kept = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
    for spec in &b.state::<Sources>().0 {
        let same = kept.sources.get(&spec.name).filter(|(options, _)| *options == spec.options);
        let source = same.map_or(&spec.source, |(_, source)| source);
        caches.sources.push((spec.name.clone(), spec.options.clone(), source.clone()));
    }
    for CacheSpec { name, policy, source } in specs {
        let found = match &source {
            None => None,
            Some((source, at)) => {
                let found = caches.sources.iter().find(|(name, ..)| **name == **source);
                let unknown = || ConfError::at(at, format!("unknown cache source \"{source}\""));
                Some(found.ok_or_else(unknown)?)
            }
        };
        let source_name = found.map(|(name, ..)| name.clone());
        let source = found.map(|(_, _, source)| source.clone() as Arc<dyn Source>);
        let Some(runtime) = &runtime else { continue };
        let make = || Cache::new(policy, source.clone(), runtime.clone(), Arc::new(now_ms), random_seed());
        let cache = kept.caches.get(&name).cloned().unwrap_or_else(make);
        caches.entries.push(CacheEntry { name, source_name, cache, policy, source });
    }
    drop(kept);
    let caches = Arc::new(caches);
    b.state::<Prepared>().0 = Some(caches.clone());
    Ok(caches)
}

/// The time when a load came back: the workers' monotonic clock, read now, because the threads of the background
/// runtime do not keep theirs up to date.
fn now_ms() -> u64 {
    clock::update();
    clock::monotonic_ms()
}

/// The standard library seeds its hash maps from the system's randomness, and so gives some of it away.
fn random_seed() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}
