//! Brings commands to the server that has their key, and follows the key when it moves or its server fails.
//!
//! One code for a single server, a master under sentinels, and a cluster. A shard that is away holds nobody up but those who ask for
//! its keys, and those no longer than their deadline; once it has been away for [`PATIENCE`] deadlines, not even so long.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::redis::{Cmd, Pipeline, Value};
use parking_lot::{Mutex, RwLock};
use terrace_cache::L2Error;
use tokio::sync::watch;
use tokio::time::Instant;

use super::node::{Node, Use};
use super::options::{Address, RedisMode, RedisOptions};
use super::scripts::{Arg, Script};
use super::slot::slot_of;
use super::topology::{Layout, Topology, of_cluster, of_sentinels};
use super::trouble::Trouble;
use crate::report::Reporter;

/// How long after it was asked for the topology is not asked for again.
const REFRESH_AFTER: Duration = Duration::from_millis(30);

/// How long a call waits before it tries again; twice as long each time up to the second.
const WAIT: Duration = Duration::from_millis(5);
const WAIT_MAX: Duration = Duration::from_millis(100);

/// How many redirections a call follows without a wait.
const HOPS_MAX: u32 = 5;

/// For how many times a call's timeout calls try again when their server has been away; after that each tries once.
const PATIENCE: u32 = 2;

/// See the module.
pub(super) struct Router {
    options: Arc<RedisOptions>,
    reporter: Arc<Reporter>,
    nodes: Mutex<HashMap<(Address, Use), Arc<Node>>>,
    topology: RwLock<Option<Arc<Topology>>>,
    /// When the topology was last asked for.
    asked: tokio::sync::Mutex<Option<Instant>>,
    failovers: watch::Sender<u64>,
    pub(super) retries: AtomicU64,
    pub(super) redirections: AtomicU64,
}

/// Where the next attempt goes.
struct Target {
    node: Arc<Node>,
    asking: bool,
}

impl Router {
    pub(super) fn new(options: Arc<RedisOptions>, reporter: Arc<Reporter>) -> Self {
        Self {
            options,
            reporter,
            nodes: Mutex::default(),
            topology: RwLock::default(),
            asked: tokio::sync::Mutex::default(),
            failovers: watch::Sender::new(0),
            retries: AtomicU64::new(0),
            redirections: AtomicU64::new(0),
        }
    }

    /// Told each time a master is found to have lost its place.
    pub(super) fn failovers(&self) -> watch::Receiver<u64> {
        self.failovers.subscribe()
    }

    /// Runs a script on its key, on the key's master.
    pub(super) async fn script(
        self: &Arc<Self>,
        script: &Script,
        key: &[u8],
        args: &[Arg<'_>],
        deadline: Instant,
    ) -> Result<Value, L2Error> {
        self.call(slot_of(key), |whole| script.call(whole, key, args), deadline).await
    }

    /// Sends a command to the master of a slot until it is answered or the deadline has come. `command` is told whether a script is
    /// to be sent whole. The command may be carried out more than once.
    pub(super) async fn call(
        self: &Arc<Self>,
        slot: u16,
        command: impl Fn(bool) -> Cmd,
        deadline: Instant,
    ) -> Result<Value, L2Error> {
        let (mut next, mut whole, mut hops, mut wait) = (None, false, 0, WAIT);
        loop {
            let (generation, attempt) = match self.target(slot, next.take(), deadline).await {
                Err((generation, trouble)) => (generation, Err((None, trouble))),
                Ok((generation, target)) => {
                    let mut commands = Pipeline::with_capacity(2);
                    if target.asking {
                        commands.add_command(::redis::cmd("ASKING"));
                    }
                    commands.add_command(command(whole));
                    let answer = target.node.send(&commands, deadline).await;
                    let answer =
                        answer.and_then(|mut all| target.node.checked(all.pop().unwrap_or_default()));
                    (generation, answer.map_err(|trouble| (Some(target), trouble)))
                }
            };
            let (target, trouble) = match attempt {
                Ok(value) => return Ok(value),
                Err(failed) => failed,
            };
            let redirected = match &trouble {
                Trouble::Refused(_) => return Err(self.error(&trouble)),
                Trouble::Timeout => {
                    self.refresh_soon(generation);
                    return Err(self.error(&trouble));
                }
                Trouble::NoScript if !whole => {
                    (whole, next) = (true, target);
                    continue;
                }
                Trouble::Moved(to) => {
                    drop(self.refresh(generation, deadline).await);
                    Some(Target { node: self.node(to, Use::Master), asking: false })
                }
                Trouble::Ask(to) => Some(Target { node: self.node(to, Use::Master), asking: true }),
                Trouble::NoScript | Trouble::NotNow(_) | Trouble::Lost(_) => {
                    drop(self.refresh(generation, deadline).await);
                    None
                }
            };
            if let Some(redirected) = redirected
                && hops < HOPS_MAX
            {
                hops += 1;
                self.redirections.fetch_add(1, Ordering::Relaxed);
                next = Some(redirected);
                continue;
            }
            if Instant::now() + wait >= deadline || self.is_hopeless(slot, &target, &trouble) {
                return Err(self.error(&trouble));
            }
            self.retries.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
        }
    }

    /// What a trouble is called outside.
    pub(super) fn error(&self, trouble: &Trouble) -> L2Error {
        match trouble {
            Trouble::Timeout => L2Error::Timeout(self.options.timeout_ms),
            Trouble::Refused(why) => L2Error::Refused(why.as_str().into()),
            other => L2Error::Unavailable(other.to_string().into()),
        }
    }

    /// The topology as it is known; asks for it if it is not.
    pub(super) async fn topology(&self, deadline: Instant) -> Result<Arc<Topology>, Trouble> {
        if let Some(topology) = self.known() {
            return Ok(topology);
        }
        self.refresh(0, deadline).await
    }

    /// The topology as it is known.
    pub(super) fn known(&self) -> Option<Arc<Topology>> {
        self.topology.read().clone()
    }

    /// Asks for the topology, unless there is a newer one than `seen` or somebody has just asked.
    pub(super) async fn refresh(&self, seen: u64, deadline: Instant) -> Result<Arc<Topology>, Trouble> {
        let locked = tokio::time::timeout_at(deadline, self.asked.lock()).await;
        let mut asked = locked.map_err(|_| Trouble::Timeout)?;
        if let Some(known) = self.known() {
            let recently = asked.is_some_and(|at| at.elapsed() < REFRESH_AFTER);
            if known.generation > seen || recently || self.options.mode == RedisMode::Single {
                return Ok(known);
            }
        }
        let found = self.discover(deadline).await;
        *asked = Some(Instant::now());
        Ok(self.install(found?))
    }

    /// Asks for the topology on a task of its own.
    pub(super) fn refresh_soon(self: &Arc<Self>, seen: u64) {
        if self.asked.try_lock().is_err() {
            return;
        }
        let router = self.clone();
        let deadline = self.deadline();
        tokio::spawn(async move { router.refresh(seen, deadline).await.map(drop) });
    }

    /// When a call that begins now must end.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_millis(self.options.timeout_ms)
    }

