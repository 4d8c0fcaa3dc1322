//! What consumer and producer have in common: the client's properties, its log, its errors.

use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;
use terrace_base::log::Level;

use crate::noise::Noise;

/// Why a client cannot be made, or cannot end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// An option is wrong: a configuration to mend.
    #[error("{0}")]
    Options(Arc<str>),
    /// The time was over before all was delivered.
    #[error("{0} messages were not delivered in time")]
    Unflushed(usize),
}

/// Properties of the client that what this crate promises rests on; no configuration may set them.
const RESERVED: [&str; 9] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "client.id",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "enable.partition.eof",
    "partition.assignment.strategy",
];

/// The properties that both kinds of client start from, and those that the configuration adds.
pub(crate) fn config(
    brokers: &[String],
    client_id: &str,
    properties: &[(String, String)],
) -> Result<ClientConfig, KafkaError> {
    if brokers.is_empty() {
        return Err(KafkaError::Options("no broker is named".into()));
    }
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers.join(","))
        .set("client.id", client_id)
        .set("reconnect.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "2000")
        .set("topic.metadata.refresh.interval.ms", "10000")
        .set("statistics.interval.ms", "1000")
        .set("log.connection.close", "false");
    config.set_log_level(RDKafkaLogLevel::Warning);
    for (name, value) in properties {
        if RESERVED.contains(&name.as_str()) {
            return Err(KafkaError::Options(format!("the property \"{name}\" is set by other means").into()));
        }
        config.set(name, value);
    }
    Ok(config)
}

/// The error of a client that could not be made.
pub(crate) fn refused(error: &rdkafka::error::KafkaError) -> KafkaError {
    KafkaError::Options(error.to_string().into())
}

/// Writes a line of the client library to the log.
pub(crate) fn log(noise: &Noise, level: RDKafkaLogLevel, facility: &str, message: &str) {
    // Nothing the library meets is graver to the process than a failed part.
    let level = match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => Level::Crit,
        RDKafkaLogLevel::Error => Level::Error,
        RDKafkaLogLevel::Warning => Level::Warn,
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => Level::Info,
        RDKafkaLogLevel::Debug => Level::Debug,
    };
    noise.say(level, "library", format_args!("{facility}: {message}"));
}
