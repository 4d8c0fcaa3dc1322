//! Connections to a server that are kept between loads.
//!
//! Invariant: at most so many connections are open as there are permits, and only a connection with nothing under way
//! comes back: whoever drops one in the middle of a query closes it.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

/// A connection that was idle for longer is closed instead of used again: what lies on the way may have forgotten it.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// Idle connections, the one used last on top.
pub(crate) struct Pool<C> {
    permits: Semaphore,
    idle: Mutex<Vec<(C, Instant)>>,
}

impl<C> Pool<C> {
    pub(crate) fn new(connections_max: u32) -> Self {
        Self { permits: Semaphore::new(connections_max as usize), idle: Mutex::new(Vec::new()) }
    }

    /// Waits until one more connection may be in use.
    pub(crate) async fn permit(&self) -> SemaphorePermit<'_> {
        match self.permits.acquire().await {
            Ok(permit) => permit,
            // Nobody closes the semaphore.
            Err(_) => std::future::pending().await,
        }
    }

    /// An idle connection, for one who holds a permit.
    pub(crate) fn take(&self) -> Option<C> {
        let mut idle = self.idle.lock();
        let (connection, since) = idle.pop()?;
        if since.elapsed() <= IDLE_MAX {
            return Some(connection);
        }
        // Those below it were idle for longer still.
        idle.clear();
        None
    }

    /// Keeps a connection, before its permit is given back.
    pub(crate) fn put(&self, connection: C) {
        self.idle.lock().push((connection, Instant::now()));
    }

    /// Closes what is idle.
    pub(crate) fn clear(&self) {
        let closed = std::mem::take(&mut *self.idle.lock());
        drop(closed);
    }
}
