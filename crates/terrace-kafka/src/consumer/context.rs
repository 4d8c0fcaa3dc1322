//! The callbacks of the client: they only take notes, since they run inside a poll.

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
    /// Told when there is something in `revoked`.
    pub rebalanced: Notify,
}

impl Context {
    pub fn new(noise: Arc<Noise>, counters: Arc<Counters>) -> Self {
        Self { noise, counters, revoked: Mutex::new(Vec::new()), rebalanced: Notify::new() }
    }

    /// The partitions that were taken away since the last call.
    pub fn take_revoked(&self) -> Vec<Partition> {
        std::mem::take(&mut *self.revoked.lock())
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
        // Where nothing is stored yet, the lag counts from what is committed; where that is not known either, it is -1.
        let lag = statistics
            .topics
            .values()
            .flat_map(|topic| topic.partitions.values())
            .map(|p| if p.consumer_lag_stored >= 0 { p.consumer_lag_stored } else { p.consumer_lag })
            .map(|lag| u64::try_from(lag).unwrap_or(0))
            .sum();
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
