//! memcached as the level that a fleet shares, for fleets that have it. memcached 1.6 or newer.
//!
//! Each key is one item that holds its state and its value (see `state`), changed by compare-and-swap only: read it, decide here, write
//! it if nobody else has. So leases, fills, versions and invalidations of a key are as exact as with Redis. Keys that memcached does
//! not take are hashed (SHA-256); every item holds its whole key, and one that holds another is a miss.
//!
//! Invalidations of many keys change a number: the cache's *generation* for a prefix, a tag's own generation for a tag. A value is
//! believed while the generations are those that it was filled in. The cache's *epoch* changes with either kind; a fill with tags whose
//! lease is of another epoch is refused, for its load began before an invalidation that it may not have seen.
//!
//! # What is weaker than with Redis
//!
//! - No notices: nobody is told anything. A lookup that is held waits out its bound, and L1 learns of invalidations elsewhere only
//!   from whoever else tells it. [`listen`](L2::listen) does nothing.
//! - A prefix means the whole cache, and neither a prefix nor a tag heeds the version: more is dropped than was meant.
//!   How many values that were is not known; the answer is 0.
//! - Times pass in whole seconds, and nothing lives longer than 30 days.
//! - Version floors and the cache's numbers are items like others: memcached may evict them. An evicted number is made anew at random,
//!   which drops values but believes none too many. An evicted floor lets an older `set` in; a fill still needs its lease.
//! - A value larger than memcached's items (1 MiB unless `-I` says otherwise) is refused.
//! - Servers that join or leave move keys to others. A server that comes back after it was away may hold what it missed the
//!   invalidation of; nothing is replicated.

mod state;
mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join_all, try_join};
use sha2::{Digest, Sha256};
use terrace_cache::{BoxFuture, Filled, Found, L2, L2Error, LeaseToken, Listener, Scope, Stored, Version};

use crate::codec::{Codec, DictionaryError};
use crate::report::{Report, Reporter, shown};
use state::{LIFE_MAX_S, State};
use wire::{Answer, Item, Request, Server};

/// How long older versions are refused after an invalidation with a version: 10 minutes.
pub const FLOOR_MS: u64 = 600_000;

/// How many servers there may be.
pub const SERVERS_MAX: usize = 64;

/// How long a name may be for memcached.
const NAME_BYTES_MAX: usize = 250;

/// How often a change is tried while others change the same key. Every failure is somebody else's success.
const TRIES_MAX: usize = 64;

/// How to open a [`MemcachedL2`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemcachedOptions {
    /// Servers, `host:port`; 1 to [`SERVERS_MAX`]. The same on all nodes.
    pub servers: Vec<String>,
    /// The prefix of every name; 1 to 64 printable bytes. One for each cache.
    pub prefix: String,
    /// How long a call may take. Default 500.
    pub timeout_ms: u64,
    /// How long a connection may take to be made. Default 300.
    pub connect_timeout_ms: u64,
    /// How many connections to each server. Default 4; 1 to 64.
    pub connections_per_server: usize,
    /// Values of at least so many bytes are compressed; none: never. Default 1 024.
    pub compress_from_bytes: Option<usize>,
    /// A zstd dictionary for values. Every node of the fleet needs the same. Default: none.
    pub dictionary: Option<Vec<u8>>,
}

impl MemcachedOptions {
    /// Servers and a prefix, with the defaults for the rest.
    pub fn new(servers: Vec<String>, prefix: impl Into<String>) -> Self {
        Self {
            servers,
            prefix: prefix.into(),
            timeout_ms: 500,
            connect_timeout_ms: 300,
            connections_per_server: 4,
            compress_from_bytes: Some(1_024),
            dictionary: None,
        }
    }
}

/// Why options are wrong: a fault of the configuration, and no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemcachedOptionsError {
    /// No or too many servers, or one without a port.
    #[error("1 to {SERVERS_MAX} servers are needed, each host:port")]
    Servers,
    /// The prefix cannot be used.
    #[error("the prefix \"{0}\" must have 1 to 64 printable bytes")]
    Prefix(String),
    /// A timeout or a number of connections is out of its range.
    #[error("timeouts must be 1 to 3600000 ms, and connections 1 to 64")]
    Range,
    /// The dictionary cannot be used.
    #[error(transparent)]
    Dictionary(#[from] DictionaryError),
    /// The system has no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(String),
}

