//! The callbacks of the client: they only take notes, since they run inside a poll.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, TopicPartitionList};
use terrace_base::log::Level;
use tokio::sync::Notify;

use super::counters::{Counters, add};
use super::lane::Partition;
use crate::client;
use crate::noise::Noise;

/// What the client's callbacks write to.
pub(super) struct Context {
    noise: Arc<Noise>,
    counters: Arc<Counters>,
    /// Partitions that were taken away and whose lanes still stand.
    revoked: Mutex<Vec<Partition>>,
    /// The first message of each partition that is not done; for the lag.
    heads: Mutex<HashMap<Partition, i64>>,
    /// Told when there is something in `revoked`.
    pub rebalanced: Notify,
}

impl Context {
    pub fn new(noise: Arc<Noise>, counters: Arc<Counters>) -> Self {
        Self {
            noise,
            counters,
            revoked: Mutex::new(Vec::new()),
            heads: Mutex::new(HashMap::new()),
            rebalanced: Notify::new(),
        }
    }

    /// The partitions that were taken away since the last call.
    pub fn take_revoked(&self) -> Vec<Partition> {
        let revoked = std::mem::take(&mut *self.revoked.lock());
        if !revoked.is_empty() {
            self.heads.lock().retain(|partition, _| !revoked.contains(partition));
        }
        revoked
    }

    /// The first message of a lane has come.
    pub fn begun(&self, partition: Partition, offset: i64) {
        self.heads.lock().insert(partition, offset);
    }

    /// A message is done.
    pub fn done(&self, partition: &Partition, offset: i64) {
        if let Some(head) = self.heads.lock().get_mut(partition) {
            *head = offset + 1;
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(&self.noise, level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        add(&self.counters.client_errors, 1);
        self.noise.say(Level::Error, "client", format_args!("{error}: {reason}"));
    }

    fn stats(&self, statistics: Statistics) {
        let heads = self.heads.lock();
        let head = |topic: &str, number: i32| {
            heads.iter().find(|((name, n), _)| **name == *topic && *n == number).map(|(_, head)| *head)
        };
        let lag = statistics
            .topics
            .values()
            .flat_map(|topic| topic.partitions.values().map(|p| (head(&topic.topic, p.partition), p)))
            .map(|(head, p)| match head {
                // What is beyond the last stable offset cannot be heard yet.
                Some(head) => p.ls_offset.saturating_sub(head),
                // Nothing came yet: counted from what is committed; -1 where that is not known.
                None => p.consumer_lag,
            })
            .map(|lag| u64::try_from(lag).unwrap_or(0))
            .sum();
        drop(heads);
        self.counters.lag.store(lag, Relaxed);
        let up = statistics.brokers.values().filter(|b| b.nodeid >= 0 && b.state == "UP").count();
        self.counters.brokers_up.store(up as u64, Relaxed);
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        add(&self.counters.rebalances, 1);
        match rebalance {
            Rebalance::Assign(partitions) => {
                self.noise.note(Level::Info, format_args!("{} partitions assigned", partitions.count()));
            }
            Rebalance::Revoke(partitions) => {
                self.noise.note(Level::Info, format_args!("{} partitions taken away", partitions.count()));
                let gone = partitions.elements();
                self.revoked.lock().extend(gone.iter().map(|p| (p.topic().into(), p.partition())));
                self.rebalanced.notify_one();
            }
            Rebalance::Error(error) => {
                self.noise.say(Level::Error, "rebalance", format_args!("rebalancing: {error}"));
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, _: &Rebalance<'_>) {
        if let Ok(assigned) = consumer.assignment() {
            self.counters.partitions.store(assigned.count() as u64, Relaxed);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            add(&self.counters.commit_failures, 1);
            self.noise.say(Level::Warn, "commit", format_args!("a commit failed: {error}"));
        }
    }
}
