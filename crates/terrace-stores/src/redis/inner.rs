//! The operations of the store, as they are put together from scripts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::redis::Value;
use bytes::Bytes;
use futures_util::future::try_join_all;
use terrace_cache::{Filled, Found, L2Error, LeaseToken, Notice, Scope, Stored, Version};
use tokio::time::{Instant, timeout_at};

use super::names::Names;
use super::noticed::Noticed;
use super::options::RedisOptions;
use super::recent::Recent;
use super::reply::{self, Done, Got, Raw};
use super::router::Router;
use super::scripts::{Arg, FILL, GET, INVALIDATE, RELEASE, SET, TAG};
use super::stats::Counters;
use crate::codec::{Codec, CodecError};
use crate::report::{Reporter, shown};

/// How long older versions are refused after an invalidation with a version: 10 minutes.
pub const FLOOR_MS: u64 = 600_000;

/// How old a lease may be for its fill to be stored, if nobody else has had one since: 5 minutes.
pub const LEASE_AGE_MAX_MS: u64 = 300_000;

/// How long the invalidation of a tag is remembered for the fills that are on their way. Longer than [`LEASE_AGE_MAX_MS`].
pub(super) const TAG_VOID_MS: u64 = 600_000;

/// By how much the clocks of two Redis servers may differ; matters to fills with tags just after the tag's invalidation.
const CLOCKS_DIFFER_MS: u64 = 250;

/// How much longer than its values a tag remembers them.
const TAG_SPARE_MS: u64 = 60_000;

/// How many forgotten members a fill clears from a tag's set.
const TAG_CLEARED: u64 = 16;

/// How long a value may live: 10 years. Longer lives are shortened; the scripts' numbers stay exact.
const LIFE_MAX_MS: u64 = 10 * 365 * 86_400_000;

/// See the module.
pub(super) struct Inner {
    pub(super) options: Arc<RedisOptions>,
    pub(super) router: Arc<Router>,
    pub(super) names: Names,
    pub(super) noticed: Noticed,
    pub(super) recent: Recent,
    pub(super) reporter: Arc<Reporter>,
    pub(super) stats: Counters,
    pub(super) codec: Codec,
    /// Begins at random; steps through all numbers.
    pub(super) tokens: AtomicU64,
    /// At random: with which server this node begins.
    pub(super) turn: usize,
}

impl Inner {
    pub(super) async fn get(&self, key: Bytes, lease_ms: u64) -> Result<Found, L2Error> {
        let deadline = self.router.deadline();
        if let Some(stored) = self.ask_replica(&key, deadline).await {
            return Ok(Found::Fresh(stored));
        }
        let name = self.names.key(&key);
        let token = self.token();
        let mut unreadable_ms = 0;
        // Once more if the value cannot be read: then for the lease.
        loop {
            let args =
                [Arg::Wide(token), Arg::Number(lease_ms.clamp(1, LIFE_MAX_MS)), Arg::Number(unreadable_ms)];
            let answer = self.router.script(&GET, &name, &args, deadline).await;
            let answer = answer.inspect_err(|error| self.tell_refused(&key, error))?;
            return match reply::got(answer).ok_or_else(|| self.nonsense())? {
                Got::Fresh(raw) if raw.filled_ms != unreadable_ms => {
                    let filled_ms = raw.filled_ms;
                    match self.decode(&key, raw) {
                        Some(stored) => Ok(Found::Fresh(stored)),
                        None => {
                            unreadable_ms = filled_ms;
                            continue;
                        }
                    }
                }
                Got::Fresh(_) => Err(self.nonsense()),
                Got::Lease(raw) => {
                    Ok(Found::Lease { token, stale: raw.and_then(|raw| self.decode(&key, raw)) })
                }
                Got::Held(remaining_ms, raw) => {
                    Ok(Found::Held { remaining_ms, stale: raw.and_then(|raw| self.decode(&key, raw)) })
                }
            };
        }
    }

    pub(super) async fn fill(
        &self,
        key: Bytes,
        token: LeaseToken,
        stored: Stored,
    ) -> Result<Filled, L2Error> {
        let deadline = self.router.deadline();
        let envelope = self.encode(&key, &stored)?;
        let voided_ms = self.tag(&key, &stored, deadline).await?;
        let voided = if voided_ms == 0 { 0 } else { voided_ms + CLOCKS_DIFFER_MS };
        let args = [
            Arg::Wide(token),
            Arg::Wide(stored.version),
            Arg::Number(stored.ttl_ms.min(LIFE_MAX_MS)),
            Arg::Number(stored.dead_ms.min(LIFE_MAX_MS)),
            Arg::Number(voided),
            Arg::Number(LEASE_AGE_MAX_MS),
            Arg::Bytes(&self.names.channel),
            Arg::Bytes(&key),
            Arg::Bytes(&envelope),
        ];
        let answer = self.router.script(&FILL, &self.names.key(&key), &args, deadline).await;
        let filled = self.filled(&key, &stored, answer)?;
        if filled == Filled::Stored && stored.version > 0 {
            self.recent.remember(Scope::Key(key), stored.version);
        }
        Ok(filled)
    }

