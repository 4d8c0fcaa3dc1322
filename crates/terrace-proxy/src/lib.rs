//! Upstreams, `proxy_pass` and `memc_pass`.
//!
//! [`upstream`] owns groups of servers, the choice of one and the connections kept to them; [`proxy`] sends a request
//! to one of them and brings its response back, [`memc`] does so with memcached. Responses are streamed: what is held of a
//! body at any time is bounded by `proxy_buffers`.
#![forbid(unsafe_code)]

pub mod balancer;
mod bind;
pub mod groups;
pub mod known;
mod local;
pub mod memc;
mod peers;
pub mod proxy;
mod resolve;
mod route;
#[cfg(test)]
mod tests;
pub mod upstream;
mod url;
mod variables;

pub use balancer::{Attempt, Balancer, FailureKind, LastFailure};
pub use bind::parse_local;
pub use known::KNOWN;
pub use proxy::{UpstreamHandshake, UpstreamHook, UpstreamHooks};
pub use upstream::{set_balancer, set_balancer_keepalive};

use terrace_http::Module;

/// The modules of this crate, in their order.
pub static ALL: &[&dyn Module] =
    &[&upstream::UpstreamModule, &proxy::Proxy, &proxy::ProxySsl, &memc::Memc, &memc::Memcached];
