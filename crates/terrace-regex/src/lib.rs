//! PCRE2 with its JIT behind a small safe interface.
//!
//! nginx's locations, rewrites, maps and server names, and Lua's `ngx.re.*`, all speak PCRE. This crate owns every call
//! into the C library: a [`Regex`] is compiled once (JIT tried, interpreter as the fallback), may be shared between
//! threads, and is run on scratch memory that each thread keeps, so that a match allocates nothing.
//!
//! Invariants owned here: no input, pattern or subject, can make the library read outside the subject (the UTF modes
//! which would allow that are mapped to checked ones), and every match is bounded by [`Limits`].

mod captures;
mod error;
mod options;
mod regex;
mod scratch;

#[cfg(test)]
mod tests;

pub use captures::Captures;
pub use error::{MatchError, RegexError};
pub use options::{Limits, Options, UnknownFlag};
pub use regex::Regex;
pub use scratch::{JIT_STACK_BYTES_DEFAULT, JIT_STACK_BYTES_MAX, JIT_STACK_BYTES_MIN, set_jit_stack_bytes};
