//! One worker's state of an upstream: its peers, and the connections kept to them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use terrace_base::clock;
use terrace_net::{Stream, Timer};
use terrace_upstream::{Address, Group, KeepaliveConfig, KeepalivePool, Outcome, PeerIndex, Pooled};
use tokio::sync::Notify;

use crate::balancer::Keepalive;
use crate::route::Route;
use crate::upstream::Upstream;

/// A connection to a peer, with the timer that guards its reads and writes.
pub(crate) struct Conn {
    pub stream: Stream,
    pub timer: Timer,
    /// What is special about it.
    pub route: Option<Rc<Route>>,
}

/// The peers of an upstream in one worker.
pub(crate) struct Peers {
    /// What they are peers of.
    pub upstream: Arc<Upstream>,
    group: RefCell<Group>,
    /// What `keepalive` keeps.
    pool: RefCell<KeepalivePool<Conn>>,
    /// What a balancer keeps.
    balanced: RefCell<KeepalivePool<Conn>>,
    /// When idle connections are looked over next; [`u64::MAX`] while nobody does.
    sweeps_at_ms: Cell<u64>,
    sooner: Notify,
}

impl Peers {
    /// `None` only for peers that make no group, which is checked at load time.
    pub(crate) fn new(upstream: &Arc<Upstream>) -> Option<Rc<Peers>> {
        Some(Rc::new(Peers {
            group: RefCell::new(Group::new(upstream.method, upstream.peers.clone()).ok()?),
            pool: RefCell::new(KeepalivePool::new(upstream.keepalive)),
            balanced: RefCell::new(KeepalivePool::new(KeepaliveConfig::new(upstream.balanced_idle_max))),
            upstream: Arc::clone(upstream),
            sweeps_at_ms: Cell::new(u64::MAX),
            sooner: Notify::new(),
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

    /// An idle connection that is neither closed nor has unexpected bytes, and goes the way that is wanted: one that a
    /// balancer kept where it asks to, else one that `keepalive` kept.
    pub(crate) fn take(
        &self,
        address: &Address,
        wanted: Option<&Rc<Route>>,
        balanced: Option<Keepalive>,
    ) -> Option<Pooled<Conn>> {
        let pool = match balanced {
            Some(_) => &self.balanced,
            None if self.keeps() => &self.pool,
            None => return None,
        };
        loop {
            let fits = |c: &Conn| Route::fits(c.route.as_ref(), wanted);
            let pooled = pool.borrow_mut().take(address, clock::monotonic_ms(), fits)?;
            // Clears the readiness left by the last response, so that the next read waits at once.
            let mut byte = [0];
            let read = pooled.connection.stream.try_read(&mut byte);
            if matches!(&read, Err(e) if e.kind() == std::io::ErrorKind::WouldBlock) {
                return Some(pooled);
            }
        }
    }

    /// Keeps a connection for the next request, if the balancer or the pool wants it.
    pub(crate) fn put(self: &Rc<Self>, address: Address, pooled: Pooled<Conn>, balanced: Option<Keepalive>) {
        let (pool, config) = match balanced {
            Some(keep) => (&self.balanced, keep.config(self.upstream.balanced_idle_max)),
            None if self.keeps() => (&self.pool, self.upstream.keepalive),
            None => return,
        };
        let now_ms = clock::monotonic_ms();
        drop(pool.borrow_mut().put_within(config, address, pooled, now_ms));
        self.sweep_by(now_ms.saturating_add(config.timeout_ms));
    }

    /// Has idle connections looked over no later than then.
    fn sweep_by(self: &Rc<Self>, at_ms: u64) {
        let planned_ms = self.sweeps_at_ms.get();
        if at_ms >= planned_ms {
            return;
        }
        self.sweeps_at_ms.set(at_ms);
        if planned_ms == u64::MAX {
            terrace_event::spawn(sweep(Rc::clone(self)));
        } else {
            self.sooner.notify_one();
        }
    }

    /// Closes the connections that were idle for too long; when the next one will have been.
    fn expire(&self) -> Option<u64> {
        let pools = [&self.pool, &self.balanced];
        let next = pools.into_iter().filter_map(|pool| {
            let mut pool = pool.borrow_mut();
            pool.expire(clock::monotonic_ms());
            pool.next_expiry_ms()
        });
        next.min()
    }
}

/// Peers compare against time 0 as "never", so the monotonic clock is moved well past it.
pub(crate) const EPOCH_MS: u64 = 1 << 32;

/// Closes connections that were idle for too long, until none is left that ever will have been.
async fn sweep(peers: Rc<Peers>) {
    loop {
        clock::update();
        let Some(next_ms) = peers.expire() else { break };
        peers.sweeps_at_ms.set(next_ms);
        let wait_ms = next_ms.saturating_sub(clock::monotonic_ms()).max(1);
        // Whichever of the two ends it, the next round looks at the clock.
        let _ = terrace_event::timeout(Duration::from_millis(wait_ms), peers.sooner.notified()).await;
    }
    peers.sweeps_at_ms.set(u64::MAX);
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
