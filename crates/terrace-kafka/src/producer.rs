//! The producer: sends without waiting, out of a spool that is bounded in messages and bytes.
//!
//! Invariant: every message that is taken ends exactly once, as delivered or as lost, and is counted so; one that is not
//! taken because the spool is full is counted as dropped. Messages of one key, sent one after the other, arrive in that
//! order and once: the client numbers them for the brokers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use terrace_base::log::{ErrorLog, Level};
use tokio::sync::oneshot;

use crate::client::{self, KafkaError};
use crate::noise::Noise;

/// Which partition a message with a key goes to; one without a key goes to a random one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Partitioner {
    /// By murmur2 of the key, as Java's clients do.
    #[default]
    Murmur2,
    /// By CRC-32 of the key, as librdkafka does by default.
    Crc32,
}

/// Where a producer sends, and its bounds.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// Addresses (`host:port`) of some brokers; the others are learnt.
    pub brokers: Vec<String>,
    /// The name that the brokers see in their logs.
    pub client_id: String,
    /// Which partition a key means.
    pub partitioner: Partitioner,
    /// Messages that may wait to be delivered.
    pub spool_messages_max: usize,
    /// Kibibytes that may wait to be delivered.
    pub spool_kbytes_max: usize,
    /// How long messages are gathered before they are sent.
    pub linger_ms: u64,
    /// How long a message is tried before it is lost.
    pub delivery_timeout_ms: u64,
    /// To wait for all replicas, and to have messages arrive once and in order; otherwise the leader's word is enough.
    pub acks_all: bool,
    /// Further properties of the client (librdkafka's names), such as those of SASL.
    pub properties: Vec<(String, String)>,
}

impl ProducerOptions {
    /// The defaults.
    pub fn new(brokers: Vec<String>) -> Self {
        Self {
            brokers,
            client_id: "terrace".into(),
            partitioner: Partitioner::default(),
            spool_messages_max: 100_000,
            spool_kbytes_max: 64 * 1024,
            linger_ms: 5,
            delivery_timeout_ms: 120_000,
            acks_all: true,
            properties: Vec::new(),
        }
    }

    fn client_config(&self) -> Result<rdkafka::ClientConfig, KafkaError> {
        let mut config = client::config(&self.brokers, &self.client_id, &self.properties)?;
        config
            .set(
                "partitioner",
                match self.partitioner {
                    Partitioner::Murmur2 => "murmur2_random",
                    Partitioner::Crc32 => "consistent_random",
                },
            )
            .set("queue.buffering.max.messages", self.spool_messages_max.to_string())
            .set("queue.buffering.max.kbytes", self.spool_kbytes_max.to_string())
            .set("linger.ms", self.linger_ms.to_string())
            .set("message.timeout.ms", self.delivery_timeout_ms.to_string())
            .set("enable.idempotence", if self.acks_all { "true" } else { "false" })
            .set("acks", if self.acks_all { "all" } else { "1" });
        Ok(config)
    }
}

/// Where a message was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The partition.
    pub partition: i32,
    /// The offset in it.
    pub offset: i64,
}

/// Why a message was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The spool is full; the message was dropped.
    #[error("the spool is full")]
    Full,
    /// The message cannot be sent: too large, or to a topic that cannot be.
    #[error("{0}")]
    Refused(Arc<str>),
    /// The message was not delivered in time, or the brokers refused it.
    #[error("{0}")]
    Lost(Arc<str>),
}

impl SendError {
    /// Whether sending the same message later may succeed.
    pub fn retry_may_help(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// What a producer did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProducerStats {
    /// Messages taken into the spool.
    pub taken: u64,
    /// Messages that the brokers have acknowledged.
    pub delivered: u64,
    /// Messages that were taken and could not be delivered.
    pub lost: u64,
    /// Messages that were not taken because the spool was full.
    pub dropped: u64,
    /// Messages that were not taken because they cannot be sent.
    pub refused: u64,
    /// Errors that the client reported.
    pub client_errors: u64,
    /// Messages in the spool now.
    pub waiting: u64,
    /// Brokers to which there is a connection, as of a second ago.
    pub brokers_up: u64,
}

#[derive(Debug, Default)]
struct Counters {
    taken: AtomicU64,
    delivered: AtomicU64,
    lost: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    client_errors: AtomicU64,
    brokers_up: AtomicU64,
}

/// Who waits for a message's fate, if anybody does.
type Waiter = Option<oneshot::Sender<Result<Placed, SendError>>>;

/// What the client's callbacks write to.
struct Context {
    noise: Noise,
    counters: Arc<Counters>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(&self.noise, level, facility, message);
    }

    fn error(&self, error: LibraryError, reason: &str) {
        self.counters.client_errors.fetch_add(1, Relaxed);
        self.noise.say(Level::Error, "client", format_args!("{error}: {reason}"));
    }

