//! The consumer: messages in, effects out, offsets committed after the effects.
//!
//! Two roles. [`Role::Group`]: one of the fleet does the work of a message (L2); Kafka shares the partitions out and keeps
//! the offsets. [`Role::EveryNode`]: every node hears every message (L1), without a group to join and without commits.
//!
//! Invariants:
//!
//! - an offset is stored for a commit only after the effects of its message, and of all before it in its partition, were
//!   acknowledged; a message without effect (poison) counts as done;
//! - an effect that fails is tried again with back-off until it succeeds or the partition is taken away; its partition
//!   waits, others go on, and the client is polled all the while, so that it stays in its group;
//! - what waits in memory is bounded for each partition; when it is full, nothing is received for a moment, and if it is
//!   stuck, it is paused and the others go on.

mod context;
mod counters;
mod lane;
mod positions;
mod pump;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use rdkafka::consumer::{Consumer as _, StreamConsumer};
use terrace_base::log::{ErrorLog, Level};
use terrace_cache::{BoxFuture, L2Error};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{self, KafkaError};
use crate::mapping::{Invalidation, Mapping};
use crate::noise::Noise;

pub use counters::ConsumerStats;
pub use lane::LANE_BYTES_MAX;

use context::Context;
use counters::Counters;
use positions::Positions;
use pump::{End, Pump};

/// Does what a message asks for. Called again after a failure, so it must be idempotent.
pub type Effect = Arc<dyn Fn(Invalidation) -> BoxFuture<'static, Result<(), L2Error>> + Send + Sync>;

/// A client with this crate's callbacks.
type Client = StreamConsumer<Context>;

/// How long a fatally failed client waits to be made anew.
const RENEWAL_DELAY: Duration = Duration::from_secs(1);
/// How far before the consumer's start a node begins to listen: clocks of producers may be that much behind.
const START_MARGIN_MS: u64 = 60_000;

/// For whom a consumer hears messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// For the fleet: each message is heard by one member of the group at a time. A new group begins with the oldest message.
    Group(String),
    /// For this node: it hears every message from its start on, and from a minute before.
    EveryNode,
}

/// What a consumer listens to, and its bounds.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Addresses (`host:port`) of some brokers; the others are learnt.
    pub brokers: Vec<String>,
    /// The topics.
    pub topics: Vec<String>,
    /// For whom.
    pub role: Role,
    /// The name that the brokers see in their logs.
    pub client_id: String,
    /// Messages of one partition that may wait for their effects.
    pub in_flight_max: usize,
    /// Keys of one message that are dealt with at a time.
    pub concurrent_effects_max: usize,
    /// Size in bytes above which a message is skipped.
    pub message_bytes_max: usize,
    /// Time after which an effect without an answer counts as failed.
    pub effect_timeout_ms: u64,
    /// Pause after the first failure of an effect; doubled with each one that follows.
    pub retry_min_ms: u64,
    /// Longest pause between two attempts.
    pub retry_max_ms: u64,
    /// Time between two commits. What was done since the last one is done again should the process die.
    pub commit_interval_ms: u64,
    /// Time without a sign of life after which the group takes a member for dead.
    pub session_timeout_ms: u64,
    /// Further properties of the client (librdkafka's names), such as those of SASL.
    pub properties: Vec<(String, String)>,
}

impl ConsumerOptions {
    /// The defaults.
    pub fn new(brokers: Vec<String>, topics: Vec<String>, role: Role) -> Self {
        Self {
            brokers,
            topics,
            role,
            client_id: "terrace".into(),
            in_flight_max: 256,
            concurrent_effects_max: 16,
            message_bytes_max: 1024 * 1024,
            effect_timeout_ms: 10_000,
            retry_min_ms: 100,
            retry_max_ms: 5_000,
            commit_interval_ms: 1_000,
            session_timeout_ms: 45_000,
            properties: Vec::new(),
        }
    }

    fn client_config(&self) -> Result<rdkafka::ClientConfig, KafkaError> {
        if self.topics.is_empty() {
            return Err(KafkaError::Options("no topic is named".into()));
        }
        let mut config = client::config(&self.brokers, &self.client_id, &self.properties)?;
        // What the configuration sets by its own name counts before the option.
        let session_timeout_ms = config.get("session.timeout.ms").and_then(|text| text.parse().ok());
        let session_timeout_ms: u64 = session_timeout_ms.unwrap_or(self.session_timeout_ms);
        for (name, value) in [
            ("session.timeout.ms", session_timeout_ms.to_string()),
            // Two signs of life may get lost.
            ("heartbeat.interval.ms", (session_timeout_ms / 3).clamp(1, 3_000).to_string()),
            ("auto.commit.interval.ms", self.commit_interval_ms.to_string()),
            ("queued.max.messages.kbytes", "16384".to_owned()),
        ] {
            if config.get(name).is_none() {
                config.set(name, value);
            }
        }
        config
            // The library stores offsets when told to, and commits what is stored: on a timer, when a partition is taken
            // away, and in the end.
            .set("enable.auto.offset.store", "false")
            // Where the offsets are lost, the oldest message: nothing is skipped.
            .set("auto.offset.reset", "earliest");
        match &self.role {
            Role::Group(group) => config
                .set("group.id", group)
                .set("enable.auto.commit", "true")
                .set("partition.assignment.strategy", "cooperative-sticky"),
            // The library wants a name even though the group is neither joined nor written to.
            Role::EveryNode => config.set("group.id", &self.client_id).set("enable.auto.commit", "false"),
        };
        Ok(config)
    }
}

