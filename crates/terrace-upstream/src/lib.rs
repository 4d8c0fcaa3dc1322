//! Peers, balancers and keep-alive pools, sans-io.
#![forbid(unsafe_code)]
