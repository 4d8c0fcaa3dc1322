//! The consumer's numbers, readable from outside at any time.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::mapping::Fault;

/// What a consumer did since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConsumerStats {
    /// Messages heard, redelivered ones included.
    pub messages: u64,
    /// Messages whose effects were all acknowledged, or that had none.
    pub done: u64,
    /// Effects acknowledged.
    pub effects: u64,
    /// Attempts of effects that failed.
    pub effect_failures: u64,
    /// Effects whose message did not tell the version it should.
    pub unversioned: u64,
    /// Messages that were no JSON.
    pub not_json: u64,
    /// Messages that no rule meant.
    pub unmatched: u64,
    /// Faults of fields: missing, of the wrong kind, too long, too many.
    pub unmappable: u64,
    /// Messages above the size that is taken.
    pub too_large: u64,
    /// Errors that the client reported: brokers away, topics unknown.
    pub client_errors: u64,
    /// Changes of the partitions that this consumer has.
    pub rebalances: u64,
    /// Commits that failed. The next one covers them.
    pub commit_failures: u64,
    /// Partitions that this consumer has now.
    pub partitions: u64,
    /// Messages in memory that wait for their effects now.
    pub waiting: u64,
    /// Messages in the topics that are not done, as of a second ago; frozen while the brokers are away.
    pub lag: u64,
    /// Brokers to which there is a connection, as of a second ago.
    pub brokers_up: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub messages: AtomicU64,
    pub done: AtomicU64,
    pub effects: AtomicU64,
    pub effect_failures: AtomicU64,
    pub unversioned: AtomicU64,
    pub not_json: AtomicU64,
    pub unmatched: AtomicU64,
    pub unmappable: AtomicU64,
    pub too_large: AtomicU64,
    pub client_errors: AtomicU64,
    pub rebalances: AtomicU64,
    pub commit_failures: AtomicU64,
    pub partitions: AtomicU64,
    pub waiting: AtomicU64,
    pub lag: AtomicU64,
    pub brokers_up: AtomicU64,
}

impl Counters {
    pub fn fault(&self, fault: &Fault) {
        let counter = match fault {
            Fault::TooLarge(_) => &self.too_large,
            Fault::NotJson(_) => &self.not_json,
            Fault::Unmatched => &self.unmatched,
            Fault::Missing(_) | Fault::NotScalar(_) | Fault::KeyTooLong | Fault::TooManyKeys => {
                &self.unmappable
            }
        };
        add(counter, 1);
    }

    pub fn read(&self) -> ConsumerStats {
        ConsumerStats {
            messages: self.messages.load(Relaxed),
            done: self.done.load(Relaxed),
            effects: self.effects.load(Relaxed),
            effect_failures: self.effect_failures.load(Relaxed),
            unversioned: self.unversioned.load(Relaxed),
            not_json: self.not_json.load(Relaxed),
            unmatched: self.unmatched.load(Relaxed),
            unmappable: self.unmappable.load(Relaxed),
            too_large: self.too_large.load(Relaxed),
            client_errors: self.client_errors.load(Relaxed),
            rebalances: self.rebalances.load(Relaxed),
            commit_failures: self.commit_failures.load(Relaxed),
            partitions: self.partitions.load(Relaxed),
            waiting: self.waiting.load(Relaxed),
            lag: self.lag.load(Relaxed),
            brokers_up: self.brokers_up.load(Relaxed),
        }
    }
}

pub(super) fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Relaxed);
}
