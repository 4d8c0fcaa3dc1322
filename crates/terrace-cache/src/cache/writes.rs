//! What changes values from outside: sets and invalidations, here at once and in L2 soon after.
//!
//! Invariant: an invalidation is applied here twice, before and after L2 has it: between the two a lookup may still have
//! read the old value from L2.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Cache, Inner};
use crate::entry::Made;
use crate::l2::{Filled, L2Error, Scope, Version};
use crate::policy::OnChange;
use crate::stats::Counter;

/// The outcome of a change, which has already taken effect in this process.
#[derive(Debug)]
#[must_use = "the effect on L2 comes later and may fail"]
pub enum Effect<T> {
    /// There is no L2: done.
    Now(T),
    /// L2 is told; await it to know that it has it. Dropping it does not stop it.
    Later(Later<T>),
}

impl<T> Effect<T> {
    /// Waits until L2 has the change too. After an error it may or may not have it; invalidations can be repeated.
    ///
    /// # Errors
    ///
    /// L2 gave no answer.
    pub async fn done(self) -> Result<T, L2Error> {
        match self {
            Self::Now(outcome) => Ok(outcome),
            Self::Later(later) => later.await,
        }
    }
}

/// The wait for L2.
#[derive(Debug)]
#[must_use = "the effect on L2 may fail"]
pub struct Later<T>(oneshot::Receiver<Result<T, L2Error>>);

impl<T> Future for Later<T> {
    type Output = Result<T, L2Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = || L2Error::Unavailable("the call was dropped".into());
        Pin::new(&mut self.0).poll(context).map(|outcome| outcome.unwrap_or_else(|_| Err(lost())))
    }
}

/// How a value is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SetOptions {
    /// Taken exactly, not jittered; the policy's life if none. Zero stores nothing.
    pub ttl_ms: Option<u64>,
    /// Its version; zero: none, and it wins over whatever there is.
    pub version: Version,
    /// Tags under which it can be invalidated; beyond [`crate::TAGS_MAX`] they are ignored.
    pub tags: Vec<Arc<str>>,
}

impl Cache {
    /// Stores a value, or with `None` a negative entry, for [`SetOptions`] of this life and no version. See
    /// [`Cache::set_with`].
    pub fn set(&self, key: &[u8], value: Option<Bytes>, ttl_ms: Option<u64>, now_ms: u64) -> Effect<Filled> {
        self.set_with(key, value, SetOptions { ttl_ms, ..SetOptions::default() }, now_ms)
    }

    /// Stores a value, or with `None` a negative entry, here at once and in L2. It wins over any load under way, and
    /// answers those who wait. [`Filled::Older`] if a newer version is known, here or in L2. When L2 fails, the value is
    /// dropped here too: the fleet does not have it.
    pub fn set_with(
        &self,
        key: &[u8],
        value: Option<Bytes>,
        options: SetOptions,
        now_ms: u64,
    ) -> Effect<Filled> {
        let inner = &self.inner;
        if value.is_some() {
            inner.filter.add(key);
        }
        let SetOptions { ttl_ms, version, tags } = options;
        let policy = inner.policy();
        let default_ms = if value.is_some() { policy.ttl_ms } else { policy.negative_ttl_ms };
        let made = Made::now(value, version, tags, ttl_ms.unwrap_or(default_ms), &policy);
        let mut actions = Vec::new();
        let told = inner.engine(key).lock().set(&inner.l1, key, made, now_ms, &mut actions);
        inner.carry_out(actions, None);
        let Some(stored) = told else { return Effect::Now(Filled::Older(inner.l1.version(key, now_ms))) };
        let Some(l2) = inner.l2.read().clone() else { return Effect::Now(Filled::Stored) };
        let (inner, key) = (inner.clone(), Bytes::copy_from_slice(key));
        later(self, async move {
            let outcome = if stored.ttl_ms == 0 {
                l2.invalidate(Scope::Key(key.clone()), stored.version).await.map(|_| Filled::Stored)
            } else {
                l2.set(key.clone(), stored).await
            };
            let newest = match &outcome {
                Ok(Filled::Stored) => return outcome,
                Ok(Filled::Older(newest)) => *newest,
                Ok(Filled::Voided) | Err(_) => 0,
            };
            inner.step(&key, |engine, l1, now_ms, out| {
                engine.changed(l1, &key, newest, OnChange::Drop, now_ms, out)
            });
            outcome
        })
    }

