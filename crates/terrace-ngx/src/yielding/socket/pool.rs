//! Pools of idle connections, one per key and worker. A pool with a backlog also bounds how many connections there
//! are and queues those who want more.
//!
//! Invariant: a pool's `connections` counts its [`Lease`]s, of idle connections and of those in use; a pool that has
//! neither leases nor waiters is gone.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use rustc_hash::FxHashMap;
use terrace_base::clock;

use super::conn::Conn;

/// The longest between two looks at idle connections.
const SWEEP_MS: u64 = 1000;

/// All pools of a worker.
#[derive(Default)]
pub struct Pools {
    by_key: RefCell<FxHashMap<Box<[u8]>, Rc<Pool>>>,
    is_swept: Cell<bool>,
}

/// The connections under one key.
pub struct Pool {
    key: Box<[u8]>,
    /// Idle connections at most; with a backlog, connections at most.
    size: usize,
    /// How many may wait for a connection; without one there is no limit to connections.
    backlog: Option<usize>,
    /// The last used first.
    idle: RefCell<VecDeque<Idle>>,
    connections: Cell<usize>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
    pools: Weak<Pools>,
}

struct Idle {
    conn: Rc<Conn>,
    expires_ms: u64,
}

/// One connection's place in its pool.
pub struct Lease(Weak<Pool>);

impl Lease {
    /// The pool.
    pub fn pool(&self) -> Option<Rc<Pool>> {
        self.0.upgrade()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(pool) = self.pool() else { return };
        pool.connections.set(pool.connections.get().saturating_sub(1));
        pool.wake_one();
        pool.leave_if_unused();
    }
}

/// What a pool gives to who wants a connection.
pub enum Acquired {
    /// A connection that was idle.
    Idle(Rc<Conn>),
    /// The right to open one.
    Lease(Lease),
}

struct Waiter {
    is_woken: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Pools {
    /// The pool of a key.
    pub fn find(&self, key: &[u8]) -> Option<Rc<Pool>> {
        self.by_key.borrow().get(key).map(Rc::clone)
    }

    /// The pool of a key, made with this size if there is none.
    pub fn find_or_make(self: &Rc<Self>, key: &[u8], size: usize, backlog: Option<usize>) -> Rc<Pool> {
        if let Some(pool) = self.find(key) {
            return pool;
        }
        let pool = Rc::new(Pool {
            key: key.into(),
            size,
            backlog,
            idle: RefCell::default(),
            connections: Cell::new(0),
            waiters: RefCell::default(),
            pools: Rc::downgrade(self),
        });
        self.by_key.borrow_mut().insert(key.into(), Rc::clone(&pool));
        pool
    }

    /// Looks after idle connections from time to time, while there are any.
    fn keep_swept(self: &Rc<Self>) {
        if self.is_swept.replace(true) {
            return;
        }
        let pools = Rc::downgrade(self);
        terrace_event::spawn(async move {
            loop {
                let Some(next_ms) = pools.upgrade().and_then(|p| p.sweep()) else { return };
                terrace_event::sleep(Duration::from_millis(next_ms)).await;
            }
        });
    }

    /// Closes idle connections whose time is over or that their peer closed. Answers when to look again; none when
    /// nothing is idle.
    fn sweep(&self) -> Option<u64> {
        let now = clock::monotonic_ms();
        let pools: Vec<_> = self.by_key.borrow().values().cloned().collect();
        let mut next = None;
        for pool in pools {
            let (keep, over) =
                pool.idle.take().into_iter().partition(|i| i.is_good(now) && !i.conn.has_news());
            pool.idle.replace(keep);
            drop::<VecDeque<_>>(over);
            let soonest = pool.idle.borrow().iter().map(|i| i.expires_ms - now).min();
            next = soonest.into_iter().chain(next).min();
        }
        if next.is_none() {
            self.is_swept.set(false);
        }
        next.map(|ms| ms.clamp(1, SWEEP_MS))
    }
}

impl Idle {
    fn is_good(&self, now: u64) -> bool {
        self.expires_ms > now
    }
}

impl Pool {
    /// An idle connection, or the right to open one; none when there are as many as there may be.
    pub fn acquire(self: &Rc<Self>) -> Option<Acquired> {
        if let Some(conn) = self.take_idle() {
            return Some(Acquired::Idle(conn));
        }
        let has_room = self.backlog.is_none() || self.connections.get() < self.size;
        has_room.then(|| Acquired::Lease(self.lease()))
    }

