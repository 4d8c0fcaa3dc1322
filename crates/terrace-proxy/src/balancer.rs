//! The hook that chooses peers in place of an upstream's own method (`balancer_by_lua*`).

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use terrace_http::{Request, Step};
use terrace_net::Address;

/// Chooses the peer of each attempt at an upstream. Set with [`crate::set_balancer`] while the block is read.
pub trait Balancer: Send + Sync {
    /// Called before each attempt. It may set the peer and other properties of `attempt`; without a peer, the
    /// upstream's own method chooses one. The error is a status to end the request with.
    fn pick(&self, r: &Rc<Request>, attempt: &Rc<Attempt>) -> Step<Result<(), u16>>;
}

/// What a balancer knows of an attempt and may change in it. One value serves all attempts of a request; timeouts
/// stay set from one to the next.
#[derive(Debug, Default)]
pub struct Attempt {
    pub(crate) number: Cell<u32>,
    pub(crate) peer: RefCell<Option<Address>>,
    pub(crate) connect_timeout_ms: Cell<Option<u64>>,
    pub(crate) send_timeout_ms: Cell<Option<u64>>,
    pub(crate) read_timeout_ms: Cell<Option<u64>>,
    pub(crate) more_tries: Cell<u32>,
    /// How many more there may be (`proxy_next_upstream_tries`).
    pub(crate) more_tries_max: Cell<u32>,
    pub(crate) recreates: Cell<bool>,
    pub(crate) last_failure: Cell<Option<LastFailure>>,
}

/// How the attempt before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastFailure {
    /// What kind it was.
    pub kind: FailureKind,
    /// The status: of the response, or what stands for the failure (502, 504).
    pub status: u16,
}

/// What kind a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The peer answered, with a status that means to try the next one; it is not at fault.
    Next,
    /// The peer failed.
    Failed,
}

impl Attempt {
    /// Its number, from 0.
    pub fn number(&self) -> u32 {
        self.number.get()
    }

    /// Connects to this address.
    pub fn set_peer(&self, address: Address) {
        self.peer.replace(Some(address));
    }

    /// Sets timeouts, ms; `None` leaves one as it is.
    pub fn set_timeouts(&self, connect_ms: Option<u64>, send_ms: Option<u64>, read_ms: Option<u64>) {
        let slots = [
            (&self.connect_timeout_ms, connect_ms),
            (&self.send_timeout_ms, send_ms),
            (&self.read_timeout_ms, read_ms),
        ];
        for (slot, value) in slots {
            if value.is_some() {
                slot.set(value);
            }
        }
    }

    /// Allows this many more attempts after the present one, on top of those the upstream allows. False when the limit
    /// on attempts allows fewer, which then are what counts.
    pub fn set_more_tries(&self, count: u32) -> bool {
        let max = self.more_tries_max.get();
        self.more_tries.set(count.min(max));
        count <= max
    }

    /// Has the request that is sent upstream made anew, from the fields and the body as they are now.
    pub fn recreate_request(&self) {
        self.recreates.set(true);
    }

    /// How the attempt before ended; `None` in the first.
    pub fn last_failure(&self) -> Option<LastFailure> {
        self.last_failure.get()
    }
}
