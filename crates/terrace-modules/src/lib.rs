//! One file a module: directives, merge, handler.
//!
//! [`ALL`] lists the modules in the order in which their handlers run within a phase and their filters within a
//! response, which is nginx's.
#![forbid(unsafe_code)]

pub mod access;
pub mod auth_request;
pub mod charset;
pub mod dav;
pub mod echo;
pub mod empty_gif;
mod file_test;
pub mod geo;
pub mod gzip;
pub mod headers;
pub mod headers_more;
pub mod index;
pub mod known;
pub mod limit_except;
pub mod limit_rate;
pub mod log;
pub mod map;
pub mod not_modified;
pub mod range;
pub mod realip;
pub mod referer;
pub mod rewrite;
pub mod set_misc;
pub mod ssl;
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
    &ssl::Ssl,
    &realip::RealIp,
    &referer::Referer,
    &not_modified::NotModified,
    &range::RangeBody,
    &limit_except::LimitExcept,
    &limit_rate::LimitRate,
    &rewrite::Rewrite,
    &set_misc::SetMisc,
    &headers_more::HeadersMore,
    &access::Access,
    &auth_request::AuthRequest,
    &try_files::TryFiles,
    &echo::Echo,
    &empty_gif::EmptyGif,
    &tiered_cache::TieredCache,
    &dav::Dav,
    &index::Index,
    &gzip::GzipStatic,
    &static_files::StaticFiles,
];

/// The modules that come after those of scripts and proxies: their header filters see what those have set, and the
/// access log is written last.
pub static LATE: &[&dyn Module] = &[
    &echo::EchoBody,
    &headers::Headers,
    &gzip::Gunzip,
    &charset::Charset,
    &gzip::Gzip,
    &range::Range,
    &log::AccessLog,
];