    /// Counts a connection.
    pub fn lease(self: &Rc<Self>) -> Lease {
        self.connections.set(self.connections.get() + 1);
        Lease(Rc::downgrade(self))
    }

    fn take_idle(&self) -> Option<Rc<Conn>> {
        let now = clock::monotonic_ms();
        loop {
            let idle = self.idle.borrow_mut().pop_front()?;
            // Others may have come or gone while one that is over was closed.
            if idle.is_good(now) && !idle.conn.has_news() {
                return Some(idle.conn);
            }
        }
    }

    /// Keeps an idle connection for `timeout_ms`; 0 is for ever. Where the pool is full the one that has been idle
    /// longest goes.
    pub fn put(self: &Rc<Self>, conn: Rc<Conn>, timeout_ms: u64) {
        if conn.lease.borrow().is_none() {
            conn.lease.replace(Some(self.lease()));
        }
        let expires_ms =
            if timeout_ms == 0 { u64::MAX } else { clock::monotonic_ms().saturating_add(timeout_ms) };
        let evicted = {
            let mut idle = self.idle.borrow_mut();
            let evicted = if idle.len() >= self.size { idle.pop_back() } else { None };
            idle.push_front(Idle { conn, expires_ms });
            evicted
        };
        drop(evicted);
        self.wake_one();
        if let Some(pools) = self.pools.upgrade() {
            pools.keep_swept();
        }
    }

    /// Whether another may wait.
    pub fn may_queue(&self) -> bool {
        self.waiters.borrow().len() < self.backlog.unwrap_or(0)
    }

    /// Waits for a connection or the right to open one.
    pub async fn wait(self: Rc<Self>) -> Acquired {
        let place = Place::new(&self);
        poll_fn(|cx| {
            if place.waiter.is_woken.get() {
                if let Some(acquired) = self.acquire() {
                    place.waiter.is_woken.set(false);
                    return Poll::Ready(acquired);
                }
                place.waiter.is_woken.set(false);
                self.waiters.borrow_mut().push_front(Rc::clone(&place.waiter));
            }
            place.waiter.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    fn wake_one(&self) {
        let Some(waiter) = self.waiters.borrow_mut().pop_front() else { return };
        waiter.is_woken.set(true);
        if let Some(waker) = waiter.waker.take() {
            waker.wake();
        }
    }

    fn leave_if_unused(&self) {
        if self.connections.get() > 0 || !self.waiters.borrow().is_empty() {
            return;
        }
        if let Some(pools) = self.pools.upgrade() {
            let gone = pools.by_key.borrow_mut().remove(&self.key);
            drop(gone);
        }
    }
}

/// A place in a pool's queue; given up however the wait ends.
struct Place {
    pool: Rc<Pool>,
    waiter: Rc<Waiter>,
}

impl Place {
    fn new(pool: &Rc<Pool>) -> Place {
        let waiter = Rc::new(Waiter { is_woken: Cell::new(false), waker: RefCell::default() });
        pool.waiters.borrow_mut().push_back(Rc::clone(&waiter));
        Place { pool: Rc::clone(pool), waiter }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.pool.waiters.borrow_mut().retain(|w| !Rc::ptr_eq(w, &self.waiter));
        if self.waiter.is_woken.get() {
            self.pool.wake_one();
        }
    }
}
