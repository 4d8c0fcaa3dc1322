//! The Redis store against real servers: single, under sentinels, and a cluster. Every server is a process of the test's own, on a
//! port from the system, with its files in a directory that goes with it.

mod server;
mod single;
mod support;
