//! Requests, phases, variables, locations, filters and the [`Module`] trait.
//!
//! This crate runs a request through nginx's phases on one worker thread and knows no directive beyond those of
//! nginx's core HTTP module, which carry the mechanism itself (`http`, `server`, `location`, `listen` …). What
//! a location does is decided by the handlers and filters that modules add to it at load time. It knows no Lua.
#![forbid(unsafe_code)]

pub mod body;
pub mod conf;
pub mod connection;
pub mod core;
pub mod engine;
pub mod generation;
mod head_writer;
pub mod headers_in;
pub mod headers_out;
pub mod intern;
pub mod location_tree;
pub mod log;
pub mod module;
pub mod output;
pub mod pace;
pub mod persistent;
pub mod phase;
pub mod request;
pub mod server_names;
mod size;
pub mod special;
pub mod status;
pub mod subrequest;
pub mod tls;
pub mod typemap;
pub mod value;
pub mod variables;
pub mod vars;
pub mod worker;

pub use conf::{Builder, LocationBuilder, Merge, MergeContext};
pub use generation::{Generation, Location, Server};
pub use module::Module;
pub use phase::{BodyFilter, Chunk, Handler, HeaderFilter, LocalFuture, Outcome, Phase, Step};
pub use request::Request;
pub use size::Size;
pub use typemap::TypeMap;
pub use value::Value;
pub use worker::Worker;
