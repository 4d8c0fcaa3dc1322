//! A Redis master with replicas, watched by three sentinels.

use std::fs;
use std::net::SocketAddr;

use super::resp::{Reply, RespClient};
use super::{Home, Process, Redis};
use crate::wait_for;

/// The master's name among the sentinels.
pub const MASTER_NAME: &str = "mymaster";

/// Sentinels; two of them decide.
const SENTINELS: usize = 3;

/// A group that fails over.
pub struct RedisSentinel {
    /// The servers; the first was the master at the start.
    pub nodes: Vec<Redis>,
    /// The sentinels and their ports.
    pub sentinels: Vec<(Process, u16)>,
}

impl RedisSentinel {
    /// Starts a master, `replicas` and three sentinels, and waits until the sentinels know them all and each other.
    pub fn start(replicas: usize) -> RedisSentinel {
        let master = Redis::start();
        let port = master.port.to_string();
        let mut nodes = vec![master];
        for _ in 0..replicas {
            let home = Home::temporary("redis-replica");
            nodes.push(Redis::start_with(home, &["--replicaof", "127.0.0.1", &port]));
        }
        let group = RedisSentinel {
            sentinels: (0..SENTINELS).map(|_| start_sentinel(nodes[0].port)).collect(),
            nodes,
        };
        for node in &group.nodes[1..] {
            wait_for("a replica follows", || {
                (node.info(&["INFO", "replication"], "master_link_status") == "up").then_some(())
            });
        }
        wait_for("the sentinels know all", || group.is_settled(replicas).then_some(()));
        group
    }

    /// The sentinels' addresses.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.sentinels.iter().map(|(_, port)| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    /// The node that the sentinels call the master; `None` while they do not agree.
    pub fn master(&self) -> Option<usize> {
        let ask = |address| {
            let call = &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME];
            match RespClient::connect(address).and_then(|mut c| c.call(call)).ok()? {
                Reply::Array(parts) => parts.get(1)?.text().parse::<u16>().ok(),
                _ => None,
            }
        };
        let ports: Vec<_> = self.addresses().into_iter().map(ask).collect();
        let port = ports[0].filter(|_| ports.iter().all(|p| *p == ports[0]))?;
        self.nodes.iter().position(|n| n.port == port)
    }

    /// Waits until all sentinels agree on a master other than `lost`, and it takes writes; returns it.
    pub fn wait_for_failover(&self, lost: usize) -> usize {
        wait_for("another master", || {
            let master = self.master().filter(|m| *m != lost)?;
            let role = self.nodes[master].info(&["INFO", "replication"], "role");
            (role == "master").then_some(master)
        })
    }

    fn is_settled(&self, replicas: usize) -> bool {
        let count = |address, what: &str| match RespClient::connect(address)
            .and_then(|mut c| c.call(&["SENTINEL", what, MASTER_NAME]))
        {
            Ok(Reply::Array(list)) => list.len(),
            _ => 0,
        };
        self.addresses()
            .into_iter()
            .all(|a| count(a, "REPLICAS") == replicas && count(a, "SENTINELS") == SENTINELS - 1)
    }
}

fn start_sentinel(master: u16) -> (Process, u16) {
    let mut home = Home::temporary("redis-sentinel");
    let port = home.port();
    let conf = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {MASTER_NAME} 127.0.0.1 {master} 2\n\
         sentinel down-after-milliseconds {MASTER_NAME} 1000\nsentinel failover-timeout {MASTER_NAME} 5000\n",
        home.file("")
    );
    let file = home.file("sentinel.conf");
    fs::write(&file, conf).expect("its configuration is written");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let process =
        Process::start(&format!("sentinel {port}"), home, ["redis-server", &file, "--sentinel"], move || {
            RespClient::connect(address).and_then(|mut c| c.call(&["PING"])).is_ok()
        });
    (process, port)
}
