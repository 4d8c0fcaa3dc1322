//! The Redis store against real servers: single, under sentinels, and a cluster.

mod cluster;
mod sentinel;
mod single;
mod support;
