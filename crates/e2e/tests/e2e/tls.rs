//! TLS with its counterparts: curl, OpenSSL and nginx.

mod handshake;
mod keys;
mod lua;
mod ocsp;
mod server;
mod sessions;
mod upstream;
mod upstream_lua;
