//! Locks of ZooKeeper behind [`FleetLock`], for fleets that have it: one rebuild at a time for each key.
//!
//! The recipe is the service's own: below `<base>/<hash of the key>`, each contender creates an ephemeral sequential node;
//! the lowest one holds the lock, every other one watches its predecessor only. Names are those of Curator's
//! `InterProcessMutex` (`_c_<uuid>-lock-<sequence>`), so both may contend for one lock. The folders are container nodes
//! (ZooKeeper 3.5.3 and later), which the service removes some time after the last contender.
//!
//! A lock is a courtesy, not a proof: a node whose session ends (it was cut off, or stood still for longer than the session
//! lasts) has lost its lock while it may still be loading. Nothing wrong is stored then, for a fill is ordered by lease and
//! version, whoever loads; it is only that two load at once. That is why a [`LockGuard`] does not tell that it is lost.

mod contender;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use terrace_cache::{BoxFuture, FleetLock, L2Error, LockGuard};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout, timeout_at};
use zookeeper_client::{Client, Error};

use contender::Contender;

/// How long after a failed attempt to connect the next one is made; meanwhile locks fail at once.
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

/// Where the locks are, and how long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZooKeeperOptions {
    /// `host:port` of the servers, with commas between them; a path at the end is the root of all that is done.
    pub servers: String,
    /// The node below which the locks are; made when it is missing.
    pub base: String,
    /// Time without a sign of life after which the service gives a node's locks away. The service has bounds of its own for
    /// it: by default 2 to 20 of its ticks.
    pub session_timeout_ms: u64,
    /// How long the service's answers may take in all, connecting included, until it is known who holds a lock.
    pub timeout_ms: u64,
}

impl ZooKeeperOptions {
    /// The defaults.
    pub fn new(servers: impl Into<String>) -> Self {
        Self {
            servers: servers.into(),
            base: "/terrace/locks".into(),
            session_timeout_ms: 10_000,
            timeout_ms: 2_000,
        }
    }
}

/// The locks of one base node, under one session.
pub struct ZooKeeperLock {
    options: ZooKeeperOptions,
    session: Mutex<Option<Client>>,
    /// When the last attempt to connect failed, and why; none after one that did not.
    failed: parking_lot::Mutex<Option<(Instant, Arc<str>)>>,
}

impl ZooKeeperLock {
    /// Locks by these options. Connects when the first lock is asked for.
    ///
    /// # Errors
    /// When `base` is no path of a node.
    pub fn new(options: ZooKeeperOptions) -> Result<Self, L2Error> {
        let base = &options.base;
        let segments_are_names = base.split('/').skip(1).all(|s| !matches!(s, "" | "." | ".."));
        if !base.starts_with('/') || !segments_are_names || base.chars().any(char::is_control) {
            return Err(L2Error::Refused(format!("\"{base}\" is no path of a ZooKeeper node").into()));
        }
        Ok(Self { options, session: Mutex::default(), failed: parking_lot::Mutex::default() })
    }

    async fn contend(&self, key: Bytes, wait_ms: u64) -> Result<Option<LockGuard>, L2Error> {
        let timeout_ms = self.options.timeout_ms;
        let answered_by = Instant::now() + Duration::from_millis(timeout_ms);
        let late = |_| L2Error::Timeout(timeout_ms);
        let Ok(client) = timeout_at(answered_by, self.client()).await else {
            *self.failed.lock() = Some((Instant::now(), "ZooKeeper does not answer".into()));
            return Err(L2Error::Timeout(timeout_ms));
        };
        let client = client?;
        let dir = format!("{}/{}", self.options.base, hash(&key));
        // A task of its own: cut off in the middle of the creation, nobody would know the node, and it would hold the lock
        // for as long as the session lasts. Given up, the task goes on, and its node is deleted when it is known.
        let creation = tokio::spawn(Contender::create(client.clone(), dir, key));
        let contender = match timeout_at(answered_by, creation).await.map_err(late)? {
            Ok(created) => created.map_err(unavailable)?,
            Err(_) => return Err(L2Error::Unavailable("ZooKeeper: the attempt was abandoned".into())),
        };
        let first = timeout_at(answered_by, contender.predecessor()).await.map_err(late)?;
        if let Some(predecessor) = first.map_err(unavailable)? {
            match timeout(Duration::from_millis(wait_ms), contender.wait_behind(predecessor)).await {
                Ok(turn) => turn.map_err(unavailable)?,
                Err(_) if client.state().is_terminated() => return Err(unavailable(Error::SessionExpired)),
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(LockGuard::new(move || drop(contender))))
    }

    /// The session's client; a new session when the old one is over.
    async fn client(&self) -> Result<Client, L2Error> {
        let mut session = self.session.lock().await;
        if let Some(client) = session.as_ref().filter(|c| !c.state().is_terminated()) {
            return Ok(client.clone());
        }
        *session = None;
        if let Some((at, error)) = &*self.failed.lock()
            && at.elapsed() < RECONNECT_PAUSE
        {
            return Err(L2Error::Unavailable(Arc::clone(error)));
        }
        let connector = Client::connector()
            .with_session_timeout(Duration::from_millis(self.options.session_timeout_ms))
            .with_fail_eagerly();
        match connector.connect(&self.options.servers).await {
            Ok(client) => {
                *self.failed.lock() = None;
                *session = Some(client.clone());
                Ok(client)
            }
            Err(error) => {
                let text: Arc<str> = format!("ZooKeeper: {error}").into();
                *self.failed.lock() = Some((Instant::now(), Arc::clone(&text)));
                Err(match error {
                    Error::BadArguments(_) | Error::AuthFailed => L2Error::Refused(text),
                    _ => L2Error::Unavailable(text),
                })
            }
        }
    }
}

impl FleetLock for ZooKeeperLock {
    /// Beyond `wait_ms`, the service's own answers may take [`ZooKeeperOptions::timeout_ms`].
    fn lock(&self, key: Bytes, wait_ms: u64) -> BoxFuture<'_, Result<Option<LockGuard>, L2Error>> {
        Box::pin(self.contend(key, wait_ms))
    }
}

fn unavailable(error: Error) -> L2Error {
    let text = format!("ZooKeeper: {error}").into();
    match error {
        Error::NoAuth
        | Error::InvalidAcl
        | Error::BadArguments(_)
        | Error::Unimplemented
        | Error::AuthFailed => L2Error::Refused(text),
        _ => L2Error::Unavailable(text),
    }
}

/// A node name for any key: names of nodes know no slash and no control character, and their length is bounded.
fn hash(key: &[u8]) -> String {
    hex(&Sha256::digest(key))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut out, byte| {
        out.extend([byte >> 4, byte & 15].map(|n| char::from_digit(u32::from(n), 16).unwrap_or('0')));
        out
    })
}
