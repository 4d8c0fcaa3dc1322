//! The consumer and the producer against real brokers.

mod commits;
mod faults;
mod groups;
mod hub;
mod producer;
