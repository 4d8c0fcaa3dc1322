//! Idle connections to the peers of one group, for reuse.
//!
//! One pool per group and worker, as nginx's `keepalive` directive: the bound counts connections to all peers of
//! the group, the most recently used one is taken first, and a full pool closes the one that is idle longest.
//! Invariants: connections lie in the order in which they became idle; none expires before `expires_ms`.

use std::collections::VecDeque;

use crate::group::Address;

/// The directives of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepaliveConfig {
    /// `keepalive`: idle connections at most; 0 keeps none.
    pub idle_max: usize,
    /// `keepalive_timeout`: how long a connection may be idle. Default 60 s; 0 keeps none, [`u64::MAX`] is no bound.
    pub timeout_ms: u64,
    /// `keepalive_requests`: requests on one connection. Default 1000.
    pub requests_max: u32,
    /// `keepalive_time`: the age after which a connection is not kept any more. Default 1 h.
    pub time_ms: u64,
}

impl KeepaliveConfig {
    /// nginx's defaults with `idle_max` connections.
    pub fn new(idle_max: usize) -> Self {
        Self { idle_max, timeout_ms: 60_000, requests_max: 1_000, time_ms: 3_600_000 }
    }
}

/// A connection with what the pool must know of its past.
#[derive(Debug)]
pub struct Pooled<C> {
    /// The connection.
    pub connection: C,
    requests: u32,
    started_ms: u64,
}

impl<C> Pooled<C> {
    /// A fresh connection, about to carry its first request.
    pub fn new(connection: C, now_ms: u64) -> Self {
        Self { connection, requests: 1, started_ms: now_ms }
    }

    /// Requests on the connection, the current one included.
    pub fn requests(&self) -> u32 {
        self.requests
    }
}

#[derive(Debug)]
struct Idle<C> {
    address: Address,
    pooled: Pooled<C>,
    until_ms: u64,
}

/// Idle connections of one group in one worker.
#[derive(Debug)]
pub struct KeepalivePool<C> {
    config: KeepaliveConfig,
    /// The latest at the front.
    idle: VecDeque<Idle<C>>,
    expires_ms: u64,
    evicted: u64,
}

impl<C> KeepalivePool<C> {
    /// An empty pool.
    pub fn new(config: KeepaliveConfig) -> Self {
        Self { config, idle: VecDeque::new(), expires_ms: u64::MAX, evicted: 0 }
    }

    /// Takes the connection to `address` that was used last among those that `fits` lets through, for one more request.
    /// Connections that were idle for too long are dropped.
    pub fn take(&mut self, address: &Address, now_ms: u64, fits: impl Fn(&C) -> bool) -> Option<Pooled<C>> {
        self.expire(now_ms);
        let is_it = |idle: &Idle<C>| idle.address == *address && fits(&idle.pooled.connection);
        let position = self.idle.iter().position(is_it)?;
        let mut pooled = self.idle.remove(position)?.pooled;
        pooled.requests = pooled.requests.saturating_add(1);
        Some(pooled)
    }

    /// Keeps a connection whose request ended well. Returns the connection to close, if any: this one when its
    /// requests or time are used up, or the one that is idle longest when the pool is full.
    pub fn put(&mut self, address: Address, pooled: Pooled<C>, now_ms: u64) -> Option<C> {
        self.put_within(self.config, address, pooled, now_ms)
    }

    /// As [`KeepalivePool::put`], for a connection that has limits of its own.
    pub fn put_within(
        &mut self,
        config: KeepaliveConfig,
        address: Address,
        pooled: Pooled<C>,
        now_ms: u64,
    ) -> Option<C> {
        if config.idle_max == 0
            || config.timeout_ms == 0
            || pooled.requests >= config.requests_max
            || now_ms.saturating_sub(pooled.started_ms) > config.time_ms
        {
            return Some(pooled.connection);
        }
        let evicted = if self.idle.len() >= config.idle_max { self.idle.pop_back() } else { None };
        self.evicted += u64::from(evicted.is_some());
        let until_ms = now_ms.saturating_add(config.timeout_ms);
        self.expires_ms = self.expires_ms.min(until_ms);
        self.idle.push_front(Idle { address, pooled, until_ms });
        evicted.map(|idle| idle.pooled.connection)
    }

    /// Drops the connections that were idle for too long; returns how many.
    pub fn expire(&mut self, now_ms: u64) -> usize {
        if now_ms < self.expires_ms {
            return 0;
        }
        let before = self.idle.len();
        self.idle.retain(|idle| idle.until_ms > now_ms);
        self.expires_ms = self.next_expiry_ms().unwrap_or(u64::MAX);
        before - self.idle.len()
    }

    /// When the next connection will have been idle for too long, if one ever will.
    pub fn next_expiry_ms(&self) -> Option<u64> {
        self.idle.iter().map(|idle| idle.until_ms).min().filter(|until_ms| *until_ms < u64::MAX)
    }

    /// Drops the connections for which `keep` is false, such as those their peer closed.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut C) -> bool) {
        self.idle.retain_mut(|idle| keep(&mut idle.pooled.connection));
    }

    /// Idle connections.
    pub fn len(&self) -> usize {
        self.idle.len()
    }

    /// Whether no connection is idle.
    pub fn is_empty(&self) -> bool {
        self.idle.is_empty()
    }

    /// Connections closed because the pool was full.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }
}
