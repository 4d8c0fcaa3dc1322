//! Reads without leases: many keys at once, and from replicas.
//!
//! Invariant: a replica's value is believed only if it has at least the version that this node has heard of; what a replica does
//! not have, or has too old, the master is asked for.

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, Pipeline, Value};
use bytes::Bytes;
use futures_util::future::join_all;
use terrace_cache::{L2Error, Stored};
use tokio::time::Instant;

use super::inner::Inner;
use super::node::Node;
use super::reply;
use super::slot::slot_of;
use super::topology::Topology;
use super::trouble::Trouble;
use crate::report::shown;

/// How many keys are asked of one server in one go.
const BATCH: usize = 1_024;

/// What one server has of the keys it was asked for, in their order; why not, where it did not answer.
type Read = Result<Vec<Result<Option<Stored>, Trouble>>, Trouble>;

/// The keys, by their places, that one server is asked for.
struct Group {
    node: Arc<Node>,
    places: Vec<usize>,
}

impl Inner {
    pub(super) async fn peek(self: &Arc<Self>, keys: Vec<Bytes>) -> Result<Vec<Option<Stored>>, L2Error> {
        let deadline = self.router.deadline();
        let topology = self.router.topology(deadline).await.map_err(|trouble| self.router.error(&trouble))?;
        let mut found = vec![None; keys.len()];
        if self.options.replica_reads {
            self.peek_replicas(&topology, &keys, &mut found, deadline).await;
        }
        let open: Vec<usize> = (0..keys.len()).filter(|at| found[*at].is_none()).collect();
        let open = self.peek_masters(&topology, &keys, open, &mut found, deadline).await;
        // What has moved, or was on a server that is gone, is asked for one by one.
        let mut answered = keys.len() - open.len();
        let retried = join_all(open.iter().map(|at| self.peek_one(&keys[*at], deadline))).await;
        let mut error = None;
        for (at, item) in open.into_iter().zip(retried) {
            match item {
                Ok(stored) => {
                    answered += 1;
                    found[at] = stored;
                }
                Err(why) => error = Some(why),
            }
        }
        match error {
            Some(why) if answered == 0 => Err(why),
            _ => Ok(found),
        }
    }

    /// A fresh value from a replica, if replicas may be asked and one has it.
    pub(super) async fn ask_replica(&self, key: &Bytes, deadline: Instant) -> Option<Stored> {
        if !self.options.replica_reads {
            return None;
        }
        let wanted = self.noticed.wanted(key)?;
        let topology = self.router.topology(deadline).await.ok()?;
        let replica = topology.shard(slot_of(&self.names.key(key)))?.replica()?;
        let answer = self.read(replica, &[key], self.replica_deadline(deadline)).await;
        let stored = answer.ok().and_then(|mut items| items.pop()).and_then(Result::ok).flatten();
        let stored = stored.filter(|stored| stored.version >= wanted);
        self.stats.count(|stats| if stored.is_some() { &stats.replica_hits } else { &stats.replica_misses });
        stored
    }

    /// Asks replicas for the keys of which they may be believed; puts what they have fresh into `found`.
    async fn peek_replicas(
        &self,
        topology: &Topology,
        keys: &[Bytes],
        found: &mut [Option<Stored>],
        deadline: Instant,
    ) {
        let wanted: Vec<_> = keys.iter().map(|key| self.noticed.wanted(key)).collect();
        let asked = (0..keys.len()).filter(|at| wanted[*at].is_some());
        let groups = self.grouped(topology, keys, asked, true);
        let answers = self.read_groups(&groups, keys, self.replica_deadline(deadline)).await;
        for (group, answer) in groups.iter().zip(answers) {
            for (at, item) in group.places.iter().zip(answer.unwrap_or_default()) {
                let believed = |stored: &Stored| wanted[*at].is_some_and(|wanted| stored.version >= wanted);
                found[*at] = item.ok().flatten().filter(believed);
                let hit = found[*at].is_some();
                self.stats.count(|stats| if hit { &stats.replica_hits } else { &stats.replica_misses });
            }
        }
    }

