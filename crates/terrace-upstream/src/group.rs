//! A group of peers, its mutable state, and what outcomes of requests do to it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::ketama::{POINTS_MAX, POINTS_PER_WEIGHT, Ring};

/// Where a peer listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP.
    Inet(SocketAddr),
    /// A Unix-domain socket.
    Unix(PathBuf),
}

/// A peer as configured. A `server` whose name resolves to several addresses gives several peers.
#[derive(Clone, Debug)]
pub struct PeerSpec {
    /// Where to connect.
    pub address: Address,
    /// The address as text for logs and variables, such as `10.0.0.1:80`.
    pub name: String,
    /// The first argument of the `server` directive; consistent hashing places peers by it.
    pub server: String,
    /// Default 1; at least 1.
    pub weight: u32,
    /// Failures within `fail_timeout_ms` that take the peer out; 0 never does. Default 1.
    pub max_fails: u32,
    /// Both the window of counting failures and the time the peer stays out. Default 10 s.
    pub fail_timeout_ms: u64,
    /// The most concurrent connections; 0 is no bound. Default 0.
    pub max_conns: u32,
    /// Used only when no primary peer is left. Default no.
    pub backup: bool,
    /// Permanently unavailable, but keeps its place in hashing. Default no.
    pub down: bool,
}

impl PeerSpec {
    /// A peer with nginx's defaults.
    pub fn new(address: Address, server: &str) -> Self {
        let name = match &address {
            Address::Inet(address) => address.to_string(),
            Address::Unix(path) => format!("unix:{}", path.display()),
        };
        Self {
            address,
            name,
            server: server.to_owned(),
            weight: 1,
            max_fails: 1,
            fail_timeout_ms: 10_000,
            max_conns: 0,
            backup: false,
            down: false,
        }
    }
}

/// A balancing method.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Smooth weighted round robin; nginx's default.
    #[default]
    RoundRobin,
    /// `least_conn`.
    LeastConn,
    /// `ip_hash`.
    IpHash,
    /// `hash KEY`.
    Hash,
    /// `hash KEY consistent`.
    ConsistentHash,
    /// `random`.
    Random,
    /// `random two least_conn`.
    RandomTwoLeastConn,
}

/// Why peers make no group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    /// There is no primary peer.
    #[error("no servers in upstream")]
    NoServers,
    /// A weight must be at least 1.
    #[error("weight of server \"{0}\" is zero")]
    ZeroWeight(String),
    /// The weights sum up to more points than [`POINTS_MAX`].
    #[error("weights are too large: {0} points for consistent hashing, at most {POINTS_MAX}")]
    TooManyPoints(u64),
}

/// How a request to a peer ended, as `proxy_next_upstream` sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No failure.
    Ok,
    /// A failure that counts against `max_fails`.
    Failed,
}

/// Names a peer of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerIndex {
    /// Whether it is among the backup peers.
    pub backup: bool,
    /// Position among the primary or the backup peers, in order of configuration.
    pub position: usize,
}

/// A peer with its state.
#[derive(Debug)]
pub struct Peer {
    pub(crate) spec: PeerSpec,
    /// Peers with the same `server` text share a number.
    pub(crate) server_id: u32,
    pub(crate) current_weight: i64,
    pub(crate) effective_weight: i64,
    pub(crate) fails: u32,
    pub(crate) accessed_ms: u64,
    pub(crate) checked_ms: u64,
    pub(crate) conns: u32,
}

impl Peer {
    /// The peer as configured.
    pub fn spec(&self) -> &PeerSpec {
        &self.spec
    }

    /// Failures since the peer was last known to be well.
    pub fn fails(&self) -> u32 {
        self.fails
    }

    /// Selections that were not released yet.
    pub fn conns(&self) -> u32 {
        self.conns
    }

    /// The state of smooth weighted round-robin.
    pub fn current_weight(&self) -> i64 {
        self.current_weight
    }

    /// The weight that counts now; failures lower it for a while.
    pub fn effective_weight(&self) -> i64 {
        self.effective_weight
    }

    /// Whether balancing may choose the peer now.
    pub fn is_available(&self, now_ms: u64) -> bool {
        !self.spec.down && !self.is_failed(now_ms) && !self.is_full()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.spec.max_conns != 0 && self.conns >= self.spec.max_conns
    }

    pub(crate) fn weight(&self) -> i64 {
        i64::from(self.spec.weight)
    }

    fn is_failed(&self, now_ms: u64) -> bool {
        self.spec.max_fails != 0
            && self.fails >= self.spec.max_fails
            && now_ms.saturating_sub(self.checked_ms) <= self.spec.fail_timeout_ms
    }
}

/// The primary or the backup peers.
#[derive(Debug)]
pub(crate) struct PeerSet {
    pub(crate) peers: Vec<Peer>,
    pub(crate) total_weight: u64,
}

impl PeerSet {
    fn new(peers: Vec<Peer>) -> Self {
        let total_weight = peers.iter().map(|peer| u64::from(peer.spec.weight)).sum();
        Self { peers, total_weight }
    }

