//! The end-to-end tests, one binary. Each file is one side of the server as its users see it.
#![forbid(unsafe_code)]

mod balancer;
mod cases;
mod command_line;
mod examples;
mod fleet;
mod generations;
mod limit_rate;
mod lua_connection;
mod lua_errors;
mod lua_packages;
mod lua_scripts;
mod lua_stores;
mod malformed;
mod memc;
mod pipelining;
mod privileged_agent;
mod proxying;
mod reload;
mod resolver;
mod shop;
mod stack;
mod timeouts;
mod tls;
