//! Upstreams and proxy_pass.
#![forbid(unsafe_code)]