    pub(super) async fn set(&self, key: Bytes, stored: Stored) -> Result<Filled, L2Error> {
        let deadline = self.router.deadline();
        let envelope = self.encode(&key, &stored)?;
        self.tag(&key, &stored, deadline).await?;
        let args = [
            Arg::Wide(stored.version),
            Arg::Number(stored.ttl_ms.min(LIFE_MAX_MS)),
            Arg::Number(stored.dead_ms.min(LIFE_MAX_MS)),
            Arg::Bytes(&self.names.channel),
            Arg::Bytes(&key),
            Arg::Bytes(&envelope),
        ];
        let answer = self.router.script(&SET, &self.names.key(&key), &args, deadline).await;
        let filled = self.filled(&key, &stored, answer)?;
        if filled == Filled::Stored {
            self.recent.remember(Scope::Key(key), stored.version);
        }
        Ok(filled)
    }

    pub(super) async fn release(&self, key: Bytes, token: LeaseToken) -> Result<(), L2Error> {
        let args = [Arg::Wide(token), Arg::Bytes(&self.names.channel), Arg::Bytes(&key)];
        self.router.script(&RELEASE, &self.names.key(&key), &args, self.router.deadline()).await.map(drop)
    }

    /// Invalidates one key; tells the fleet unless the caller does.
    pub(super) async fn invalidate_key(
        &self,
        key: &Bytes,
        version: Version,
        tell: bool,
        deadline: Instant,
    ) -> Result<u64, L2Error> {
        let channel: &[u8] = if tell { &self.names.channel } else { b"" };
        let args = [Arg::Wide(version), Arg::Number(FLOOR_MS), Arg::Bytes(channel), Arg::Bytes(key)];
        let answer = self.router.script(&INVALIDATE, &self.names.key(key), &args, deadline).await;
        let answer = answer.inspect_err(|error| self.tell_refused(key, error))?;
        self.noticed.hear(&Notice::Invalidated { scope: Scope::Key(key.clone()), version });
        Ok(reply::number(answer).unwrap_or(0))
    }

    /// Puts the key under its tags, before it is filled. Answers when the newest of them was invalidated, or 0.
    async fn tag(&self, key: &Bytes, stored: &Stored, deadline: Instant) -> Result<u64, L2Error> {
        let life_ms = stored.dead_ms.min(LIFE_MAX_MS) + TAG_SPARE_MS;
        let args =
            [Arg::Bytes(key), Arg::Number(life_ms), Arg::Number(TAG_VOID_MS), Arg::Number(TAG_CLEARED)];
        let tagged = stored.tags.iter().map(|tag| async {
            let name = self.names.tag(tag);
            let answer = self.router.script(&TAG, &name, &args, deadline).await;
            answer.inspect_err(|error| self.tell_refused(tag.as_bytes(), error)).map(reply::number)
        });
        Ok(try_join_all(tagged).await?.into_iter().flatten().max().unwrap_or(0))
    }

    /// What became of a fill or set; this node's own view of replicas hears of it at once.
    fn filled(
        &self,
        key: &Bytes,
        stored: &Stored,
        answer: Result<Value, L2Error>,
    ) -> Result<Filled, L2Error> {
        let answer = answer.inspect_err(|error| self.tell_refused(key, error))?;
        Ok(match reply::done(answer).ok_or_else(|| self.nonsense())? {
            Done::Stored => {
                self.noticed.hear(&Notice::Filled { key: key.clone(), version: stored.version });
                Filled::Stored
            }
            Done::Voided => Filled::Voided,
            Done::Older(version) => Filled::Older(version),
        })
    }

    fn encode(&self, key: &Bytes, stored: &Stored) -> Result<Vec<u8>, L2Error> {
        self.codec.encode(key, stored).map_err(|error| {
            self.reporter.tell(|| format!("redis: the value of {} is not stored: {error}", shown(key)));
            L2Error::Refused(error.to_string().into())
        })
    }

    pub(super) fn decode(&self, key: &Bytes, raw: Raw) -> Option<Stored> {
        let tell = |error: CodecError| {
            self.stats.count(|stats| &stats.unreadable);
            self.reporter.tell(|| format!("redis: the value of {} cannot be read: {error}", shown(key)));
        };
        self.codec.decode(key, raw.envelope, raw.age_ms).inspect_err(|error| tell(error.clone())).ok()
    }

    fn tell_refused(&self, key: &[u8], error: &L2Error) {
        if let L2Error::Refused(why) = error {
            self.reporter.tell(|| format!("redis: key {}: {why}", shown(key)));
        }
    }

    pub(super) fn nonsense(&self) -> L2Error {
        self.reporter.tell(|| "redis: an answer that makes no sense".to_owned());
        L2Error::Refused("an answer that makes no sense".into())
    }

    /// A token that no other node is likely to have: the counter's numbers are scattered over all of them. (Steele, Lea and Flood,
    /// "Fast Splittable Pseudorandom Number Generators", 2014: the finalizer is a bijection.)
    fn token(&self) -> LeaseToken {
        loop {
            let mut token = self.tokens.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
            token = (token ^ (token >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            token = (token ^ (token >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            token ^= token >> 31;
            if token != 0 {
                return token;
            }
        }
    }

    /// Bounds a call that is made of several.
    pub(super) async fn within<T>(
        &self,
        limit_ms: u64,
        call: impl Future<Output = Result<T, L2Error>>,
    ) -> Result<T, L2Error> {
        let deadline = Instant::now() + Duration::from_millis(limit_ms);
        timeout_at(deadline, call).await.unwrap_or(Err(L2Error::Timeout(limit_ms)))
    }
}