/// What the parts of a consumer share.
struct Shared {
    options: ConsumerOptions,
    mapping: Mapping,
    effect: Effect,
    noise: Arc<Noise>,
    counters: Arc<Counters>,
    /// For [`Role::EveryNode`]: where the node is in each partition; outlives a client that failed.
    positions: Mutex<Positions>,
}

/// A running consumer. Dropping it ends it, without waiting for the end.
#[derive(Debug)]
pub struct Consumer {
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Consumer {
    /// Begins to listen, on `runtime`. Brokers that are away are waited for, for ever.
    ///
    /// # Errors
    /// When an option is wrong.
    pub fn start(
        options: ConsumerOptions,
        mapping: Mapping,
        effect: Effect,
        log: ErrorLog,
        runtime: &Handle,
    ) -> Result<Self, KafkaError> {
        let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64);
        let counters = Arc::new(Counters::default());
        let shared = Arc::new(Shared {
            positions: Mutex::new(Positions::since(now_ms.saturating_sub(START_MARGIN_MS))),
            noise: Arc::new(Noise::new(log)),
            counters: Arc::clone(&counters),
            options,
            mapping,
            effect,
        });
        let _entered = runtime.enter();
        let client = connect(&shared)?;
        let (stop, stopped) = watch::channel(false);
        let task = runtime.spawn(run(shared, client, stopped));
        Ok(Self { counters, stop, task })
    }

    /// What happened up to now.
    pub fn stats(&self) -> ConsumerStats {
        self.counters.read()
    }

    /// Ends: leaves the group, and commits what was done. Effects that are under way are abandoned, and done by whoever
    /// hears of them next.
    pub async fn stop(self) {
        self.stop.send_replace(true);
        // The task does not panic, and nobody else can cancel it.
        let _ = self.task.await;
    }
}

/// Makes a client and subscribes it, if its role is one of a group.
fn connect(shared: &Shared) -> Result<Arc<Client>, KafkaError> {
    let context = Context::new(Arc::clone(&shared.noise), Arc::clone(&shared.counters));
    let config = shared.options.client_config()?;
    let client: Client = config.create_with_context(context).map_err(|e| client::refused(&e))?;
    if let Role::Group(_) = shared.options.role {
        let topics: Vec<&str> = shared.options.topics.iter().map(String::as_str).collect();
        client.subscribe(&topics).map_err(|e| client::refused(&e))?;
    }
    Ok(Arc::new(client))
}

/// Runs one client after the other until told to stop.
async fn run(shared: Arc<Shared>, first: Arc<Client>, mut stopped: watch::Receiver<bool>) {
    let mut client = Some(first);
    loop {
        let end = match client.take() {
            Some(client) => {
                let end = Pump::new(&shared, Arc::clone(&client)).run(&mut stopped).await;
                // Closing a client waits for the brokers.
                let _ = tokio::task::spawn_blocking(move || drop(client)).await;
                end
            }
            None => End::Failed,
        };
        if matches!(end, End::Stopped) {
            return;
        }
        tokio::select! {
            _ = stopped.changed() => return,
            () = tokio::time::sleep(RENEWAL_DELAY) => {}
        }
        match connect(&shared) {
            Ok(renewed) => client = Some(renewed),
            Err(error) => {
                shared.noise.say(Level::Error, "renewal", format_args!("no new client: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_of_the_configuration_count_before_the_options() {
        let topics = vec!["cache-message".to_owned()];
        let mut options = ConsumerOptions::new(vec!["127.0.0.1:9092".into()], topics, Role::EveryNode);
        let read = |options: &ConsumerOptions, name| {
            let config = options.client_config().expect("the options are right");
            config.get(name).map(str::to_owned)
        };
        assert_eq!(read(&options, "session.timeout.ms").as_deref(), Some("45000"));
        assert_eq!(read(&options, "heartbeat.interval.ms").as_deref(), Some("3000"));
        options.properties.push(("session.timeout.ms".into(), "3000".into()));
        assert_eq!(read(&options, "session.timeout.ms").as_deref(), Some("3000"));
        assert_eq!(read(&options, "heartbeat.interval.ms").as_deref(), Some("1000"));
        options.properties.push(("enable.auto.commit".into(), "true".into()));
        assert!(options.client_config().is_err(), "what the effects' order rests on");
    }
}
