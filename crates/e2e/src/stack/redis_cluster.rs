//! A Redis Cluster of three masters and three replicas.

use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;

use super::redis::field;
use super::resp::{Reply, RespClient};
use super::{Home, Redis};
use crate::wait_for;

/// Masters at the start; each has one replica.
const MASTERS: usize = 3;

/// Slots of a cluster.
const SLOTS: u16 = 16384;

/// What a node says of the cluster, one entry a node.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: String,
    port: u16,
    /// `None` for a master.
    master_id: Option<String>,
    slots: Vec<(u16, u16)>,
}

/// A cluster. Nodes have indices 0 to 5, for good; who is a master changes.
pub struct RedisCluster {
    /// The nodes: the masters of the start, then their replicas in the same order.
    pub nodes: Vec<Redis>,
}

impl RedisCluster {
    /// One for all tests of this process that only use it and break nothing.
    pub fn shared() -> &'static RedisCluster {
        static SHARED: OnceLock<RedisCluster> = OnceLock::new();
        SHARED.get_or_init(RedisCluster::start)
    }

    /// Starts one and waits until all nodes agree on all slots and all replicas follow their masters.
    pub fn start() -> RedisCluster {
        RedisCluster::start_in(|n| Home::temporary(&format!("redis-cluster-{}", n + 1)))
    }

    /// As [`RedisCluster::start`] with a home for each node; the ports are the node's and its cluster bus'.
    pub fn start_in(mut home: impl FnMut(usize) -> Home) -> RedisCluster {
        let (nodes, buses): (Vec<_>, Vec<_>) = (0..2 * MASTERS).map(|n| start_node(home(n))).unzip();
        let cluster = RedisCluster { nodes };
        let ids: Vec<_> = cluster.nodes.iter().map(|n| n.call(&["CLUSTER", "MYID"]).text()).collect();
        for (n, node) in cluster.nodes.iter().enumerate() {
            node.call(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
            if n < MASTERS {
                let bound = |i: usize| i * usize::from(SLOTS) / MASTERS;
                let (first, last) = (bound(n).to_string(), (bound(n + 1) - 1).to_string());
                node.call(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            }
            for (other, bus) in cluster.nodes.iter().zip(&buses).take(n) {
                node.call(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string(), &bus.to_string()]);
            }
        }
        for n in MASTERS..2 * MASTERS {
            let (replica, master) = (&cluster.nodes[n], &ids[n - MASTERS]);
            wait_for("the nodes know each other", || replica.view().ok().filter(|v| v.len() == 2 * MASTERS));
            wait_for("a replica accepts its master", || {
                let reply = replica.connect().call(&["CLUSTER", "REPLICATE", master]).ok()?;
                (reply == Reply::Status("OK".into())).then_some(())
            });
        }
        cluster.wait_until_ok();
        cluster
    }

    /// The addresses of all nodes.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(Redis::address).collect()
    }

    /// The node that a key's slot is served by, as the nodes that run see it. Panics while they disagree for long.
    pub fn master_of(&self, key: &str) -> usize {
        let slot = slot(key.as_bytes());
        wait_for("a master serves the slot", || {
            let view = self.any_view()?;
            let serves = |e: &Entry| e.slots.iter().any(|(a, b)| (*a..=*b).contains(&slot));
            self.index_of(view.iter().find(|e| e.master_id.is_none() && serves(e))?)
        })
    }

    /// The replicas of a node.
    pub fn replicas_of(&self, master: usize) -> Vec<usize> {
        let view = self.any_view().expect("a node runs");
        let id = view.iter().find(|e| self.index_of(e) == Some(master)).map(|e| e.id.clone());
        view.iter()
            .filter(|e| e.master_id.is_some() && e.master_id == id)
            .filter_map(|e| self.index_of(e))
            .collect()
    }

    /// Kills the master of a key's slot; its index.
    pub fn kill_master_of(&self, key: &str) -> usize {
        let master = self.master_of(key);
        self.nodes[master].process.kill();
        master
    }

    /// Waits until another node has taken the slots of `lost`, and all that run agree.
    pub fn wait_for_failover(&self, lost: usize) {
        wait_for("a replica takes over", || {
            let view = self.any_view()?;
            let entry = view.iter().find(|e| self.index_of(e) == Some(lost))?;
            entry.slots.is_empty().then_some(())
        });
        self.wait_until_ok();
    }

    /// Waits until all nodes that run find the cluster well and see the same, and replicas follow their masters.
    pub fn wait_until_ok(&self) {
        wait_for("the cluster is well", || self.is_ok().unwrap_or(false).then_some(()));
    }

    /// Starts a node anew on its port, as a replica of whoever took its place, and waits until all is well.
    pub fn restart(&self, node: usize) {
        self.nodes[node].process.restart();
        self.wait_until_ok();
    }

    /// Pauses all nodes: connections stay open, nothing answers.
    pub fn pause_all(&self) {
        self.nodes.iter().for_each(|n| n.process.pause());
    }

    /// Lets all nodes go on and waits until all is well.
    pub fn resume_all(&self) {
        self.nodes.iter().for_each(|n| n.process.resume());
        self.wait_until_ok();
    }

    /// Kills all nodes. The values are lost.
    pub fn kill_all(&self) {
        self.nodes.iter().for_each(|n| n.process.kill());
    }

    /// Starts all nodes that do not run and waits until all is well.
    pub fn start_all(&self) {
        self.nodes.iter().for_each(|n| n.process.launch());
        self.nodes.iter().for_each(|n| n.process.wait_until_ready());
        self.wait_until_ok();
    }

    /// Begins to move a key's slot to another master: until the move ends, the old master answers ASK for what it
    /// does not have.
    pub fn begin_move(&self, key: &str, to: usize) {
        let (from, slot) = (self.master_of(key), slot(key.as_bytes()).to_string());
        let id = |n: usize| self.nodes[n].call(&["CLUSTER", "MYID"]).text();
        self.nodes[to].call(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &id(from)]);
        self.nodes[from].call(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &id(to)]);
    }

    /// Ends a move: what the slot holds goes along, and the old master answers MOVED from now on.
    pub fn finish_move(&self, key: &str, to: usize) {
        let (from, slot) = (self.master_of(key), slot(key.as_bytes()).to_string());
        let port = self.nodes[to].port.to_string();
        while let Reply::Array(keys) = self.nodes[from].call(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"])
            && !keys.is_empty()
        {
            for key in keys {
                self.nodes[from].call(&["MIGRATE", "127.0.0.1", &port, &key.text(), "0", "5000"]);
            }
        }
        let id = self.nodes[to].call(&["CLUSTER", "MYID"]).text();
        for node in [to, from] {
            self.nodes[node].call(&["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
        self.wait_until_ok();
    }

    fn running(&self) -> impl Iterator<Item = &Redis> {
        self.nodes.iter().filter(|n| n.process.is_running())
    }

    fn any_view(&self) -> Option<Vec<Entry>> {
        self.running().find_map(|n| n.view().ok())
    }

    fn index_of(&self, entry: &Entry) -> Option<usize> {
        self.nodes.iter().position(|n| n.port == entry.port)
    }

    fn is_ok(&self) -> io::Result<bool> {
        let mut seen: Option<Vec<Entry>> = None;
        for node in self.running() {
            let mut client = RespClient::connect(node.address())?;
            let view = node.view()?;
            let covered: u32 =
                view.iter().flat_map(|e| &e.slots).map(|(a, b)| u32::from(*b) - u32::from(*a) + 1).sum();
            let state = field(&client.call(&["CLUSTER", "INFO"])?.text(), "cluster_state");
            if state != "ok"
                || covered != u32::from(SLOTS)
                || seen.get_or_insert_with(|| view.clone()) != &view
            {
                return Ok(false);
            }
            let replication = client.call(&["INFO", "replication"])?.text();
            let says_replica = field(&replication, "role") == "slave";
            let is_replica = view.iter().any(|e| e.port == node.port && e.master_id.is_some());
            if says_replica != is_replica || says_replica && field(&replication, "master_link_status") != "up"
            {
                return Ok(false);
            }
        }
        Ok(seen.is_some())
    }
}

impl Redis {
    /// What this node says of all nodes, ordered by port.
    fn view(&self) -> io::Result<Vec<Entry>> {
        let text = RespClient::connect(self.address())?.call(&["CLUSTER", "NODES"])?.text();
        let mut entries: Vec<_> = text.lines().filter_map(entry).collect();
        entries.sort_by_key(|e| e.port);
        Ok(entries)
    }
}

/// Reads a line of CLUSTER NODES: id, ip:port@bus, flags, master, ping, pong, epoch, link, slots.
fn entry(line: &str) -> Option<Entry> {
    let words: Vec<_> = line.split(' ').collect();
    let port = words.get(1)?.split_once('@')?.0.rsplit_once(':')?.1.parse().ok()?;
    let is_replica = words.get(2)?.split(',').any(|f| f == "slave");
    let range = |s: &str| {
        let (first, last) = s.split_once('-').unwrap_or((s, s));
        Some((first.parse().ok()?, last.parse().ok()?))
    };
    Some(Entry {
        id: words[0].to_string(),
        port,
        master_id: is_replica.then(|| words.get(3).unwrap_or(&"").to_string()),
        // Slots that are being moved stand in brackets and are no ranges.
        slots: words.iter().skip(8).copied().filter_map(range).collect(),
    })
}

fn start_node(mut home: Home) -> (Redis, u16) {
    let port = home.port();
    let bus_port = home.port();
    let bus = bus_port.to_string();
    let options = [
        ["--cluster-enabled", "yes"],
        ["--cluster-port", &bus],
        ["--cluster-config-file", "nodes.conf"],
        // Short, so that a failover takes seconds.
        ["--cluster-node-timeout", "1500"],
        ["--cluster-replica-validity-factor", "0"],
        ["--cluster-require-full-coverage", "no"],
        ["--repl-ping-replica-period", "1"],
    ];
    (Redis::start_on(port, home, &options.concat()), bus_port)
}

/// The slot of a key: CRC16 (XMODEM) of it, or of what stands between its first `{` and the next `}`, modulo the
/// number of slots, as the cluster's specification has it.
pub fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|b| *b == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter().position(|b| *b == b'}').filter(|n| *n > 0).map(|n| &rest[..n])
    });
    let crc = tag.unwrap_or(key).iter().fold(0u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |c, _| if c & 0x8000 != 0 { (c << 1) ^ 0x1021 } else { c << 1 },
        )
    });
    crc % SLOTS
}