/// memcached behind [`L2`]. See the module for what is weaker than with Redis.
pub struct MemcachedL2 {
    options: MemcachedOptions,
    servers: Vec<Server>,
    codec: Codec,
    reporter: Reporter,
    random: AtomicU64,
}

/// The cache's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers {
    generation: u64,
    epoch: u64,
}

/// A key's item as it was found.
struct Seen {
    state: State,
    unique: Option<u64>,
}

impl MemcachedL2 {
    /// Checks the options; connects to nothing, so that a server starts although memcached is away.
    pub fn open(options: MemcachedOptions, report: Report) -> Result<Self, MemcachedOptionsError> {
        let named = |server: &String| {
            server.rsplit_once(':').is_some_and(|(host, port)| {
                !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0)
            })
        };
        if options.servers.is_empty()
            || options.servers.len() > SERVERS_MAX
            || !options.servers.iter().all(named)
        {
            return Err(MemcachedOptionsError::Servers);
        }
        let prefix = &options.prefix;
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(MemcachedOptionsError::Prefix(prefix.clone()));
        }
        let timeouts = [options.timeout_ms, options.connect_timeout_ms];
        if !timeouts.iter().all(|ms| (1..=3_600_000).contains(ms))
            || !(1..=64).contains(&options.connections_per_server)
        {
            return Err(MemcachedOptionsError::Range);
        }
        let codec = Codec::new(options.compress_from_bytes, options.dictionary.as_deref())?;
        let mut seed = [0; 8];
        getrandom::fill(&mut seed).map_err(|error| MemcachedOptionsError::Random(error.to_string()))?;
        let connect_timeout = Duration::from_millis(options.connect_timeout_ms);
        let server =
            |address: &String| Server::new(address.clone(), options.connections_per_server, connect_timeout);
        Ok(Self {
            servers: options.servers.iter().map(server).collect(),
            codec,
            reporter: Reporter::new(report),
            random: AtomicU64::new(u64::from_ne_bytes(seed)),
            options,
        })
    }

    async fn get_now(&self, key: Bytes, lease_ms: u64) -> Result<Found, L2Error> {
        let token = self.number();
        for _ in 0..TRIES_MAX {
            let (numbers, mut seen) = try_join(self.numbers(), self.look(&key)).await?;
            self.disbelieve(&mut seen.state, numbers);
            let stored = self.believed(&key, &mut seen.state).await?;
            let state = &mut seen.state;
            match stored {
                Some(stored) if state.is_fresh() => return Ok(Found::Fresh(stored)),
                stale if state.is_held(token) => {
                    return Ok(Found::Held { remaining_ms: state.lease_rest_ms, stale });
                }
                stale => {
                    state.drop_lease();
                    (state.token, state.lease_rest_ms) = (token, lease_ms.max(1));
                    (state.generation, state.epoch) = (numbers.generation, numbers.epoch);
                    if self.swap(&key, &seen).await? {
                        return Ok(Found::Lease { token, stale });
                    }
                }
            }
        }
        Err(contended())
    }

    async fn fill_now(&self, key: Bytes, token: LeaseToken, stored: Stored) -> Result<Filled, L2Error> {
        let envelope = self.encode(&key, &stored)?;
        for _ in 0..TRIES_MAX {
            // First the tags, then the epoch, which an invalidation changes in the other order.
            let tags = self.tags(&stored.tags).await?;
            let (numbers, mut seen) = try_join(self.numbers(), self.look(&key)).await?;
            let in_epoch = seen.state.epoch == numbers.epoch;
            self.disbelieve(&mut seen.state, numbers);
            let state = &mut seen.state;
            let mine = state.token == token;
            let refused = if stored.version != 0 && stored.version < state.floor {
                Filled::Older(state.floor)
            } else if mine && (in_epoch || stored.tags.is_empty()) {
                self.put(state, &stored, numbers, tags, envelope.clone());
                state.last = token;
                if self.swap(&key, &seen).await? {
                    return Ok(Filled::Stored);
                }
                continue;
            } else if state.last == token && state.version == stored.version && state.value.is_some() {
                return Ok(Filled::Stored);
            } else {
                Filled::Voided
            };
            if !mine {
                return Ok(refused);
            }
            state.drop_lease();
            if self.swap(&key, &seen).await? {
                return Ok(refused);
            }
        }
        Err(contended())
    }

    async fn set_now(&self, key: Bytes, stored: Stored) -> Result<Filled, L2Error> {
        let envelope = self.encode(&key, &stored)?;
        for _ in 0..TRIES_MAX {
            let tags = self.tags(&stored.tags).await?;
            let (numbers, mut seen) = try_join(self.numbers(), self.look(&key)).await?;
            let state = &mut seen.state;
            if stored.version != 0 && stored.version < state.floor {
                return Ok(Filled::Older(state.floor));
            }
            self.put(state, &stored, numbers, tags, envelope.clone());
            state.last = 0;
            if self.swap(&key, &seen).await? {
                return Ok(Filled::Stored);
            }
        }
        Err(contended())
    }

    async fn release_now(&self, key: Bytes, token: LeaseToken) -> Result<(), L2Error> {
        for _ in 0..TRIES_MAX {
            let mut seen = self.look(&key).await?;
            if seen.state.token != token {
                return Ok(());
            }
            seen.state.drop_lease();
            if self.swap(&key, &seen).await? {
                return Ok(());
            }
        }
        Err(contended())
    }

    async fn invalidate_now(&self, scope: Scope, version: Version) -> Result<u64, L2Error> {
        let key = match scope {
            Scope::Key(key) => key,
            Scope::Prefix(_) => {
                self.renew(&self.numbers_name(), |numbers| *numbers = [self.number(), self.number()]).await?;
                return Ok(0);
            }
            Scope::Tag(tag) => {
                self.renew(&self.numbers_name(), |numbers| numbers[1] = self.number()).await?;
                self.renew(&self.name("t", tag.as_bytes()), |numbers| numbers[0] = self.number()).await?;
                return Ok(0);
            }
        };
        for _ in 0..TRIES_MAX {
            let mut seen = self.look(&key).await?;
            let state = &mut seen.state;
            let mut dropped = 0;
            if version != 0 {
                state.floor = state.floor.max(version);
                state.floor_rest_ms = FLOOR_MS;
            }
            if version == 0 || state.version < version {
                dropped = u64::from(state.value.is_some());
                state.drop_value();
                state.last = 0;
            }
            state.drop_lease();
            if self.swap(&key, &seen).await? {
                return Ok(dropped);
            }
        }
        Err(contended())
    }

    async fn peek_now(&self, keys: Vec<Bytes>) -> Result<Vec<Option<Stored>>, L2Error> {
        let numbers = self.numbers().await?;
        let mut groups: Vec<Vec<usize>> = vec![Vec::new(); self.servers.len()];
        let names: Vec<String> = keys.iter().map(|key| self.name("k", key)).collect();
        for (at, name) in names.iter().enumerate() {
            groups[self.server(name)].push(at);
        }
        let asked = groups.iter().zip(&self.servers).map(|(group, server)| {
            let requests: Vec<Request<'_>> =
                group.iter().map(|at| Request::Get { name: &names[*at] }).collect();
            async move { if requests.is_empty() { Ok(Vec::new()) } else { server.exchange(&requests).await } }
        });
        let mut found = vec![None; keys.len()];
        for (group, answers) in groups.iter().zip(join_all(asked).await) {
            let answers = answers.map_err(unavailable)?;
            for (at, answer) in group.iter().zip(answers) {
                let Answer::Found(item) = answer else { continue };
                let mut state = self.seen(&keys[*at], item).state;
                self.disbelieve(&mut state, numbers);
                if state.is_fresh() {
                    found[*at] = self.believed(&keys[*at], &mut state).await?;
                }
            }
        }
        Ok(found)
    }

    /// Drops what was filled or handed out in another generation.
    fn disbelieve(&self, state: &mut State, numbers: Numbers) {
        if state.generation != numbers.generation {
            state.drop_value();
            state.drop_lease();
            state.last = 0;
        }
    }

    /// The value, if it can be read and none of its tags was invalidated since; else it is dropped from the state.
    async fn believed(&self, key: &Bytes, state: &mut State) -> Result<Option<Stored>, L2Error> {
        let Some(envelope) = state.value.clone() else { return Ok(None) };
        let stored = match self.codec.decode(key, envelope, state.age_ms) {
            Ok(stored) => stored,
            Err(error) => {
                self.reporter
                    .tell(|| format!("memcached: the value of {} cannot be read: {error}", shown(key)));
                state.drop_value();
                return Ok(None);
            }
        };
        if !stored.tags.is_empty() && self.tags(&stored.tags).await? != state.tags {
            state.drop_value();
            return Ok(None);
        }
        Ok(Some(stored))
    }

    fn put(&self, state: &mut State, stored: &Stored, numbers: Numbers, tags: Vec<u64>, envelope: Bytes) {
        state.drop_lease();
        state.generation = numbers.generation;
        state.version = stored.version;
        state.floor = state.floor.max(stored.version);
        state.value = Some(envelope);
        (state.age_ms, state.ttl_ms, state.dead_ms) = (0, stored.ttl_ms, stored.dead_ms);
        state.tags = tags;
    }

    fn encode(&self, key: &Bytes, stored: &Stored) -> Result<Bytes, L2Error> {
        let encoded = self.codec.encode(key, stored).map(Bytes::from);
        encoded.map_err(|error| L2Error::Refused(error.to_string().into()))
    }

    async fn look(&self, key: &Bytes) -> Result<Seen, L2Error> {
        let name = self.name("k", key);
        match self.one(&name, Request::Get { name: &name }).await? {
            Answer::Found(item) => Ok(self.seen(key, item)),
            _ => Ok(Seen { state: State::default(), unique: None }),
        }
    }

    fn seen(&self, key: &Bytes, item: Item) -> Seen {
        let state = State::read(key, &item.data, item.left_s).unwrap_or_else(|| {
            // What is no longer needed is an empty item until it ends.
            if !item.data.is_empty() {
                self.reporter
                    .tell(|| format!("memcached: the item of {} is not one of Terrace's", shown(key)));
            }
            State::default()
        });
        Seen { state, unique: Some(item.unique) }
    }

    /// Writes the state if the item is still as it was seen; answers whether it was.
    async fn swap(&self, key: &Bytes, seen: &Seen) -> Result<bool, L2Error> {
        let name = self.name("k", key);
        // What is not needed is written all the same, for a moment: nobody else's write is to be lost.
        let (data, life_s) = match (seen.state.write(key), seen.unique) {
            (Some(written), _) => written,
            (None, None) => return Ok(true),
            (None, Some(_)) => (Vec::new(), 1),
        };
        let swap = Request::Swap { name: &name, unique: seen.unique, life_s, data: &data };
        match self.one(&name, swap).await? {
            Answer::Written => Ok(true),
            Answer::Refused(why) => {
                self.reporter.tell(|| format!("memcached: key {}: {why}", shown(key)));
                Err(L2Error::Refused(why.into()))
            }
            _ => Ok(false),
        }
    }

    async fn numbers(&self) -> Result<Numbers, L2Error> {
        let [generation, epoch] = self.renew(&self.numbers_name(), |_| ()).await?;
        Ok(Numbers { generation, epoch })
    }

    async fn tags(&self, tags: &[Arc<str>]) -> Result<Vec<u64>, L2Error> {
        let asked =
            tags.iter().map(|tag| async { self.renew(&self.name("t", tag.as_bytes()), |_| ()).await });
        join_all(asked).await.into_iter().map(|numbers| numbers.map(|numbers| numbers[0])).collect()
    }

    /// Reads two numbers, made at random if they are not there, and changes them.
    async fn renew(&self, name: &str, change: impl Fn(&mut [u64; 2])) -> Result<[u64; 2], L2Error> {
        for _ in 0..TRIES_MAX {
            let (before, unique) = match self.one(name, Request::Get { name }).await? {
                Answer::Found(item) => (<[u8; 16]>::try_from(&item.data[..]).ok(), Some(item.unique)),
                _ => (None, None),
            };
            let mut numbers = match before {
                Some(bytes) => {
                    let number =
                        |at: usize| bytes[at..at + 8].iter().fold(0, |all, byte| all << 8 | u64::from(*byte));
                    [number(0), number(8)]
                }
                None => [self.number(), self.number()],
            };
            let found = numbers;
            change(&mut numbers);
            if before.is_some() && numbers == found {
                return Ok(numbers);
            }
            let data = [numbers[0].to_be_bytes(), numbers[1].to_be_bytes()].concat();
            match self.one(name, Request::Swap { name, unique, life_s: 0, data: &data }).await? {
                Answer::Written => return Ok(numbers),
                Answer::Refused(why) => return Err(L2Error::Unavailable(why.into())),
                _ => {}
            }
        }
        Err(contended())
    }

    async fn one(&self, name: &str, request: Request<'_>) -> Result<Answer, L2Error> {
        let answers = self.servers[self.server(name)].exchange(&[request]).await.map_err(unavailable)?;
        answers.into_iter().next().ok_or_else(|| L2Error::Refused("no answer".into()))
    }

    /// The server of a name: the one that scores highest with it, so that a server more or less moves only its own share
    /// (rendezvous hashing; Thaler and Ravishankar, 1998).
    fn server(&self, name: &str) -> usize {
        let score = |server: &String| {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(server.as_bytes());
            hasher.update(b" ");
            hasher.update(name.as_bytes());
            scattered(u64::from(hasher.finalize()))
        };
        (0..self.servers.len()).max_by_key(|at| score(&self.options.servers[*at])).unwrap_or(0)
    }

    /// The name of a key or tag, hashed if memcached does not take it.
    fn name(&self, kind: &str, key: &[u8]) -> String {
        let prefix = &self.options.prefix;
        let fits = prefix.len() + kind.len() + 2 + key.len() <= NAME_BYTES_MAX;
        match std::str::from_utf8(key) {
            Ok(key) if fits && !key.is_empty() && key.bytes().all(|b| b.is_ascii_graphic()) => {
                format!("{prefix}:{kind}:{key}")
            }
            _ => {
                let hash: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{prefix}:{kind}#{hash}")
            }
        }
    }

    fn numbers_name(&self) -> String {
        format!("{}:n", self.options.prefix)
    }

    /// A number that no other node is likely to draw; never zero.
    fn number(&self) -> u64 {
        scattered(self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)).max(1)
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, L2Error>>) -> Result<T, L2Error> {
        let limit_ms = self.options.timeout_ms;
        let bounded = tokio::time::timeout(Duration::from_millis(limit_ms), call).await;
        bounded.unwrap_or(Err(L2Error::Timeout(limit_ms)))
    }
}

