//! One server: a few multiplexed connections to it, made when they are first needed and again when they are lost.
//!
//! Invariants: at most one connection attempt at a time for each lane; after a failed one the next waits, the longer the server
//! has been away; a connection on which [`STRIKES_MAX`] commands in a row got no answer in time is given up, since its server or the way to it hangs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion,
    RedisConnectionInfo, RedisResult, Value,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::options::{Address, RedisOptions};
use super::trouble::Trouble;

/// How long after a failed attempt the next connection is tried at least and at most; between them, a quarter of the time for
/// which the server has been away.
const RETRY_AFTER: Duration = Duration::from_millis(50);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);

/// How many commands in a row may time out on a connection.
const STRIKES_MAX: u32 = 3;

/// What a server is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Use {
    /// Reads and writes.
    Master,
    /// Reads only: in a cluster a replica answers those only when told so.
    Replica,
    /// Asked who the master is.
    Sentinel,
}

/// One server.
pub(super) struct Node {
    pub(super) address: Address,
    options: Arc<RedisOptions>,
    used_as: Use,
    lanes: Vec<Mutex<Lane>>,
    next: AtomicUsize,
    /// When the first connection attempt failed of those after the last answer.
    away_since: parking_lot::Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Lane {
    open: Option<Arc<Open>>,
    /// Why the last attempt failed, and when.
    failed: Option<(Instant, Trouble)>,
}

struct Open {
    connection: MultiplexedConnection,
    strikes: AtomicU32,
}

impl Node {
    pub(super) fn new(address: Address, used_as: Use, options: Arc<RedisOptions>) -> Self {
        let lanes = if used_as == Use::Sentinel { 1 } else { options.connections_per_node };
        let lanes = (0..lanes).map(|_| Mutex::default()).collect();
        Self {
            address,
            options,
            used_as,
            lanes,
            next: AtomicUsize::new(0),
            away_since: parking_lot::Mutex::default(),
        }
    }

    /// Sends commands in one go; their answers, in order, some of which may be errors of the server.
    pub(super) async fn send(&self, commands: &Pipeline, deadline: Instant) -> Result<Vec<Value>, Trouble> {
        let at = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        let lane = &self.lanes[at];
        let open = timeout_at(deadline, self.open(lane)).await.map_err(|_| Trouble::Timeout)??;
        let mut connection = open.connection.clone();
        let sent = connection.send_packed_commands(commands, 0, commands.len());
        match timeout_at(deadline, sent).await {
            Ok(Ok(values)) => {
                open.strikes.store(0, Ordering::Relaxed);
                Ok(values)
            }
            Ok(Err(error)) => {
                self.close(lane, &open).await;
                Err(Trouble::of_connection(&error))
            }
            Err(_) => {
                if open.strikes.fetch_add(1, Ordering::Relaxed) + 1 >= STRIKES_MAX {
                    self.close(lane, &open).await;
                }
                Err(Trouble::Timeout)
            }
        }
    }

    /// Sends one command; an error of the server is the trouble that it means.
    pub(super) async fn ask(&self, command: ::redis::Cmd, deadline: Instant) -> Result<Value, Trouble> {
        let mut commands = Pipeline::with_capacity(1);
        commands.add_command(command);
        let value = self.send(&commands, deadline).await?.pop().unwrap_or_default();
        self.checked(value)
    }

    /// Turns a server's error into the trouble that it means.
    pub(super) fn checked(&self, value: Value) -> Result<Value, Trouble> {
        match value {
            Value::ServerError(error) => Err(Trouble::of_server(&error, &self.address.host)),
            value => Ok(value),
        }
    }

    /// For how long no connection could be made.
    pub(super) fn away_for(&self) -> Duration {
        self.away_since.lock().map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// A client for a connection of another kind to the same server.
    pub(super) fn client(&self) -> RedisResult<Client> {
        let options = &self.options;
        let (username, password) = match self.used_as {
            Use::Sentinel => (&options.sentinel_username, &options.sentinel_password),
            Use::Master | Use::Replica => (&options.username, &options.password),
        };
        let mut settings = RedisConnectionInfo::default()
            .set_protocol(ProtocolVersion::RESP2)
            .set_lib_name("terrace", env!("CARGO_PKG_VERSION"));
        if let Some(username) = username {
            settings = settings.set_username(username);
        }
        if let Some(password) = password {
            settings = settings.set_password(password);
        }
        if self.used_as != Use::Sentinel {
            settings = settings.set_db(i64::from(options.database));
        }
        let address = ConnectionAddr::Tcp(self.address.host.clone(), self.address.port);
        Client::open(address.into_connection_info()?.set_redis_settings(settings))
    }

    async fn open(&self, lane: &Mutex<Lane>) -> Result<Arc<Open>, Trouble> {
        let mut lane = lane.lock().await;
        if let Some(open) = &lane.open {
            return Ok(open.clone());
        }
        if let Some((at, trouble)) = &lane.failed
            && at.elapsed() < (self.away_for() / 4).clamp(RETRY_AFTER, RETRY_AFTER_MAX)
        {
            return Err(trouble.clone());
        }
        match self.connect().await {
            Ok(connection) => {
                let open = Arc::new(Open { connection, strikes: AtomicU32::new(0) });
                *lane = Lane { open: Some(open.clone()), failed: None };
                *self.away_since.lock() = None;
                Ok(open)
            }
            Err(trouble) => {
                lane.failed = Some((Instant::now(), trouble.clone()));
                self.away_since.lock().get_or_insert_with(Instant::now);
                Err(trouble)
            }
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Trouble> {
        let timeout = Duration::from_millis(self.options.connect_timeout_ms);
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(None)
            .set_response_timeout(None)
            .set_concurrency_limit(self.options.in_flight_max);
        let connected = async {
            let client = self.client()?;
            let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            if self.used_as == Use::Replica && self.options.mode == super::RedisMode::Cluster {
                ::redis::cmd("READONLY").exec_async(&mut connection).await?;
            }
            Ok(connection)
        };
        match tokio::time::timeout(timeout, connected).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(match Trouble::of_connection(&error) {
                Trouble::Lost(why) => Trouble::Lost(format!("{}: {why}", self.address)),
                other => other,
            }),
            Err(_) => Err(Trouble::Lost(format!(
                "{}: no connection within {} ms",
                self.address,
                timeout.as_millis()
            ))),
        }
    }

    /// Gives a connection up, unless another has taken its place.
    async fn close(&self, lane: &Mutex<Lane>, lost: &Arc<Open>) {
        let mut lane = lane.lock().await;
        if lane.open.as_ref().is_some_and(|open| Arc::ptr_eq(open, lost)) {
            lane.open = None;
        }
    }
}
