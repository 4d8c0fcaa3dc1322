//! Kafka: changes that come in as messages, and log lines that go out as messages.
//!
//! - [`Consumer`]: hears of changes and has their effect done; an offset is committed only after its effect. Messages
//!   become effects by a [`mapping`].
//! - [`Producer`]: sends without waiting, out of a spool that is bounded in messages and bytes.
//!
//! The client underneath is librdkafka, built in; this crate decides what is done with a message, when its offset is
//! stored, and what a fault costs. Effects are idempotent and versioned (see `terrace_cache::L2`), so at-least-once
//! delivery in any order is enough: redelivery, reordering and rebalancing lose nothing.
#![forbid(unsafe_code)]

mod client;
mod consumer;
pub mod mapping;
mod noise;
mod producer;

pub use client::KafkaError;
pub use consumer::{Consumer, ConsumerOptions, ConsumerStats, Effect, LANE_BYTES_MAX, Role};
pub use mapping::{Invalidation, Mapping};
pub use producer::{Delivery, Partitioner, Placed, Producer, ProducerOptions, ProducerStats, SendError};