/// Scatters numbers over all of 64 bits; a bijection (Steele, Lea and Flood, 2014).
fn scattered(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn contended() -> L2Error {
    L2Error::Unavailable("too many change the same key at once".into())
}

fn unavailable(why: String) -> L2Error {
    L2Error::Unavailable(why.into())
}

impl std::fmt::Debug for MemcachedL2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MemcachedL2").field(&self.options.servers).finish()
    }
}

impl L2 for MemcachedL2 {
    fn get(&self, key: Bytes, lease_ms: u64) -> BoxFuture<'_, Result<Found, L2Error>> {
        let lease_ms = lease_ms.min(LIFE_MAX_S * 500);
        Box::pin(self.within(self.get_now(key, lease_ms)))
    }

    fn peek(&self, keys: Vec<Bytes>) -> BoxFuture<'_, Result<Vec<Option<Stored>>, L2Error>> {
        Box::pin(self.within(self.peek_now(keys)))
    }

    fn fill(&self, key: Bytes, token: LeaseToken, stored: Stored) -> BoxFuture<'_, Result<Filled, L2Error>> {
        Box::pin(self.within(self.fill_now(key, token, stored)))
    }

    fn set(&self, key: Bytes, stored: Stored) -> BoxFuture<'_, Result<Filled, L2Error>> {
        Box::pin(self.within(self.set_now(key, stored)))
    }

    fn release(&self, key: Bytes, token: LeaseToken) -> BoxFuture<'_, Result<(), L2Error>> {
        Box::pin(self.within(self.release_now(key, token)))
    }

    fn invalidate(&self, scope: Scope, version: Version) -> BoxFuture<'_, Result<u64, L2Error>> {
        Box::pin(self.within(self.invalidate_now(scope, version)))
    }

    /// memcached tells nothing.
    fn listen(&self, _: Listener) {}
}
