//! `cache_store name { … }`: the level that a fleet shares (L2). Each cache that names the store has keys of its own there.

use std::path::PathBuf;
use std::sync::Arc;

use terrace_cache::L2;
use terrace_conf::{ConfError, Node};
use terrace_http::Builder;
use terrace_stores::redis::{Address, RedisStats};
use terrace_stores::{MemcachedL2, MemcachedOptions, RedisL2, RedisMode, RedisOptions, Report};
use tokio::runtime::Handle;

use super::{IN_STORE, is_name};

/// The longest dictionary for zstd.
const DICTIONARY_BYTES_MAX: u64 = 1 << 20;

/// What is needed to open a store for one cache.
#[derive(Clone, PartialEq)]
pub(super) enum StoreOptions {
    Redis(Box<RedisOptions>),
    Memcached(MemcachedOptions),
}

/// A store as configured.
#[derive(Clone)]
pub(super) struct StoreSpec {
    pub(super) name: Arc<str>,
    options: StoreOptions,
}

/// All stores, in their order.
#[derive(Default)]
pub(super) struct Stores(pub(super) Vec<StoreSpec>);

impl StoreSpec {
    /// The store's options for a cache of this name.
    pub(super) fn of_cache(&self, cache: &str) -> StoreOptions {
        let mut options = self.options.clone();
        match &mut options {
            StoreOptions::Redis(it) => it.prefix.push_str(cache),
            StoreOptions::Memcached(it) => it.prefix.push_str(cache),
        }
        options
    }
}

impl StoreOptions {
    /// What is wrong with the options, if anything is.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Redis(options) => options.check().map_err(|error| error.to_string()),
            Self::Memcached(options) => {
                let opened = MemcachedL2::open(options.clone(), Arc::new(|_| ()));
                opened.map(drop).map_err(|error| error.to_string())
            }
        }
    }

    /// Opens the store; it connects when it is first used.
    pub(super) fn open(&self, runtime: Handle, report: Report) -> Result<OpenStore, String> {
        Ok(match self {
            Self::Redis(options) => {
                let opened = RedisL2::open((**options).clone(), runtime, report);
                let redis = Arc::new(opened.map_err(|error| error.to_string())?);
                OpenStore { l2: redis.clone(), redis: Some(redis) }
            }
            Self::Memcached(options) => {
                let opened = MemcachedL2::open(options.clone(), report).map_err(|error| error.to_string())?;
                OpenStore { l2: Arc::new(opened), redis: None }
            }
        })
    }
}

/// An open store.
#[derive(Clone)]
pub(super) struct OpenStore {
    pub(super) l2: Arc<dyn L2>,
    redis: Option<Arc<RedisL2>>,
}

impl OpenStore {
    /// What it has met with, if it is Redis.
    pub(super) fn redis_stats(&self) -> Option<RedisStats> {
        self.redis.as_ref().map(|it| it.stats())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Driver {
    Redis,
    Sentinel,
    Cluster,
    Memcached,
}

/// A block being read.
#[derive(Default)]
struct Draft {
    driver: Option<Driver>,
    servers: Vec<String>,
    master: Option<String>,
    username: Option<String>,
    password: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
    database: Option<u32>,
    prefix: Option<String>,
    timeout_ms: Option<u64>,
    connect_timeout_ms: Option<u64>,
    sweep_timeout_ms: Option<u64>,
    replica_reads: Option<bool>,
    connections: Option<usize>,
    compress_from_bytes: Option<Option<usize>>,
    dictionary: Option<PathBuf>,
}

pub(super) fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.text(0)?;
    if !is_name(name) {
        return Err(node.error(format!("invalid cache store name \"{name}\"")));
    }
    if b.state::<Stores>().0.iter().any(|it| *it.name == *name) {
        return Err(node.error(format!("duplicate cache store \"{name}\"")));
    }
    *b.state::<Draft>() = Draft::default();
    b.nested(IN_STORE, node)?;
    let draft = std::mem::take(b.state::<Draft>());
    let options =
        draft.options().map_err(|error| node.end_error(format!("cache store \"{name}\": {error}")))?;
    b.state::<Stores>().0.push(StoreSpec { name: name.into(), options });
    Ok(())
}

impl Draft {
    fn options(self) -> Result<StoreOptions, String> {
        let driver = self.driver.ok_or("no \"driver\"")?;
        if self.servers.is_empty() {
            return Err("no \"server\"".into());
        }
        let dictionary = self.dictionary.as_ref().map(read_dictionary).transpose()?;
        if driver == Driver::Memcached {
            return self.memcached(dictionary);
        }
        let mode = match (driver, self.master) {
            (Driver::Sentinel, Some(master)) => RedisMode::Sentinel { master },
            (Driver::Sentinel, None) => return Err("no \"master\", which Sentinel is asked for".into()),
            (_, Some(_)) => return Err("\"master\" is for the driver redis_sentinel".into()),
            (Driver::Cluster, None) => RedisMode::Cluster,
            (_, None) => RedisMode::Single,
        };
        let addresses: Result<Vec<Address>, _> = self.servers.iter().map(|it| it.parse()).collect();
        let prefix = self.prefix.unwrap_or_else(|| "terrace:".into());
        let defaults = RedisOptions::new(mode, addresses.map_err(|error| error.to_string())?, prefix);
        Ok(StoreOptions::Redis(Box::new(RedisOptions {
            username: self.username,
            password: self.password,
            sentinel_username: self.sentinel_username,
            sentinel_password: self.sentinel_password,
            database: self.database.unwrap_or(defaults.database),
            timeout_ms: self.timeout_ms.unwrap_or(defaults.timeout_ms),
            connect_timeout_ms: self.connect_timeout_ms.unwrap_or(defaults.connect_timeout_ms),
            sweep_timeout_ms: self.sweep_timeout_ms.unwrap_or(defaults.sweep_timeout_ms),
            replica_reads: self.replica_reads.unwrap_or(defaults.replica_reads),
            connections_per_node: self.connections.unwrap_or(defaults.connections_per_node),
            compress_from_bytes: self.compress_from_bytes.unwrap_or(defaults.compress_from_bytes),
            dictionary,
            ..defaults
        })))
    }

