//! Upstream groups: peers, balancing methods and keep-alive pools, with nginx's choices.
//!
//! A product that is hashed to a server must land on the same server as with nginx, so the arithmetic of each
//! method (weights, hash constants, order of tries) is nginx's, version 1.22 and later. The state of a group
//! belongs to one worker, as in nginx without `zone`: no lock, plain `&mut`.
//!
//! The crate holds no socket, clock or random source: `now_ms` (milliseconds, any epoch well past 0) and random
//! bits are arguments.
//!
//! Invariant: a peer's `conns` is the number of selections of it that were not released.
#![forbid(unsafe_code)]

mod group;
mod keepalive;
mod ketama;
mod select;
#[cfg(test)]
mod tests;

pub use group::{Address, Group, GroupError, Method, Outcome, Peer, PeerIndex, PeerSpec};
pub use keepalive::{KeepaliveConfig, KeepalivePool, Pooled};
pub use ketama::POINTS_MAX;
pub use select::{Input, Selection};
