//! One worker's state of an upstream: its peers, and the connections kept to them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use terrace_base::clock;
use terrace_net::{Stream, Timer};
use terrace_upstream::{Address, Group, KeepalivePool, Outcome, PeerIndex, Pooled};

use crate::proxy::tls::Secured;
use crate::upstream::Upstream;

/// A connection to a peer, with the timer that guards its reads and writes.
pub(crate) struct Conn {
    pub stream: Stream,
    pub timer: Timer,
    /// Whom TLS is spoken to, if it is.
    pub secured: Option<Rc<Secured>>,
}

/// The peers of an upstream in one worker.
pub(crate) struct Peers {
    /// What they are peers of.
    pub upstream: Arc<Upstream>,
    group: RefCell<Group>,
    pool: RefCell<KeepalivePool<Conn>>,
    sweeping: Cell<bool>,
}

impl Peers {
    /// `None` only for peers that make no group, which is checked at load time.
    pub(crate) fn new(upstream: &Arc<Upstream>) -> Option<Rc<Peers>> {
        Some(Rc::new(Peers {
            group: RefCell::new(Group::new(upstream.method, upstream.peers.clone()).ok()?),
            pool: RefCell::new(KeepalivePool::new(upstream.keepalive)),
            upstream: Arc::clone(upstream),
            sweeping: Cell::new(false),
        }))
    }

    fn keeps(&self) -> bool {
        self.upstream.keepalive.idle_max > 0
    }

    /// The group, for choosing and reporting.
    pub(crate) fn with_group<R>(&self, f: impl FnOnce(&mut Group) -> R) -> R {
        f(&mut self.group.borrow_mut())
    }

    /// Records how an attempt ended.
    pub(crate) fn report(&self, index: PeerIndex, outcome: Outcome) -> bool {
        self.group.borrow_mut().report(index, outcome, clock::monotonic_ms() + EPOCH_MS)
    }

    /// An idle connection that is neither closed nor has unexpected bytes, and speaks to whom is wanted.
    pub(crate) fn take(&self, address: &Address, wanted: Option<&Rc<Secured>>) -> Option<Pooled<Conn>> {
        if !self.keeps() {
            return None;
        }
        loop {
            let fits = |c: &Conn| Secured::fits(c.secured.as_ref(), wanted);
            let pooled = self.pool.borrow_mut().take(address, clock::monotonic_ms(), fits)?;
            // Clears the readiness left by the last response, so that the next read waits at once.
            let mut byte = [0];
            let read = pooled.connection.stream.try_read(&mut byte);
            if matches!(&read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock) {
                return Some(pooled);
            }
        }
    }

    /// Keeps a connection for the next request, if the pool wants it.
    pub(crate) fn put(self: &Rc<Self>, address: Address, pooled: Pooled<Conn>) {
        if !self.keeps() {
            return;
        }
        drop(self.pool.borrow_mut().put(address, pooled, clock::monotonic_ms()));
        if !self.sweeping.replace(true) {
            tokio::task::spawn_local(sweep(Rc::clone(self)));
        }
    }
}

/// Peers compare against time 0 as "never", so the monotonic clock is moved well past it.
pub(crate) const EPOCH_MS: u64 = 1 << 32;

/// Closes connections that were idle for too long, until none is left.
async fn sweep(peers: Rc<Peers>) {
    loop {
        clock::update();
        peers.pool.borrow_mut().expire(clock::monotonic_ms());
        let Some(next) = peers.pool.borrow().next_expiry_ms() else { break };
        let wait_ms = next.saturating_sub(clock::monotonic_ms()).max(1);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    }
    peers.sweeping.set(false);
}

/// A peer that was chosen; gives its claim back when dropped.
pub(crate) struct Claim {
    pub peers: Rc<Peers>,
    pub index: PeerIndex,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.peers.group.borrow_mut().release(self.index);
    }
}
