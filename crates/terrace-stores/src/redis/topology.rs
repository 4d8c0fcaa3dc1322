//! Who the servers are: which master has which slots, and who its replicas are. A single server and a master under sentinels are
//! clusters of one shard.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ::redis::{Cmd, Value};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::node::Node;
use super::options::Address;
use super::slot::SLOTS;
use super::trouble::Trouble;

/// Who the servers are, by their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Sorted by the masters' addresses.
    pub(super) shards: Vec<ShardLayout>,
}

/// One shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShardLayout {
    pub(super) master: Address,
    pub(super) replicas: Vec<Address>,
    /// First and last slots.
    pub(super) ranges: Vec<(u16, u16)>,
}

/// A layout with the nodes behind the addresses.
pub(super) struct Topology {
    /// Grows with each layout that is found.
    pub(super) generation: u64,
    pub(super) layout: Layout,
    pub(super) shards: Vec<Shard>,
    /// First slot, last slot and shard, sorted.
    ranges: Vec<(u16, u16, usize)>,
}

/// One shard's nodes.
pub(super) struct Shard {
    pub(super) master: Arc<Node>,
    replicas: Vec<Arc<Node>>,
    next: AtomicUsize,
}

impl Layout {
    /// One master for every slot.
    pub(super) fn one(master: Address, replicas: Vec<Address>) -> Self {
        Self { shards: vec![ShardLayout { master, replicas, ranges: vec![(0, SLOTS - 1)] }] }
    }

    /// Whether a master of `self` is no master in `next`.
    pub(super) fn lost_master(&self, next: &Self) -> bool {
        let masters: HashSet<&Address> = next.shards.iter().map(|shard| &shard.master).collect();
        self.shards.iter().any(|shard| !masters.contains(&shard.master))
    }

    fn covered(&self) -> usize {
        self.shards
            .iter()
            .flat_map(|shard| &shard.ranges)
            .map(|(first, last)| usize::from(last - first) + 1)
            .sum()
    }
}

impl Topology {
    pub(super) fn new(
        generation: u64,
        layout: Layout,
        mut node: impl FnMut(&Address, bool) -> Arc<Node>,
    ) -> Self {
        let mut ranges = Vec::new();
        let mut shards = Vec::with_capacity(layout.shards.len());
        for (at, shard) in layout.shards.iter().enumerate() {
            ranges.extend(shard.ranges.iter().map(|(first, last)| (*first, *last, at)));
            let replicas = shard.replicas.iter().map(|address| node(address, true)).collect();
            shards.push(Shard { master: node(&shard.master, false), replicas, next: AtomicUsize::new(0) });
        }
        ranges.sort_unstable();
        Self { generation, layout, shards, ranges }
    }

    /// The shard that has a slot; none if nobody has it.
    pub(super) fn shard(&self, slot: u16) -> Option<&Shard> {
        Some(&self.shards[self.shard_at(slot)?])
    }

    /// The place among the shards of the one that has a slot.
    pub(super) fn shard_at(&self, slot: u16) -> Option<usize> {
        let at = self.ranges.partition_point(|(first, _, _)| *first <= slot).checked_sub(1)?;
        let (_, last, shard) = self.ranges[at];
        (slot <= last).then_some(shard)
    }
}

impl Shard {
    /// One of the replicas, in turn.
    pub(super) fn replica(&self) -> Option<&Arc<Node>> {
        let at = self.next.fetch_add(1, Ordering::Relaxed);
        self.replicas.get(at.checked_rem(self.replicas.len())?)
    }
}

/// Asks the nodes of a cluster at once; the first answer that has every slot wins, else the one that has most.
pub(super) async fn of_cluster(nodes: &[Arc<Node>], deadline: Instant) -> Result<Layout, Trouble> {
    let mut asked: FuturesUnordered<_> = nodes
        .iter()
        .map(|node| async move {
            let mut command = Cmd::new();
            command.arg("CLUSTER").arg("SLOTS");
            let value = node.ask(command, deadline).await?;
            parse_slots(value, &node.address.host).ok_or_else(|| {
                Trouble::Refused(format!("{}: its answer to CLUSTER SLOTS cannot be read", node.address))
            })
        })
        .collect();
    let (mut best, mut trouble) =
        (Layout::default(), Trouble::NotNow("no node of the cluster knows a slot".to_owned()));
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(layout) if layout.covered() == usize::from(SLOTS) => return Ok(layout),
            Ok(layout) if layout.covered() > best.covered() => best = layout,
            Ok(_) => {}
            Err(why) => trouble = why,
        }
    }
    if best.shards.is_empty() { Err(trouble) } else { Ok(best) }
}

