//! A lane: the messages of one partition that wait for their effects, in order, one under way at a time.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::AbortHandle;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use terrace_base::log::Level;
use terrace_cache::L2Error;

use super::Shared;
use super::counters::add;
use crate::mapping::{Invalidation, KEY_BYTES_MAX};

/// Bytes of keys that may wait in one lane before its partition is paused; the last message may go beyond.
pub const LANE_BYTES_MAX: usize = 128 * KEY_BYTES_MAX;

/// Topic and number.
pub(super) type Partition = (Arc<str>, i32);

/// One message, read.
pub(super) struct Job {
    pub offset: i64,
    pub invalidations: Vec<Invalidation>,
    /// What the message takes of [`LANE_BYTES_MAX`].
    pub size_bytes: usize,
}

/// The messages of one partition.
pub(super) struct Lane {
    /// Tells the lane from an earlier one of the same partition.
    pub id: u64,
    pub queue: VecDeque<Job>,
    pub queue_bytes: usize,
    /// Ends what is under way.
    pub running: Option<AbortHandle>,
    pub paused: bool,
}

impl Lane {
    pub fn new(id: u64) -> Self {
        Self { id, queue: VecDeque::new(), queue_bytes: 0, running: None, paused: false }
    }

    pub fn push(&mut self, job: Job) {
        self.queue_bytes += job.size_bytes;
        self.queue.push_back(job);
    }

    pub fn pop(&mut self) -> Option<Job> {
        let job = self.queue.pop_front()?;
        self.queue_bytes -= job.size_bytes;
        Some(job)
    }

    pub fn is_full(&self, in_flight_max: usize) -> bool {
        self.queue.len() >= in_flight_max || self.queue_bytes >= LANE_BYTES_MAX
    }

    /// Empty enough for its partition to go on.
    pub fn has_room(&self, in_flight_max: usize) -> bool {
        self.queue.len() <= in_flight_max / 2 && self.queue_bytes <= LANE_BYTES_MAX / 2
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }
}

/// Has all effects of a message done, however long that takes.
pub(super) async fn work_off(shared: Arc<Shared>, invalidations: Vec<Invalidation>) {
    let limit = shared.options.concurrent_effects_max.max(1);
    let shared = &shared;
    stream::iter(invalidations).for_each_concurrent(limit, |invalidation| insist(shared, invalidation)).await;
}

/// Has one effect done, however long that takes.
async fn insist(shared: &Shared, invalidation: Invalidation) {
    let options = &shared.options;
    let mut pause_ms = options.retry_min_ms.max(1);
    let mut failures = 0_u64;
    while let Err(error) = attempt(shared, invalidation.clone()).await {
        failures += 1;
        add(&shared.counters.effect_failures, 1);
        shared.noise.say(
            Level::Error,
            "effect",
            format_args!("an invalidation of cache \"{}\" is tried again: {error}", invalidation.cache),
        );
        tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        pause_ms = (pause_ms * 2).min(options.retry_max_ms.max(1));
    }
    add(&shared.counters.effects, 1);
    if failures > 0 {
        shared.noise.say(
            Level::Notice,
            "recovery",
            format_args!(
                "an invalidation of cache \"{}\" succeeded in attempt {}",
                invalidation.cache,
                failures + 1
            ),
        );
    }
}

async fn attempt(shared: &Shared, invalidation: Invalidation) -> Result<(), L2Error> {
    let timeout_ms = shared.options.effect_timeout_ms;
    // A panic, in making the future or in running it, counts as a failure.
    let effect = AssertUnwindSafe(async { (shared.effect)(invalidation).await }).catch_unwind();
    match tokio::time::timeout(Duration::from_millis(timeout_ms), effect).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(L2Error::Refused("the effect panicked".into())),
        Err(_) => Err(L2Error::Timeout(timeout_ms)),
    }
}