    /// Invalidates a key. A load that began before does not populate it, here or in L2. Answers whether there was a value.
    pub fn delete(&self, key: &[u8]) -> Effect<bool> {
        match self.change(Scope::Key(Bytes::copy_from_slice(key)), 0, OnChange::Drop) {
            (here, None) => Effect::Now(here > 0),
            (here, Some(l2)) => later(self, async move { l2.done().await.map(|there| here + there > 0) }),
        }
    }

    /// Invalidates every key. Answers how many values L2 dropped, or L1 without an L2.
    pub fn purge_all(&self) -> Effect<u64> {
        self.invalidate(Scope::Prefix(Bytes::new()), 0, OnChange::Drop)
    }

    /// Tells that values are no longer true. With a `version` that is not zero, values of that version and newer still are.
    /// Idempotent.
    ///
    /// `how` says what becomes of the copies in this process; other nodes follow their `on_change`. With
    /// [`OnChange::Refresh`] a changed key that L1 has is loaded anew at once, up to `invalidation_refreshes_per_s`; beyond
    /// the rate, and for prefixes and tags, its next lookup begins that. Until then it is served as past its life.
    ///
    /// Answers how many values L2 dropped; without an L2, how many entries of L1 were meant (zero for a tag: they are found
    /// when they are looked up).
    pub fn invalidate(&self, scope: Scope, version: Version, how: OnChange) -> Effect<u64> {
        match self.change(scope, version, how) {
            (here, None) => Effect::Now(here),
            (_, Some(l2)) => l2,
        }
    }

    /// As [`Cache::invalidate`], for this process alone: where every node hears of the change by itself, and L2 is told by
    /// another way. How many entries of L1 were meant.
    pub fn invalidate_here(&self, scope: &Scope, version: Version, how: OnChange) -> u64 {
        // With an L2, a refresh at once might read the old value there.
        let refresh = !self.inner.has_l2();
        self.inner.changed_here(scope, version, how, refresh)
    }

    /// What the change meant here, and its effect on L2 if there is one.
    fn change(&self, scope: Scope, version: Version, how: OnChange) -> (u64, Option<Effect<u64>>) {
        let inner = self.inner.clone();
        let Some(l2) = inner.l2.read().clone() else {
            return (inner.changed_here(&scope, version, how, true), None);
        };
        inner.expect_own(&scope, version, how);
        let here = inner.changed_here(&scope, version, how, false);
        let effect = later(self, async move {
            let outcome = l2.invalidate(scope.clone(), version).await;
            inner.changed_here(&scope, version, how, outcome.is_ok());
            outcome
        });
        (here, Some(effect))
    }
}

impl Inner {
    /// Applies an invalidation to this process. How many entries of L1 were meant. `refresh`: L2 knows of it already, so
    /// that what a refresh reads there is not the old value.
    pub(super) fn changed_here(
        self: &Arc<Self>,
        scope: &Scope,
        version: Version,
        how: OnChange,
        refresh: bool,
    ) -> u64 {
        self.counters.bump(Counter::Invalidations);
        match scope {
            Scope::Key(key) => self.key_changed(key, version, how, refresh),
            Scope::Prefix(prefix) => {
                let number = self.l1.marks.sweep();
                for engine in &self.engines {
                    let mut actions = Vec::new();
                    let now_ms = (self.clock)();
                    engine.lock().swept(&self.l1, prefix, number, version, now_ms, &mut actions);
                    self.carry_out(actions, None);
                }
                self.l1.sweep(prefix, version, how, (self.clock)())
            }
            Scope::Tag(tag) => {
                match how {
                    OnChange::Drop => self.l1.marks.drop_tag(tag),
                    OnChange::Refresh => self.l1.marks.end_tag(tag, (self.clock)()),
                }
                0
            }
        }
    }

    fn key_changed(self: &Arc<Self>, key: &[u8], version: Version, how: OnChange, refresh: bool) -> u64 {
        let had =
            self.step(key, |engine, l1, now_ms, out| engine.changed(l1, key, version, how, now_ms, out));
        if had && refresh && how == OnChange::Refresh && self.source.read().is_some() {
            let per_s = self.policy().invalidation_refreshes_per_s;
            if self.refreshes.take((self.clock)(), per_s) {
                self.step(key, |engine, l1, now_ms, out| engine.refresh_now(l1, key, now_ms, out));
            }
        }
        u64::from(had)
    }
}

/// Runs a call to L2 to its end, whether or not anybody waits for it.
fn later<T: Send + 'static>(
    cache: &Cache,
    call: impl Future<Output = Result<T, L2Error>> + Send + 'static,
) -> Effect<T> {
    let (sender, receiver) = oneshot::channel();
    cache.inner.runtime.spawn(async move { drop(sender.send(call.await)) });
    Effect::Later(Later(receiver))
}