/// Asks the sentinels at once for the master of `name`; the first answer wins whose master says that it is one.
pub(super) async fn of_sentinels(
    sentinels: &[Arc<Node>],
    name: &str,
    node: impl Fn(&Address) -> Arc<Node>,
    deadline: Instant,
) -> Result<Layout, Trouble> {
    let mut asked: FuturesUnordered<_> = sentinels
        .iter()
        .map(|sentinel| async {
            let master = sentinel.ask(sentinel_command("GET-MASTER-ADDR-BY-NAME", name), deadline).await?;
            let master = parse_address(&master)
                .ok_or_else(|| Trouble::NotNow(format!("{}: no master \"{name}\"", sentinel.address)))?;
            let mut role = Cmd::new();
            role.arg("ROLE");
            let role = node(&master).ask(role, deadline).await?;
            if !matches!(&role, Value::Array(items) if items.first().and_then(text) == Some("master")) {
                return Err(Trouble::NotNow(format!("{master} is not a master")));
            }
            let replicas = sentinel.ask(sentinel_command("REPLICAS", name), deadline).await?;
            Ok(Layout::one(master, parse_replicas(&replicas)))
        })
        .collect();
    let mut trouble = Trouble::NotNow("no sentinel answers".to_owned());
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(layout) => return Ok(layout),
            Err(why) => trouble = why,
        }
    }
    Err(trouble)
}

fn sentinel_command(what: &str, name: &str) -> Cmd {
    let mut command = Cmd::new();
    command.arg("SENTINEL").arg(what).arg(name);
    command
}

/// The answer to CLUSTER SLOTS: for each range its first and last slot, its master and its replicas.
fn parse_slots(value: Value, asked: &str) -> Option<Layout> {
    let Value::Array(entries) = value else { return None };
    let mut shards: Vec<ShardLayout> = Vec::new();
    for entry in entries {
        let Value::Array(items) = entry else { return None };
        let [Value::Int(first), Value::Int(last), nodes @ ..] = &items[..] else { return None };
        let (first, last) = (u16::try_from(*first).ok()?, u16::try_from(*last).ok()?);
        if first > last || last >= SLOTS {
            return None;
        }
        let mut addresses = nodes.iter().map(|node| node_address(node, asked));
        let master = addresses.next()??;
        let mut replicas: Vec<Address> = addresses.flatten().collect();
        replicas.sort_unstable();
        match shards.iter_mut().find(|shard| shard.master == master) {
            Some(shard) => shard.ranges.push((first, last)),
            None => shards.push(ShardLayout { master, replicas, ranges: vec![(first, last)] }),
        }
    }
    for shard in &mut shards {
        shard.ranges.sort_unstable();
    }
    shards.sort_unstable();
    Some(Layout { shards })
}

/// Host, port and more; no host means the one that was asked.
fn node_address(node: &Value, asked: &str) -> Option<Address> {
    let Value::Array(items) = node else { return None };
    let host = items.first().and_then(text).filter(|host| !host.is_empty() && *host != "?").unwrap_or(asked);
    let Some(Value::Int(port)) = items.get(1) else { return None };
    Some(Address::new(host, u16::try_from(*port).ok()?))
}

/// Host and port as two texts.
fn parse_address(value: &Value) -> Option<Address> {
    let Value::Array(items) = value else { return None };
    Some(Address::new(items.first().and_then(text)?, items.get(1).and_then(text)?.parse().ok()?))
}

/// The answer to SENTINEL REPLICAS: names and values in turn for each; those that are away are left out.
fn parse_replicas(value: &Value) -> Vec<Address> {
    let Value::Array(replicas) = value else { return Vec::new() };
    let mut found: Vec<Address> = replicas
        .iter()
        .filter_map(|replica| {
            let Value::Array(items) = replica else { return None };
            let field = |name: &str| {
                let pair = items.chunks_exact(2).find(|pair| text(&pair[0]) == Some(name))?;
                text(&pair[1])
            };
            if ["down", "disconnected"]
                .iter()
                .any(|flag| field("flags").is_some_and(|flags| flags.contains(flag)))
            {
                return None;
            }
            Some(Address::new(field("ip")?, field("port")?.parse().ok()?))
        })
        .collect();
    found.sort_unstable();
    found
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}
