//! TLS with its counterparts: curl, OpenSSL and nginx.

mod lua;
mod server;
mod upstream;