    /// Asks masters for the keys `open`; answers those of which nothing is known then either.
    async fn peek_masters(
        &self,
        topology: &Topology,
        keys: &[Bytes],
        mut open: Vec<usize>,
        found: &mut [Option<Stored>],
        deadline: Instant,
    ) -> Vec<usize> {
        let groups = self.grouped(topology, keys, open.iter().copied(), false);
        let answers = self.read_groups(&groups, keys, deadline).await;
        let mut answered = vec![false; keys.len()];
        for (group, answer) in groups.iter().zip(answers) {
            for (at, item) in group.places.iter().zip(answer.unwrap_or_default()) {
                if let Ok(stored) = item {
                    found[*at] = stored;
                    answered[*at] = true;
                }
            }
        }
        open.retain(|at| !answered[*at]);
        open
    }

    /// The keys by the servers to ask, at most [`BATCH`] in a group.
    fn grouped(
        &self,
        topology: &Topology,
        keys: &[Bytes],
        asked: impl Iterator<Item = usize>,
        replicas: bool,
    ) -> Vec<Group> {
        // Each shard's one server for this lookup. Servers are few: a search is cheaper than a table.
        let chosen: Vec<_> = topology
            .shards
            .iter()
            .map(|shard| if replicas { shard.replica() } else { Some(&shard.master) })
            .collect();
        let mut groups: Vec<Group> = Vec::new();
        for at in asked {
            let shard = topology.shard_at(slot_of(&self.names.key(&keys[at])));
            let Some(node) = shard.and_then(|shard| chosen[shard]) else { continue };
            let fits = |group: &&mut Group| Arc::ptr_eq(&group.node, node) && group.places.len() < BATCH;
            match groups.iter_mut().find(fits) {
                Some(group) => group.places.push(at),
                None => groups.push(Group { node: node.clone(), places: vec![at] }),
            }
        }
        groups
    }

    async fn read_groups(&self, groups: &[Group], keys: &[Bytes], deadline: Instant) -> Vec<Read> {
        let reads = groups.iter().map(|group| async move {
            let asked: Vec<&Bytes> = group.places.iter().map(|at| &keys[*at]).collect();
            self.read(&group.node, &asked, deadline).await
        });
        join_all(reads).await
    }

    /// Reads the fresh values of keys from one server in one round trip.
    async fn read(&self, node: &Node, keys: &[&Bytes], deadline: Instant) -> Read {
        let mut commands = Pipeline::with_capacity(keys.len() + 1);
        commands.add_command(::redis::cmd("TIME"));
        for key in keys {
            commands.add_command(self.read_command(key));
        }
        let mut answers = node.send(&commands, deadline).await?.into_iter();
        let time = node.checked(answers.next().unwrap_or_default())?;
        let now_ms = reply::time_ms(&time).ok_or_else(|| Trouble::Refused("no time".to_owned()))?;
        let read = keys.iter().zip(answers).map(|(key, answer)| match node.checked(answer) {
            Ok(value) => Ok(self.fresh(key, value, now_ms)),
            Err(Trouble::Refused(why)) => {
                self.stats.count(|stats| &stats.unreadable);
                self.reporter.tell(|| format!("redis: key {}: {why}", shown(key)));
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        });
        Ok(read.collect())
    }

    async fn peek_one(&self, key: &Bytes, deadline: Instant) -> Result<Option<Stored>, L2Error> {
        let slot = slot_of(&self.names.key(key));
        let time = self.router.call(slot, |_| ::redis::cmd("TIME"), deadline).await?;
        let now_ms = reply::time_ms(&time).ok_or_else(|| self.nonsense())?;
        let value = self.router.call(slot, |_| self.read_command(key), deadline).await?;
        Ok(self.fresh(key, value, now_ms))
    }

    fn read_command(&self, key: &[u8]) -> Cmd {
        let mut command = ::redis::cmd("HMGET");
        command.arg(self.names.key(key)).arg("m").arg("v");
        command
    }

    fn fresh(&self, key: &Bytes, value: Value, now_ms: u64) -> Option<Stored> {
        let (version, raw) = reply::fresh(value, now_ms)?;
        self.decode(key, raw).filter(|stored| stored.version == version)
    }

    /// A replica that hangs leaves the master half of the time.
    fn replica_deadline(&self, deadline: Instant) -> Instant {
        deadline.min(Instant::now() + Duration::from_millis(self.options.timeout_ms) / 2)
    }
}
