//! Redis as the level that a fleet shares: a single server, a master under sentinels, or a cluster. Redis 7.0 or newer.
//!
//! # Layout
//!
//! | name | type | what |
//! |---|---|---|
//! | `<prefix>:k:<key>` | hash | `m`: the key's state; `v`: the value in its envelope ([`crate::codec`]) |
//! | `<prefix>:t:<tag>` | sorted set | `k<key>` for each value filled with the tag, scored by the time at which it may be forgotten; `v`, scored by the time until which the tag's newest invalidation is remembered |
//! | `<prefix>:n` | channel | notices: one byte for what, the version in 20 digits, the key, prefix or tag |
//!
//! The state is ten decimal numbers with spaces between them: the value's version, the newest version heard of, when the value was
//! filled, its `ttl_ms` and `dead_ms`, the token of the lease, when it was handed out and when it ends, the token of the last fill, and
//! until when the newest version is kept when nothing else is. Versions and tokens have 20 digits. Times are milliseconds of the
//! server's own clock, and so are all ages: no clock of a node is ever asked. The key ends with what is needed last of it.
//!
//! The prefix has no braces, so those in a key are its hash tag; they decide where it lies and nothing else.
//!
//! # Scripts
//!
//! All effects on a key are one script on that key alone (`scripts/*.lua`), which tells the fleet too. What they promise:
//!
//! - A lookup hands out at most one lease at a time. The token is the asker's, so that a lookup that is sent again gets its own lease.
//! - A fill is stored under the key's current lease, also after the lease has run out (up to [`LEASE_AGE_MAX_MS`]), unless another was
//!   handed out. Sent again, it is stored once, and answers the same.
//! - No fill and no set replaces a newer version, or one that an invalidation has named, for as long as the value lives, and at least
//!   [`FLOOR_MS`] after the invalidation. Version 0 is neither older nor newer: the lease alone orders it.
//! - An invalidation voids the lease, always.
//! - A fill puts its key under its tags first. An invalidation of a tag leaves a mark there first and then walks it. So a fill either
//!   is met by the walk, or sees the mark, which is newer than its lease, and is refused.
//!
//! # What can be lost
//!
//! Replication is asynchronous: a failover may lose the last writes before it. This node makes its own latest invalidations again
//! when it notices one, and invalidates what its latest fills and sets replaced; what a node wrote that died with the master is lost,
//! and a reader may then see the older value until its life ends. Every failover is told as a gap.
//!
//! # Why the routing is ours
//!
//! The connections are the `redis` crate's; which server gets a command is decided here. That gives one code for the three kinds, one
//! round trip for each server in a lookup of many, replicas chosen for each key, word of a failover when it happens, and a dead shard
//! that holds up nobody but those who ask for its keys.

mod inner;
mod names;
mod node;
mod noticed;
mod notices;
mod options;
mod reads;
mod recent;
mod reply;
mod router;
mod scripts;
mod slot;
mod stats;
mod sweep;
mod topology;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use terrace_cache::{BoxFuture, Filled, Found, L2, L2Error, LeaseToken, Listener, Scope, Stored, Version};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::codec::Codec;
use crate::report::{Report, Reporter};
use inner::Inner;
pub use inner::{FLOOR_MS, LEASE_AGE_MAX_MS};
pub use options::{
    ADDRESSES_MAX, Address, CONNECTIONS_PER_NODE_MAX, PREFIX_BYTES_MAX, RedisMode, RedisOptions,
    RedisOptionsError,
};
pub use stats::RedisStats;

/// Redis behind [`L2`]. See the module for what it keeps there.
pub struct RedisL2 {
    inner: Arc<Inner>,
    runtime: Handle,
    listening: AtomicBool,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl RedisL2 {
    /// Checks the options; connects to nothing, so that a server starts although Redis is away. `runtime` carries the background tasks
    /// of the store, and every call must be made on a runtime.
    pub fn open(options: RedisOptions, runtime: Handle, report: Report) -> Result<Self, RedisOptionsError> {
        options.check()?;
        let codec = Codec::new(options.compress_from_bytes, options.dictionary.as_deref())?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| RedisOptionsError::Random(error.to_string()))?;
        let seed = u64::from_ne_bytes(seed);
        let options = Arc::new(options);
        let reporter = Arc::new(Reporter::new(report));
        let inner = Arc::new(Inner {
            router: Arc::new(router::Router::new(options.clone(), reporter.clone())),
            names: names::Names::new(&options.prefix),
            noticed: noticed::Noticed::default(),
            recent: recent::Recent::default(),
            stats: stats::Counters::default(),
            tokens: AtomicU64::new(seed),
            turn: (seed >> 48) as usize,
            options,
            reporter,
            codec,
        });
        let store = Self { inner, runtime, listening: AtomicBool::new(false), tasks: Mutex::default() };
        store.keep(repeat_after_failovers(store.inner.clone()));
        Ok(store)
    }

    /// What the store has met with.
    pub fn stats(&self) -> RedisStats {
        let (router, stats) = (&self.inner.router, &self.inner.stats);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RedisStats {
            retries: read(&router.retries),
            redirections: read(&router.redirections),
            failovers: *router.failovers().borrow(),
            subscriptions_lost: read(&stats.subscriptions_lost),
            replica_hits: read(&stats.replica_hits),
            replica_misses: read(&stats.replica_misses),
            unreadable: read(&stats.unreadable),
        }
    }

    /// Runs a task for as long as the store lives.
    fn keep(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().push(self.runtime.spawn(task).abort_handle());
    }
}

impl Drop for RedisL2 {
    fn drop(&mut self) {
        self.tasks.get_mut().iter().for_each(AbortHandle::abort);
    }
}

impl std::fmt::Debug for RedisL2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RedisL2").field(&self.inner.options).finish()
    }
}

async fn repeat_after_failovers(inner: Arc<Inner>) {
    let mut failovers = inner.router.failovers();
    while failovers.changed().await.is_ok() {
        inner.write_again().await;
    }
}

impl L2 for RedisL2 {
    fn get(&self, key: Bytes, lease_ms: u64) -> BoxFuture<'_, Result<Found, L2Error>> {
        Box::pin(self.inner.get(key, lease_ms))
    }

    fn peek(&self, keys: Vec<Bytes>) -> BoxFuture<'_, Result<Vec<Option<Stored>>, L2Error>> {
        Box::pin(self.inner.peek(keys))
    }

    fn fill(&self, key: Bytes, token: LeaseToken, stored: Stored) -> BoxFuture<'_, Result<Filled, L2Error>> {
        Box::pin(self.inner.fill(key, token, stored))
    }

    fn set(&self, key: Bytes, stored: Stored) -> BoxFuture<'_, Result<Filled, L2Error>> {
        Box::pin(self.inner.set(key, stored))
    }

    fn release(&self, key: Bytes, token: LeaseToken) -> BoxFuture<'_, Result<(), L2Error>> {
        Box::pin(self.inner.release(key, token))
    }

    fn invalidate(&self, scope: Scope, version: Version) -> BoxFuture<'_, Result<u64, L2Error>> {
        Box::pin(self.inner.invalidate(scope, version))
    }

    fn listen(&self, listener: Listener) {
        if !self.listening.swap(true, Ordering::Relaxed) {
            self.keep(notices::listen(self.inner.clone(), listener));
        }
    }
}
