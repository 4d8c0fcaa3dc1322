//! How to open a [`RedisL2`](super::RedisL2), and what is nonsense.

use std::fmt;
use std::str::FromStr;

use crate::codec::DictionaryError;

/// How many addresses may be given.
pub const ADDRESSES_MAX: usize = 64;

/// How long a prefix may be, in bytes.
pub const PREFIX_BYTES_MAX: usize = 128;

/// How many connections to one server may be kept.
pub const CONNECTIONS_PER_NODE_MAX: usize = 64;

const PORT: u16 = 6379;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// A host name or an IP address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// A host and a port.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            return write!(f, "[{}]:{}", self.host, self.port);
        }
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl FromStr for Address {
    type Err = RedisOptionsError;

    /// `host`, `host:port`, `[v6]` or `[v6]:port`; the port is 6379 where there is none.
    fn from_str(text: &str) -> Result<Self, RedisOptionsError> {
        let wrong = || RedisOptionsError::Address(text.to_owned());
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
                let port =
                    if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(wrong)?) };
                (host, port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        let port = port.map_or(Ok(PORT), str::parse).map_err(|_| wrong())?;
        if host.is_empty() || port == 0 || host.contains(['/', '@', ' ', '[']) {
            return Err(wrong());
        }
        Ok(Self::new(host, port))
    }
}

/// What stands behind the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisMode {
    /// One server, at the only address.
    Single,
    /// Sentinels at the addresses; they know who the master of this name is.
    Sentinel {
        /// The name under which the sentinels watch the master.
        master: String,
    },
    /// Nodes of a Redis Cluster; the others are learned from them.
    Cluster,
}

/// How to open a [`RedisL2`](super::RedisL2).
#[derive(Clone, PartialEq, Eq)]
pub struct RedisOptions {
    /// What stands behind the addresses.
    pub mode: RedisMode,
    /// Servers to begin with; in a cluster a few are enough. At most [`ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
    /// The prefix of every key and the name of the channel; see the module. One for each cache and format of its values.
    pub prefix: String,
    /// The user of the servers' access control list. Default: none.
    pub username: Option<String>,
    /// The password. Default: none.
    pub password: Option<String>,
    /// The user at the sentinels. Default: none.
    pub sentinel_username: Option<String>,
    /// The password at the sentinels. Default: none.
    pub sentinel_password: Option<String>,
    /// The number of the database; 0 in a cluster. Default 0.
    pub database: u32,
    /// How long a call may take, with its retries. Default 500.
    pub timeout_ms: u64,
    /// How long a connection may take to be made. Default 300.
    pub connect_timeout_ms: u64,
    /// How long an invalidation of a prefix or tag may take. Default 60 000.
    pub sweep_timeout_ms: u64,
    /// Whether replicas are asked first. Default false.
    pub replica_reads: bool,
    /// How many connections to each server; a large value holds up what comes after it on its own only. Default 2.
    pub connections_per_node: usize,
    /// How many commands may be on their way on one connection. Default 1 024.
    pub in_flight_max: usize,
    /// Values of at least so many bytes are compressed; none: never. Default 1 024.
    pub compress_from_bytes: Option<usize>,
    /// A zstd dictionary for values. Every node of the fleet needs the same. Default: none.
    pub dictionary: Option<Vec<u8>>,
}

/// Why options are wrong: a fault of the configuration, and no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedisOptionsError {
    /// An address cannot be read.
    #[error("\"{0}\" is not the address of a server: host:port is expected")]
    Address(String),
    /// There is none, there are too many, or more than one for a single server.
    #[error("{0}")]
    Addresses(&'static str),
    /// The prefix cannot be used.
    #[error(
        "the prefix \"{0}\" must have 1 to {PREFIX_BYTES_MAX} printable bytes without braces, spaces and backslashes"
    )]
    Prefix(String),
    /// A number is out of its range.
    #[error("{name} must be {range}")]
    Range {
        /// Which.
        name: &'static str,
        /// What it may be.
        range: &'static str,
    },
    /// Two options contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
    /// The dictionary cannot be used.
    #[error(transparent)]
    Dictionary(#[from] DictionaryError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

impl RedisOptions {
    /// Servers and a prefix, with the defaults for the rest.
    pub fn new(mode: RedisMode, addresses: Vec<Address>, prefix: impl Into<String>) -> Self {
        Self {
            mode,
            addresses,
            prefix: prefix.into(),
            username: None,
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            database: 0,
            timeout_ms: 500,
            connect_timeout_ms: 300,
            sweep_timeout_ms: 60_000,
            replica_reads: false,
            connections_per_node: 2,
            in_flight_max: 1_024,
            compress_from_bytes: Some(1_024),
            dictionary: None,
        }
    }

    /// Refuses nonsense.
    pub fn check(&self) -> Result<(), RedisOptionsError> {
        use RedisOptionsError::{Addresses, Contradiction, Prefix, Range};
        match (self.addresses.len(), &self.mode) {
            (0, _) => return Err(Addresses("there is no address of a server")),
            (1, _) => {}
            (_, RedisMode::Single) => return Err(Addresses("a single server has one address")),
            (2..=ADDRESSES_MAX, _) => {}
            _ => return Err(Addresses("there are more than 64 addresses")),
        }
        let prefix = &self.prefix;
        let usable = |b: u8| b.is_ascii_graphic() && !b"{}\\".contains(&b);
        if prefix.is_empty() || prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(usable) {
            return Err(Prefix(prefix.clone()));
        }
        let ranges = [
            ("timeout_ms", self.timeout_ms, 3_600_000, "1 to 3600000"),
            ("connect_timeout_ms", self.connect_timeout_ms, 3_600_000, "1 to 3600000"),
            ("sweep_timeout_ms", self.sweep_timeout_ms, 86_400_000, "1 to 86400000"),
            (
                "connections_per_node",
                self.connections_per_node as u64,
                CONNECTIONS_PER_NODE_MAX as u64,
                "1 to 64",
            ),
            ("in_flight_max", self.in_flight_max as u64, 1_000_000, "1 to 1000000"),
        ];
        if let Some((name, _, _, range)) = ranges.into_iter().find(|(_, n, max, _)| *n == 0 || n > max) {
            return Err(Range { name, range });
        }
        if self.database > 65_535 {
            return Err(Range { name: "database", range: "0 to 65535" });
        }
        if self.username.is_some() && self.password.is_none() {
            return Err(Contradiction("a user needs a password"));
        }
        match &self.mode {
            RedisMode::Single if self.replica_reads => {
                Err(Contradiction("a single server has no replicas to read from"))
            }
            RedisMode::Cluster if self.database != 0 => {
                Err(Contradiction("a cluster has only the database 0"))
            }
            RedisMode::Sentinel { master } if master.is_empty() => {
                Err(Contradiction("sentinels need the name of the master"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for RedisOptions {
    /// Everything but the passwords.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("mode", &self.mode)
            .field("addresses", &self.addresses)
            .field("prefix", &self.prefix)
            .field("database", &self.database)
            .field("timeout_ms", &self.timeout_ms)
            .field("replica_reads", &self.replica_reads)
            .finish_non_exhaustive()
    }
}
