//! The hook that chooses peers in place of an upstream's own method (`balancer_by_lua*`).

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use terrace_http::{Request, Step};
use terrace_net::Address;
use terrace_upstream::KeepaliveConfig;

/// Chooses the peer of each attempt at an upstream. Set with [`crate::set_balancer`] while the block is read.
pub trait Balancer: Send + Sync {
    /// Called before each attempt. It may set the peer and other properties of `attempt`; without a peer, the
    /// upstream's own method chooses one. The error is a status to end the request with.
    fn pick(&self, r: &Rc<Request>, attempt: &Rc<Attempt>) -> Step<Result<(), u16>>;
}

/// How many attempts a balancer may have a request take, where no directive says.
const ATTEMPTS_MAX: usize = 1000;

/// What a balancer knows of an attempt and may change in it. One value serves all attempts of a request; timeouts, TLS
/// and the local address stay set from one to the next.
#[derive(Debug, Default)]
pub struct Attempt {
    number: Cell<u32>,
    peer: RefCell<Option<Address>>,
    /// The name that TLS is spoken to by, and that parts kept connections.
    pub(crate) host: RefCell<Option<Rc<str>>>,
    pub(crate) keepalive: Cell<Option<Keepalive>>,
    /// Whether TLS is spoken, where that is not for the URL to say.
    pub(crate) tls: Cell<Option<bool>>,
    pub(crate) local: Cell<Option<SocketAddr>>,
    pub(crate) connect_timeout_ms: Cell<Option<u64>>,
    pub(crate) send_timeout_ms: Cell<Option<u64>>,
    pub(crate) read_timeout_ms: Cell<Option<u64>>,
    more_tries: Cell<u32>,
    /// How many more there may be (`proxy_next_upstream_tries`).
    more_tries_max: Cell<u32>,
    recreates: Cell<bool>,
    last_failure: Cell<Option<LastFailure>>,
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

/// How long the connection of an attempt is kept after its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keepalive {
    /// 0 is no limit.
    idle_timeout_ms: u64,
    /// 0 is no limit.
    requests_max: u32,
}

impl Keepalive {
    /// As the limits of one connection in a pool of `idle_max`.
    pub(crate) fn config(self, idle_max: usize) -> KeepaliveConfig {
        KeepaliveConfig {
            idle_max,
            timeout_ms: if self.idle_timeout_ms == 0 { u64::MAX } else { self.idle_timeout_ms },
            requests_max: if self.requests_max == 0 { u32::MAX } else { self.requests_max },
            time_ms: u64::MAX,
        }
    }
}

impl Attempt {
    /// Its number, from 0.
    pub fn number(&self) -> u32 {
        self.number.get()
    }

    /// Connects to this address, by the name `host` where TLS is spoken.
    pub fn set_peer(&self, address: Address, host: Option<&str>) {
        self.peer.replace(Some(address));
        self.host.replace(host.map(Rc::from));
    }

    /// Keeps the connection after the request for the next one to the same peer, for `idle_timeout_ms` and up to so many
    /// requests; 0 is no limit. False when no peer has been set for this attempt.
    pub fn set_keepalive(&self, idle_timeout_ms: u64, requests_max: u32) -> bool {
        let has_peer = self.peer.borrow().is_some();
        if has_peer {
            self.keepalive.set(Some(Keepalive { idle_timeout_ms, requests_max }));
        }
        has_peer
    }

    /// Speaks TLS to the peer, or does not.
    pub fn set_tls(&self, on: bool) {
        self.tls.set(Some(on));
    }

    /// Connects from this address; its port may be 0.
    pub fn bind(&self, local: SocketAddr) {
        self.local.set(Some(local));
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

    /// Asks `balancer` about the next attempt, where `tries` are left and a directive allows `tries_max` (0: does not
    /// say). The answer is the peer, if it chose one, and the tries that are left now. The error is a status.
    pub(crate) async fn ask(
        self: &Rc<Self>,
        balancer: &dyn Balancer,
        r: &Rc<Request>,
        tries: usize,
        tries_max: usize,
    ) -> Result<(Option<Address>, usize), u16> {
        self.peer.take();
        self.host.take();
        self.keepalive.set(None);
        self.more_tries.set(0);
        let max = if tries_max == 0 { ATTEMPTS_MAX } else { tries_max };
        let more_max = max.saturating_sub(self.number.get() as usize).saturating_sub(tries);
        self.more_tries_max.set(u32::try_from(more_max).unwrap_or(u32::MAX));
        balancer.pick(r, self).get().await?;
        self.number.set(self.number.get().saturating_add(1));
        Ok((self.peer.take(), tries.saturating_add(self.more_tries.get() as usize)))
    }

    /// Whether the request is to be made anew; asked once.
    pub(crate) fn takes_recreation(&self) -> bool {
        self.recreates.replace(false)
    }

    /// The attempt failed.
    pub(crate) fn failed(&self, spares_peer: bool, status: u16) {
        let kind = if spares_peer { FailureKind::Next } else { FailureKind::Failed };
        self.last_failure.set(Some(LastFailure { kind, status }));
    }
}
