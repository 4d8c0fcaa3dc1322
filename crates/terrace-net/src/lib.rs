//! Listeners, streams, TLS, connectors and timers: the only crate that opens sockets.
//!
//! A [`Stream`] is used through `&self`, so that a request's handlers, its output and a background flush can
//! share it within one worker. No type here is shared between workers except a [`Listener`]'s socket.
#![forbid(unsafe_code)]

mod address;
mod connect;
mod datagram;
pub mod dns;
mod listen;
mod stream;
mod timer;
pub mod tls;

pub use address::{Address, split_host};
pub use connect::{ConnectError, connect, connect_from, literal};
pub use datagram::Datagram;
pub use listen::{Acceptor, ListenOptions, Listener};
pub use stream::{Detached, Stream};
pub use timer::Timer;
