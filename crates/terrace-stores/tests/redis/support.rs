//! What the tests share: stores, values, and conditions to wait for.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use e2e::PATIENCE;
use terrace_cache::{Filled, Found, L2, LeaseToken, Notice, Stored};
use terrace_stores::redis::{Address, RedisL2, RedisMode, RedisOptions};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// A long lease, and a life that no test outlasts.
pub const LONG_MS: u64 = 3_600_000;

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = timeout(PATIENCE, async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain: {what}");
}

/// A store and what it told.
pub struct Store {
    pub l2: RedisL2,
    pub lines: Arc<Mutex<Vec<String>>>,
    notices: Arc<Mutex<Vec<Notice>>>,
}

impl Store {
    pub fn open(options: RedisOptions) -> Self {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let told = lines.clone();
        let report = Arc::new(move |line| told.lock().unwrap().push(line));
        let l2 = RedisL2::open(options, Handle::current(), report).unwrap();
        Self { l2, lines, notices: Arc::default() }
    }

    /// Opens a store that listens, once it has been told of its subscription.
    pub async fn listening(options: RedisOptions) -> Self {
        let store = Self::open(options);
        let heard = store.notices.clone();
        store.l2.listen(Arc::new(move |notice| heard.lock().unwrap().push(notice)));
        store.heard("the first gap", |notice| *notice == Notice::Gap).await;
        store.forget_notices();
        store
    }

    /// Waits for a notice.
    pub async fn heard(&self, what: &str, is_it: impl Fn(&Notice) -> bool) {
        eventually(what, async || self.notices.lock().unwrap().iter().any(&is_it)).await;
    }

    pub fn notices(&self) -> Vec<Notice> {
        self.notices.lock().unwrap().clone()
    }

    pub fn forget_notices(&self) {
        self.notices.lock().unwrap().clear();
    }

    pub fn told(&self, part: &str) -> bool {
        self.lines.lock().unwrap().iter().any(|line| line.contains(part))
    }

    pub async fn get(&self, key: &[u8]) -> Found {
        self.l2.get(Bytes::copy_from_slice(key), LONG_MS).await.unwrap()
    }

    /// The token of a miss.
    pub async fn lease(&self, key: &[u8]) -> LeaseToken {
        match self.get(key).await {
            Found::Lease { token, .. } => token,
            other => panic!("no lease: {other:?}"),
        }
    }

    /// The fresh value.
    pub async fn fresh(&self, key: &[u8]) -> Stored {
        match self.get(key).await {
            Found::Fresh(stored) => stored,
            other => panic!("not fresh: {other:?}"),
        }
    }

    pub async fn fill(&self, key: &[u8], token: LeaseToken, stored: Stored) -> Filled {
        self.l2.fill(Bytes::copy_from_slice(key), token, stored).await.unwrap()
    }

    pub async fn set(&self, key: &[u8], stored: Stored) -> Filled {
        self.l2.set(Bytes::copy_from_slice(key), stored).await.unwrap()
    }
}

/// A value that outlives the test.
pub fn value(text: impl Into<Bytes>, version: u64) -> Stored {
    Stored {
        value: Some(text.into()),
        version,
        age_ms: 0,
        ttl_ms: LONG_MS,
        dead_ms: 2 * LONG_MS,
        tags: Vec::new(),
    }
}

/// Options with a timeout that a busy machine keeps.
pub fn options(mode: RedisMode, servers: impl IntoIterator<Item = SocketAddr>) -> RedisOptions {
    let addresses = servers.into_iter().map(|at| Address::new(at.ip().to_string(), at.port())).collect();
    RedisOptions {
        timeout_ms: 10_000,
        connect_timeout_ms: 5_000,
        ..RedisOptions::new(mode, addresses, "test:shop")
    }
}
