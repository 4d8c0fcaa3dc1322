//! The Lua modules: the directives with code, and their settings.

mod balancer;
mod code;
mod handshake;
mod proxy_ssl;
mod settings;
mod tls;

use terrace_http::Module;

/// The Lua module.
pub static ALL: &[&dyn Module] = &[&code::Lua];