    fn stats(&self, statistics: Statistics) {
        let up = statistics.brokers.values().filter(|b| b.nodeid >= 0 && b.state == "UP").count();
        self.counters.brokers_up.store(up as u64, Relaxed);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<Waiter>;

    fn delivery(&self, result: &DeliveryResult<'_>, waiter: Box<Waiter>) {
        let result = match result {
            Ok(message) => {
                self.counters.delivered.fetch_add(1, Relaxed);
                Ok(Placed { partition: message.partition(), offset: message.offset() })
            }
            Err((error, message)) => {
                self.counters.lost.fetch_add(1, Relaxed);
                let topic = message.topic();
                self.noise.say(
                    Level::Error,
                    "lost",
                    format_args!("a message for topic {topic} is lost: {error}"),
                );
                let text: Arc<str> = error.to_string().into();
                Err(match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessage) => {
                        SendError::Refused(text)
                    }
                    _ => SendError::Lost(text),
                })
            }
        };
        if let Some(waiter) = *waiter {
            // Nobody need wait any more.
            let _ = waiter.send(result);
        }
    }
}

/// Sends messages. Cheap to clone; clones share one spool. The last one to go loses what has not been delivered: call
/// [`Producer::flush`] before.
#[derive(Clone)]
pub struct Producer {
    client: Arc<ThreadedProducer<Context>>,
    counters: Arc<Counters>,
}

impl Producer {
    /// Makes a producer. Brokers that are away are waited for while the spool lasts.
    ///
    /// # Errors
    /// When an option is wrong.
    pub fn open(options: &ProducerOptions, log: ErrorLog) -> Result<Self, KafkaError> {
        let counters = Arc::new(Counters::default());
        let context = Context { noise: Noise::new(log), counters: Arc::clone(&counters) };
        let client =
            options.client_config()?.create_with_context(context).map_err(|e| client::refused(&e))?;
        Ok(Self { client: Arc::new(client), counters })
    }

    /// Takes a message into the spool and forgets it; it is counted as delivered or lost later. Does not wait.
    ///
    /// # Errors
    /// When the spool is full or the message cannot be sent; it is counted then.
    pub fn post(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<(), SendError> {
        self.put(topic, partition, key, value, None)
    }

    /// Takes a message into the spool. Does not wait; what is returned does, and may be dropped without harm to the message.
    ///
    /// # Errors
    /// When the spool is full or the message cannot be sent; it is counted then.
    pub fn send(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: &[u8],
    ) -> Result<Delivery, SendError> {
        let (sender, receiver) = oneshot::channel();
        self.put(topic, partition, key, value, Some(sender))?;
        Ok(Delivery(receiver))
    }

    fn put(
        &self,
        topic: &str,
        partition: Option<i32>,
        key: Option<&[u8]>,
        value: &[u8],
        waiter: Waiter,
    ) -> Result<(), SendError> {
        let mut record = BaseRecord::with_opaque_to(topic, Box::new(waiter)).payload(value);
        record.key = key;
        record.partition = partition;
        let counters = &self.counters;
        match self.client.send(record) {
            Ok(()) => {
                counters.taken.fetch_add(1, Relaxed);
                Ok(())
            }
            Err((LibraryError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                counters.dropped.fetch_add(1, Relaxed);
                self.client.context().noise.say(
                    Level::Error,
                    "full",
                    format_args!("the spool is full: a message for topic {topic} is dropped"),
                );
                Err(SendError::Full)
            }
            Err((error, _)) => {
                counters.refused.fetch_add(1, Relaxed);
                Err(SendError::Refused(error.to_string().into()))
            }
        }
    }

    /// Waits until what is in the spool is delivered or lost, at most `timeout_ms`.
    ///
    /// # Errors
    /// When messages are left.
    pub async fn flush(&self, timeout_ms: u64) -> Result<(), KafkaError> {
        let client = Arc::clone(&self.client);
        let flush = move || {
            let result = client.flush(Duration::from_millis(timeout_ms));
            (result, client.in_flight_count())
        };
        match tokio::task::spawn_blocking(flush).await {
            Ok((Ok(()), _)) => Ok(()),
            Ok((Err(_), left)) => Err(KafkaError::Unflushed(usize::try_from(left).unwrap_or(0))),
            // The runtime is ending.
            Err(_) => Err(KafkaError::Unflushed(usize::try_from(self.client.in_flight_count()).unwrap_or(0))),
        }
    }

    /// What happened up to now.
    pub fn stats(&self) -> ProducerStats {
        let counters = &self.counters;
        ProducerStats {
            taken: counters.taken.load(Relaxed),
            delivered: counters.delivered.load(Relaxed),
            lost: counters.lost.load(Relaxed),
            dropped: counters.dropped.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            client_errors: counters.client_errors.load(Relaxed),
            waiting: u64::try_from(self.client.in_flight_count()).unwrap_or(0),
            brokers_up: counters.brokers_up.load(Relaxed),
        }
    }
}

/// The fate of one message.
#[derive(Debug)]
pub struct Delivery(oneshot::Receiver<Result<Placed, SendError>>);

impl Future for Delivery {
    type Output = Result<Placed, SendError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(task)
            .map(|result| result.unwrap_or_else(|_| Err(SendError::Lost("the producer is gone".into()))))
    }
}