    async fn target(
        &self,
        slot: u16,
        redirected: Option<Target>,
        deadline: Instant,
    ) -> Result<(u64, Target), (u64, Trouble)> {
        let topology = self.topology(deadline).await.map_err(|trouble| (0, trouble))?;
        let generation = topology.generation;
        if let Some(target) = redirected {
            return Ok((generation, target));
        }
        match topology.shard(slot) {
            Some(shard) => Ok((generation, Target { node: shard.master.clone(), asking: false })),
            None => Err((generation, Trouble::NotNow(format!("nobody has the slot {slot}")))),
        }
    }

    /// Whether the slot's server has been away for long and is still the one to ask.
    fn is_hopeless(&self, slot: u16, target: &Option<Target>, trouble: &Trouble) -> bool {
        let (Some(target), Trouble::Lost(_)) = (target, trouble) else { return false };
        let patience = Duration::from_millis(self.options.timeout_ms) * PATIENCE;
        let known = self.known();
        let master = known.as_ref().and_then(|topology| topology.shard(slot)).map(|shard| &shard.master);
        target.node.away_for() > patience && master.is_some_and(|master| Arc::ptr_eq(master, &target.node))
    }

    async fn discover(&self, deadline: Instant) -> Result<Layout, Trouble> {
        match &self.options.mode {
            RedisMode::Single => Ok(Layout::one(self.options.addresses[0].clone(), Vec::new())),
            RedisMode::Sentinel { master } => {
                let sentinels: Vec<_> =
                    self.options.addresses.iter().map(|address| self.node(address, Use::Sentinel)).collect();
                of_sentinels(&sentinels, master, |address| self.node(address, Use::Master), deadline).await
            }
            RedisMode::Cluster => {
                let mut addresses = self.options.addresses.clone();
                if let Some(known) = self.known() {
                    for shard in &known.layout.shards {
                        addresses.push(shard.master.clone());
                        addresses.extend_from_slice(&shard.replicas);
                    }
                }
                addresses.sort_unstable();
                addresses.dedup();
                let nodes: Vec<_> = addresses.iter().map(|address| self.node(address, Use::Master)).collect();
                of_cluster(&nodes, deadline).await
            }
        }
    }

    fn install(&self, layout: Layout) -> Arc<Topology> {
        let before = self.known();
        if let Some(before) = &before
            && before.layout == layout
        {
            return before.clone();
        }
        let generation = before.as_ref().map_or(1, |before| before.generation + 1);
        let lost = before.as_ref().is_some_and(|before| before.layout.lost_master(&layout));
        let topology = Arc::new(Topology::new(generation, layout, |address, replica| {
            self.node(address, if replica { Use::Replica } else { Use::Master })
        }));
        *self.topology.write() = Some(topology.clone());
        self.forget_nodes(&topology.layout);
        if lost {
            self.reporter.tell(|| {
                let masters: Vec<_> =
                    topology.layout.shards.iter().map(|shard| shard.master.to_string()).collect();
                format!("redis: failover, the masters are now {}", masters.join(", "))
            });
            self.failovers.send_modify(|count| *count += 1);
        }
        topology
    }

    /// The node of an address and use.
    pub(super) fn node(&self, address: &Address, used_as: Use) -> Arc<Node> {
        let mut nodes = self.nodes.lock();
        let make = || Arc::new(Node::new(address.clone(), used_as, self.options.clone()));
        nodes.entry((address.clone(), used_as)).or_insert_with(make).clone()
    }

    /// Forgets the nodes that are in neither the layout nor the options, and with them their connections.
    fn forget_nodes(&self, layout: &Layout) {
        let mut known: Vec<&Address> = self.options.addresses.iter().collect();
        for shard in &layout.shards {
            known.push(&shard.master);
            known.extend(&shard.replicas);
        }
        self.nodes.lock().retain(|(address, _), _| known.contains(&address));
    }
}
