//! TLS with its counterparts: curl, OpenSSL and nginx.

mod server;
mod upstream;
