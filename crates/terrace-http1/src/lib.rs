//! A sans-io HTTP/1 codec for both the server and the client side.
#![forbid(unsafe_code)]
