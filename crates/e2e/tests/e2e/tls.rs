//! TLS with its counterparts: curl, OpenSSL and nginx.

mod handshake;
mod lua;
mod server;
mod upstream;
