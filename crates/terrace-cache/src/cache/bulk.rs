//! Lookups of many keys: one question to L2 for all that L1 does not have, then loads for those that are left.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use super::{Cache, Lookup};
use crate::entry::Answer;
use crate::error::CacheError;
use crate::l2::Stored;
use crate::source::Params;
use crate::stats::Counter;

/// How many keys go into one question to L2; more are asked for in several, one after the other.
const PEEK_KEYS_MAX: usize = 1_000;

impl Cache {
    /// Looks many keys up, loading what no level has. One answer for each key, in order; `params` as for
    /// [`Cache::lookup`].
    pub async fn lookup_many(
        &self,
        keys: &[Bytes],
        now_ms: u64,
        params: impl Fn(&[u8]) -> Params,
    ) -> Vec<Result<Answer, CacheError>> {
        let mut answers: Vec<Option<Answer>> =
            keys.iter().map(|key| self.inner.hit(key, now_ms).or_else(|| self.filtered(key))).collect();
        let absent: Vec<usize> = (0..keys.len()).filter(|&at| answers[at].is_none()).collect();
        for absent in absent.chunks(PEEK_KEYS_MAX) {
            self.peek_l2(keys, absent, now_ms, &mut answers).await;
        }
        let lookups: Vec<Result<Answer, Lookup>> = answers
            .into_iter()
            .zip(keys)
            .map(|(answer, key)| answer.ok_or_else(|| self.lookup(key, now_ms, || params(key))))
            .collect();
        let mut outcomes = Vec::with_capacity(keys.len());
        for lookup in lookups {
            outcomes.push(match lookup {
                Ok(answer) | Err(Lookup::Hit(answer)) => Ok(answer),
                Err(Lookup::Wait(wait)) => wait.await,
                Err(Lookup::Failed(error)) => Err(error),
            });
        }
        outcomes
    }

    /// Fills in what L2 has. What it does not say is looked up key by key.
    async fn peek_l2(&self, keys: &[Bytes], absent: &[usize], now_ms: u64, answers: &mut [Option<Answer>]) {
        let inner = &self.inner;
        let Some(l2) = inner.l2.read().clone() else { return };
        // A single key gets a lease in the same question; a store that is away is not asked.
        if absent.len() < 2 || !inner.health.is_up() {
            return;
        }
        let as_of = inner.l1.marks.current();
        let asked: Vec<Bytes> = absent.iter().map(|&at| keys[at].clone()).collect();
        let soft_ms = inner.policy().l2_timeout_ms;
        let began = Instant::now();
        let peek = async move { timeout(Duration::from_millis(soft_ms), l2.peek(asked)).await };
        let found = inner.runtime.spawn(peek).await;
        inner.l2_latency.note(began.elapsed());
        let found: Vec<Option<Stored>> = match found {
            Ok(Ok(Ok(found))) => found,
            Ok(Ok(Err(_))) => return inner.counters.bump(Counter::L2Errors),
            Ok(Err(_)) | Err(_) => return inner.counters.bump(Counter::L2Timeouts),
        };
        for (&at, stored) in absent.iter().zip(found) {
            let Some(stored) = stored else { continue };
            let key = keys[at].clone();
            answers[at] = inner.step(&keys[at], |engine, l1, clock_ms, _| {
                engine.adopt(l1, key, stored, as_of, clock_ms.max(now_ms))
            });
        }
    }
}
