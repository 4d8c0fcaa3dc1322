//! Names to addresses, through name servers or through the system, for one thread.
//!
//! A name is asked for once, however many wait for it; its addresses are remembered for as long as they are good. What
//! is remembered costs a lookup in a table. That there is no such name is not remembered.

mod addresses;
mod exchange;
mod message;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use terrace_base::clock;
use terrace_base::log::{ErrorLog, Level};
use tokio::sync::Notify;

pub use addresses::Addresses;
pub use message::{Kind, Malformed, Query, Reply};

use exchange::{Answer, Exchange};
use message::name_of;

/// How many names are remembered.
const NAMES_MAX: usize = 4096;
/// How many names may be asked for at the same time.
const FLIGHTS_MAX: usize = 1024;
/// How many aliases are followed that a server does not follow itself.
const ALIASES_MAX: usize = 16;
/// How long what the system says is remembered.
const SYSTEM_VALID_MS: u64 = 5000;
/// How long a server that did not answer is asked only after the others.
const REST_MS: u64 = 10_000;

/// The server failed (RFC 1035's SERVFAIL).
const FAILURE: u8 = 2;
/// There is no such name, or it has no address (NXDOMAIN).
const NOT_FOUND: u8 = 3;

/// Which name servers are asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverConf {
    /// The servers, at least one.
    pub servers: Vec<SocketAddr>,
    /// How long addresses are good, in seconds; without it, as long as the server says.
    pub valid_secs: Option<u64>,
    /// Whether addresses of IPv4 are asked for.
    pub ipv4: bool,
    /// Whether those of IPv6 are. One of both must be.
    pub ipv6: bool,
    /// How long a server may take before the next one is asked.
    pub patience_ms: u64,
}

impl ResolverConf {
    /// nginx's `resend_timeout`.
    pub const PATIENCE_MS: u64 = 5000;

    /// These servers, and else nginx's defaults.
    pub fn new(servers: Vec<SocketAddr>) -> ResolverConf {
        ResolverConf { servers, valid_secs: None, ipv4: true, ipv6: true, patience_ms: Self::PATIENCE_MS }
    }
}

/// Why a name has no address, printed as nginx prints it: `(3: Host not found)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolveError {
    /// A code of RFC 1035 that is not 0.
    Code(u8),
    /// Nobody answered in time.
    Timeout,
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, text) = match self {
            ResolveError::Code(1) => (1, "Format error"),
            ResolveError::Code(FAILURE) => (FAILURE, "Server failure"),
            ResolveError::Code(NOT_FOUND) => (NOT_FOUND, "Host not found"),
            ResolveError::Code(4) => (4, "Unimplemented"),
            ResolveError::Code(5) => (5, "Operation refused"),
            ResolveError::Code(n) => (*n, "Unknown error"),
            ResolveError::Timeout => (110, "Operation timed out"),
        };
        write!(f, "({number}: {text})")
    }
}

impl std::error::Error for ResolveError {}

type Outcome = Result<Rc<Addresses>, ResolveError>;

/// Resolves names for one thread.
pub struct Resolver {
    /// Without it the system is asked.
    conf: Option<Arc<ResolverConf>>,
    log: Arc<ErrorLog>,
    /// Names that scripts and clients choose: hashed with a key.
    known: RefCell<HashMap<Box<str>, Known>>,
    flights: RefCell<HashMap<Box<str>, Rc<Flight>>>,
    /// Whose turn it is among the servers.
    turn: Cell<usize>,
    /// Until when each server is asked after the others.
    resting: Vec<Cell<u64>>,
    seed: RandomState,
    drawn: Cell<u64>,
}

/// A remembered name.
struct Known {
    addresses: Rc<Addresses>,
    until_ms: u64,
}

/// A name being asked for.
#[derive(Default)]
struct Flight {
    outcome: OnceCell<Outcome>,
    ended: Notify,
    waiting: Cell<usize>,
}

impl Resolver {
    /// Asks the servers of `conf`, or the system where there is none. What is wrong with servers goes to `log`.
    pub fn new(conf: Option<Arc<ResolverConf>>, log: Arc<ErrorLog>) -> Rc<Resolver> {
        let servers = conf.as_ref().map_or(0, |c| c.servers.len());
        Rc::new(Resolver {
            conf,
            log,
            known: RefCell::default(),
            flights: RefCell::default(),
            turn: Cell::new(0),
            resting: (0..servers).map(|_| Cell::new(0)).collect(),
            seed: RandomState::new(),
            drawn: Cell::new(0),
        })
    }

