//! One file a module: directives, merge, handler.
//!
//! [`ALL`] lists the modules in the order in which their handlers run within a phase and their filters within a
//! response, which is nginx's.
#![forbid(unsafe_code)]

pub mod charset;
mod file_test;
pub mod headers;
pub mod log;
pub mod not_modified;
pub mod range;
pub mod realip;
pub mod rewrite;
pub mod static_files;
pub mod tiered_cache;

use terrace_http::Module;

/// The modules of this crate, in their order.
pub static ALL: &[&dyn Module] = &[
    &realip::RealIp,
    &not_modified::NotModified,
    &range::RangeBody,
    &rewrite::Rewrite,
    &tiered_cache::TieredCache,
    &static_files::StaticFiles,
];

/// The modules that come after those of scripts and proxies: their header filters see what those have set, and the
/// access log is written last.
pub static LATE: &[&dyn Module] = &[&headers::Headers, &charset::Charset, &range::Range, &log::AccessLog];
