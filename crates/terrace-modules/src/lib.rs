//! One file a module: directives, merge, handler.
//!
//! [`ALL`] lists the modules in the order in which their handlers run within a phase and their filters within a
//! response, which is nginx's.
#![forbid(unsafe_code)]

pub mod access;
pub mod charset;
pub mod echo;
mod file_test;
pub mod geo;
pub mod headers;
pub mod headers_more;
pub mod index;
pub mod known;
pub mod log;
pub mod map;
pub mod not_modified;
pub mod range;
pub mod realip;
pub mod rewrite;
pub mod set_misc;
pub mod static_files;
#[cfg(test)]
mod static_files_tests;
#[cfg(test)]
mod testing;
pub mod tiered_cache;
pub mod try_files;

use terrace_http::Module;

/// The modules of this crate, in their order.
pub static ALL: &[&dyn Module] = &[
    &geo::Geo,
    &map::Map,
    &realip::RealIp,
    &not_modified::NotModified,
    &range::RangeBody,
    &rewrite::Rewrite,
    &set_misc::SetMisc,
    &headers_more::HeadersMore,
    &access::Access,
    &try_files::TryFiles,
    &echo::Echo,
    &tiered_cache::TieredCache,
    &index::Index,
    &static_files::StaticFiles,
];

/// The modules that come after those of scripts and proxies: their header filters see what those have set, and the
/// access log is written last.
pub static LATE: &[&dyn Module] = &[&echo::EchoBody, &headers::Headers, &charset::Charset, &range::Range, &log::AccessLog];