    /// The position of the peer that owns `value` when each owns a range as long as its weight.
    pub(crate) fn position_by_weight(&self, value: u64) -> usize {
        let mut rest = value % self.total_weight.max(1);
        for (position, peer) in self.peers.iter().enumerate() {
            let weight = u64::from(peer.spec.weight);
            if rest < weight {
                return position;
            }
            rest -= weight;
        }
        0
    }
}

/// A group of peers under one balancing method.
#[derive(Debug)]
pub struct Group {
    pub(crate) method: Method,
    pub(crate) primary: PeerSet,
    pub(crate) backup: PeerSet,
    pub(crate) ring: Ring,
}

impl Group {
    /// Builds a group from its peers in order of configuration.
    ///
    /// # Errors
    /// No primary peer, a weight of 0, or weights too large for consistent hashing.
    pub fn new(method: Method, specs: Vec<PeerSpec>) -> Result<Self, GroupError> {
        let mut servers: Vec<String> = Vec::new();
        let (mut primary, mut backup) = (Vec::new(), Vec::new());
        for spec in specs {
            if spec.weight == 0 {
                return Err(GroupError::ZeroWeight(spec.server));
            }
            let known = servers.iter().position(|server| *server == spec.server);
            let server_id = known.unwrap_or_else(|| {
                servers.push(spec.server.clone());
                servers.len() - 1
            }) as u32;
            let effective_weight = i64::from(spec.weight);
            let set = if spec.backup { &mut backup } else { &mut primary };
            set.push(Peer {
                spec,
                server_id,
                current_weight: 0,
                effective_weight,
                fails: 0,
                accessed_ms: 0,
                checked_ms: 0,
                conns: 0,
            });
        }
        if primary.is_empty() {
            return Err(GroupError::NoServers);
        }
        let (primary, backup) = (PeerSet::new(primary), PeerSet::new(backup));
        let ring = if method == Method::ConsistentHash {
            let points = primary.total_weight.saturating_mul(POINTS_PER_WEIGHT);
            if points > POINTS_MAX {
                return Err(GroupError::TooManyPoints(points));
            }
            Ring::new(&primary.peers)
        } else {
            Ring::default()
        };
        Ok(Self { method, primary, backup, ring })
    }

    /// The method the group was built with.
    pub fn method(&self) -> Method {
        self.method
    }

    /// How many peers a request may be sent to at most: all that are not `down`. A single peer is given again
    /// and again, so the caller counts attempts against this.
    pub fn tries(&self) -> usize {
        if self.is_single() {
            return 1;
        }
        self.primary.peers.iter().chain(&self.backup.peers).filter(|peer| !peer.spec.down).count()
    }

    /// A peer that a [`crate::Selection`] on this group returned; `None` for an index of another group.
    pub fn peer(&self, index: PeerIndex) -> Option<&Peer> {
        self.set(index.backup).peers.get(index.position)
    }

    /// All peers, primaries first.
    pub fn peers(&self) -> impl Iterator<Item = &Peer> {
        self.primary.peers.iter().chain(&self.backup.peers)
    }

    /// Takes a peer out of balancing, or puts it back with its failures forgotten. Returns whether there is such a peer.
    pub fn set_down(&mut self, index: PeerIndex, is_down: bool) -> bool {
        let Some(peer) = self.set_mut(index.backup).peers.get_mut(index.position) else { return false };
        if !is_down {
            peer.fails = 0;
        }
        peer.spec.down = is_down;
        true
    }

    /// Records how a request ended. Returns `true` when the failure took the peer out of balancing, for the
    /// log. A group of a single peer forgets failures, as nothing else could be chosen.
    pub fn report(&mut self, index: PeerIndex, outcome: Outcome, now_ms: u64) -> bool {
        let single = self.is_single();
        let Some(peer) = self.set_mut(index.backup).peers.get_mut(index.position) else { return false };
        if single {
            peer.fails = 0;
            return false;
        }
        match outcome {
            Outcome::Ok => {
                // A success counts only once the peer was tried again after its last failure.
                if peer.accessed_ms < peer.checked_ms {
                    peer.fails = 0;
                }
                false
            }
            Outcome::Failed => {
                peer.fails = peer.fails.saturating_add(1);
                peer.accessed_ms = now_ms;
                peer.checked_ms = now_ms;
                if peer.spec.max_fails == 0 {
                    return false;
                }
                let penalty = peer.weight() / i64::from(peer.spec.max_fails);
                peer.effective_weight = (peer.effective_weight - penalty).max(0);
                peer.fails >= peer.spec.max_fails
            }
        }
    }

    /// Ends a selection's claim on its peer; once for each peer that [`crate::Selection::next`] returned.
    pub fn release(&mut self, index: PeerIndex) {
        if let Some(peer) = self.set_mut(index.backup).peers.get_mut(index.position) {
            debug_assert!(peer.conns > 0, "released more often than selected");
            peer.conns = peer.conns.saturating_sub(1);
        }
    }

    pub(crate) fn is_single(&self) -> bool {
        self.primary.peers.len() == 1 && self.backup.peers.is_empty()
    }

    pub(crate) fn set(&self, backup: bool) -> &PeerSet {
        if backup { &self.backup } else { &self.primary }
    }

    pub(crate) fn set_mut(&mut self, backup: bool) -> &mut PeerSet {
        if backup { &mut self.backup } else { &mut self.primary }
    }
}