    /// The addresses of a name, if they are known and still good.
    pub fn known(&self, host: &str) -> Option<Rc<Addresses>> {
        self.known_name(&self.name_of(host)?)
    }

    /// What a host is asked for and remembered as. To the system a dot at the end says something.
    fn name_of<'a>(&self, host: &'a str) -> Option<Cow<'a, str>> {
        if self.conf.is_some() { name_of(host) } else { Some(host.into()) }
    }

    fn known_name(&self, name: &str) -> Option<Rc<Addresses>> {
        let known = self.known.borrow();
        let found = known.get(name).filter(|k| clock::monotonic_ms() < k.until_ms)?;
        Some(Rc::clone(&found.addresses))
    }

    /// The addresses of a name, which may take up to `timeout_ms`. Runs on an event loop; without servers of its own the
    /// resolver also needs a runtime of tokio entered, for the system's call blocks.
    ///
    /// # Errors
    /// When it has none, or nobody says.
    pub async fn resolve(self: &Rc<Self>, host: &str, timeout_ms: u64) -> Outcome {
        let name = self.name_of(host).ok_or(ResolveError::Code(NOT_FOUND))?;
        if let Some(known) = self.known_name(&name) {
            return Ok(known);
        }
        let flight = self.flight(&name)?;
        let waited = terrace_event::timeout(Duration::from_millis(timeout_ms), flight.wait()).await;
        waited.unwrap_or(Err(ResolveError::Timeout))
    }

    /// The flight that asks for a name, begun where there is none.
    fn flight(self: &Rc<Self>, name: &str) -> Result<Rc<Flight>, ResolveError> {
        let mut flights = self.flights.borrow_mut();
        if let Some(flight) = flights.get(name) {
            return Ok(Rc::clone(flight));
        }
        if flights.len() >= FLIGHTS_MAX {
            let text = format_args!("{FLIGHTS_MAX} names are being resolved, which is the most");
            self.log.print(Level::Alert, None, text);
            return Err(ResolveError::Code(FAILURE));
        }
        let flight = Rc::<Flight>::default();
        flights.insert(name.into(), Rc::clone(&flight));
        let (resolver, name, begun) = (Rc::clone(self), Box::<str>::from(name), Rc::clone(&flight));
        terrace_event::spawn(async move {
            let outcome = resolver.ask(&name, &begun).await;
            resolver.flights.borrow_mut().remove(&name);
            // Nobody else sets it.
            let _ = begun.outcome.set(outcome.map(|found| resolver.remember(name, found)));
            begun.ended.notify_waiters();
        });
        Ok(flight)
    }

    fn remember(&self, name: Box<str>, (addresses, until_ms): (Addresses, u64)) -> Rc<Addresses> {
        let addresses = Rc::new(addresses);
        let mut known = self.known.borrow_mut();
        if known.len() >= NAMES_MAX {
            let now_ms = clock::monotonic_ms();
            known.retain(|_, k| now_ms < k.until_ms);
            // Where that made little room, any others go, so that this is rare.
            let mut excess = known.len().saturating_sub(NAMES_MAX - NAMES_MAX / 4);
            known.retain(|_, _| {
                let stays = excess == 0;
                excess = excess.saturating_sub(1);
                stays
            });
        }
        known.insert(name, Known { addresses: Rc::clone(&addresses), until_ms });
        addresses
    }

    /// Addresses, and until when they are good.
    async fn ask(&self, name: &str, flight: &Flight) -> Result<(Addresses, u64), ResolveError> {
        let (found, until_ms) = match &self.conf {
            Some(conf) => {
                let (found, ttl_secs) = self.ask_servers(conf, name, flight).await?;
                let valid_secs = conf.valid_secs.unwrap_or(ttl_secs.into());
                // As in nginx, through the second in which they cease to be.
                let until_secs = (clock::monotonic_ms() / 1000).saturating_add(valid_secs).saturating_add(1);
                (found, until_secs.saturating_mul(1000))
            }
            None => {
                let found = tokio::net::lookup_host((name, 0)).await.map_err(|e| of_system(&e))?;
                (found.map(|a| a.ip()).collect(), clock::monotonic_ms() + SYSTEM_VALID_MS)
            }
        };
        let addresses = Addresses::new(found, self.random() as usize);
        addresses.map(|a| (a, until_ms)).ok_or(ResolveError::Code(NOT_FOUND))
    }

    /// Follows aliases to addresses, which are good for the shortest of all times.
    async fn ask_servers(
        &self,
        conf: &ResolverConf,
        name: &str,
        flight: &Flight,
    ) -> Result<(Vec<IpAddr>, u32), ResolveError> {
        let mut name = Cow::Borrowed(name);
        let mut ttl_secs = u32::MAX;
        for _ in 0..=ALIASES_MAX {
            match self.ask_in_turn(conf, &name, flight).await? {
                Answer::Addresses(found, ttl) => return Ok((found, ttl_secs.min(ttl))),
                Answer::Failed(code) => return Err(ResolveError::Code(code)),
                Answer::Alias(alias, ttl) => {
                    ttl_secs = ttl_secs.min(ttl);
                    name = alias.into();
                }
            }
        }
        Err(ResolveError::Code(NOT_FOUND))
    }

    /// Asks one server after the other, again and again while somebody waits, until one says something about the name.
    /// When all that answer fail, the first one's code is the answer.
    async fn ask_in_turn(
        &self,
        conf: &ResolverConf,
        name: &str,
        flight: &Flight,
    ) -> Result<Answer, ResolveError> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let mut failed = None;
        loop {
            let round_end = Instant::now() + Duration::from_millis(conf.patience_ms);
            for index in self.order(turn) {
                let (server, log) = (conf.servers[index], &*self.log);
                let exchange = Exchange { server, name, log, patience_ms: conf.patience_ms };
                match exchange.run(&self.kinds(conf)).await {
                    Ok(Answer::Failed(code)) if code != NOT_FOUND => failed = failed.or(Some(code)),
                    Ok(answer) => {
                        self.resting[index].set(0);
                        return Ok(answer);
                    }
                    Err(trouble) => {
                        exchange.complain(Level::Error, &trouble);
                        self.resting[index].set(clock::monotonic_ms() + REST_MS);
                    }
                }
                if flight.waiting.get() == 0 {
                    return Err(ResolveError::Timeout);
                }
            }
            if let Some(code) = failed {
                return Ok(Answer::Failed(code));
            }
            terrace_event::sleep_until(round_end).await;
        }
    }

    /// The servers, beginning with the one whose turn it is; those that rest come last.
    fn order(&self, turn: usize) -> Vec<usize> {
        let count = self.resting.len();
        let mut order: Vec<usize> = (0..count).map(|i| turn.wrapping_add(i) % count).collect();
        let now_ms = clock::monotonic_ms();
        order.sort_by_key(|i| now_ms < self.resting[*i].get());
        order
    }

    /// What to ask for, with numbers that cannot be guessed and differ.
    fn kinds(&self, conf: &ResolverConf) -> Vec<(Kind, u16)> {
        let id = self.random() as u16;
        let other = id ^ (self.random() as u16 | 1);
        let kinds = [(Kind::A, id, conf.ipv4), (Kind::Aaaa, other, conf.ipv6)];
        kinds.into_iter().filter(|k| k.2).map(|(kind, id, _)| (kind, id)).collect()
    }

    /// Bits that nobody else can foresee: a keyed hash of a counter.
    fn random(&self) -> u64 {
        self.drawn.set(self.drawn.get().wrapping_add(1));
        self.seed.hash_one(self.drawn.get())
    }
}

/// The system tells by its text only whether a retry may help.
fn of_system(error: &io::Error) -> ResolveError {
    let is_passing = error.to_string().contains("Temporary failure");
    ResolveError::Code(if is_passing { FAILURE } else { NOT_FOUND })
}

impl Flight {
    async fn wait(&self) -> Outcome {
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let ended = self.ended.notified();
            if let Some(outcome) = self.outcome.get() {
                return outcome.clone();
            }
            ended.await;
        }
    }
}

/// Counts while it lives.
struct Waiting<'a>(&'a Cell<usize>);

impl Waiting<'_> {
    fn new(count: &Cell<usize>) -> Waiting<'_> {
        count.set(count.get() + 1);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
