//! The SQL source against real servers.

mod mysql;
mod postgres;
mod support;