    fn memcached(self, dictionary: Option<Vec<u8>>) -> Result<StoreOptions, String> {
        let foreign = [
            ("master", self.master.is_some()),
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
            ("sentinel_username", self.sentinel_username.is_some()),
            ("sentinel_password", self.sentinel_password.is_some()),
            ("database", self.database.is_some()),
            ("sweep_timeout", self.sweep_timeout_ms.is_some()),
            ("replica_reads", self.replica_reads.is_some()),
        ];
        if let Some((name, _)) = foreign.iter().find(|(_, given)| *given) {
            return Err(format!("\"{name}\" is not for the driver memcached"));
        }
        let prefix = self.prefix.unwrap_or_else(|| "terrace:".into());
        let defaults = MemcachedOptions::new(self.servers, prefix);
        Ok(StoreOptions::Memcached(MemcachedOptions {
            timeout_ms: self.timeout_ms.unwrap_or(defaults.timeout_ms),
            connect_timeout_ms: self.connect_timeout_ms.unwrap_or(defaults.connect_timeout_ms),
            connections_per_server: self.connections.unwrap_or(defaults.connections_per_server),
            compress_from_bytes: self.compress_from_bytes.unwrap_or(defaults.compress_from_bytes),
            dictionary,
            ..defaults
        }))
    }
}

fn read_dictionary(path: &PathBuf) -> Result<Vec<u8>, String> {
    let refused =
        |error: std::io::Error| format!("the dictionary {} cannot be read: {error}", path.display());
    let size = std::fs::metadata(path).map_err(refused)?.len();
    if size > DICTIONARY_BYTES_MAX {
        return Err(format!("the dictionary {} has more than 1 MiB", path.display()));
    }
    std::fs::read(path).map_err(refused)
}

pub(super) fn set_driver(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let drivers = [
        ("redis", Driver::Redis),
        ("redis_sentinel", Driver::Sentinel),
        ("redis_cluster", Driver::Cluster),
        ("memcached", Driver::Memcached),
    ];
    let driver = node.one_of(0, &drivers)?;
    node.set_once(&mut b.state::<Draft>().driver, driver)
}

pub(super) fn set_server(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    for arg in &node.args {
        let server = arg.text()?.to_owned();
        b.state::<Draft>().servers.push(server);
    }
    Ok(())
}

macro_rules! settings {
    ($($set:ident $field:ident = |$node:ident| $value:expr;)*) => {
        $(pub(super) fn $set(b: &mut Builder, $node: &Node) -> Result<(), ConfError> {
            let value = $value;
            $node.set_once(&mut b.state::<Draft>().$field, value)
        })*
    };
}

settings! {
    set_master master = |node| node.text(0)?.to_owned();
    set_username username = |node| node.text(0)?.to_owned();
    set_password password = |node| node.text(0)?.to_owned();
    set_sentinel_username sentinel_username = |node| node.text(0)?.to_owned();
    set_sentinel_password sentinel_password = |node| node.text(0)?.to_owned();
    set_database database = |node| node.number(0)?;
    set_prefix prefix = |node| node.text(0)?.to_owned();
    set_timeout timeout_ms = |node| node.time_ms(0)?;
    set_connect_timeout connect_timeout_ms = |node| node.time_ms(0)?;
    set_sweep_timeout sweep_timeout_ms = |node| node.time_ms(0)?;
    set_replica_reads replica_reads = |node| node.flag(0)?;
    set_connections connections = |node| node.number(0)?;
}

/// `compress off` or a size.
pub(super) fn set_compress(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let from = match node.text(0)? {
        "off" => None,
        _ => Some(node.size(0)? as usize),
    };
    node.set_once(&mut b.state::<Draft>().compress_from_bytes, from)
}

pub(super) fn set_dictionary(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let path = b.full_path(node.text(0)?);
    node.set_once(&mut b.state::<Draft>().dictionary, path)
}
