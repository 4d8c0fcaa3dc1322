//! Invalidations of many keys: by prefix, which walks all masters, and by tag, which walks the tag's set.
//!
//! Neither is atomic. What holds: a value that was there, or a lease that was handed out, when the sweep began is gone when it ends;
//! and the fleet is told then. A prefix leaves version floors only on the keys that are there.

use std::sync::Arc;

use ::redis::{Cmd, Value};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use terrace_cache::{L2Error, Notice, Scope, Version};
use tokio::time::Instant;

use super::inner::{Inner, TAG_VOID_MS};
use super::node::Node;
use super::notices;
use super::reply;
use super::scripts::{Arg, VOID_TAG};
use super::slot::slot_of;
use super::trouble::Trouble;

/// How many keys one step of a walk looks at.
const STEP: usize = 512;

/// How many keys are invalidated at once.
const AT_ONCE: usize = 64;

/// How often a walk over all masters begins again because they changed meanwhile.
const WALKS_MAX: usize = 3;

/// How often one step of a walk is tried.
const TRIES_MAX: usize = 5;

impl Inner {
    pub(super) async fn invalidate(self: &Arc<Self>, scope: Scope, version: Version) -> Result<u64, L2Error> {
        let dropped = match &scope {
            Scope::Key(key) => self.invalidate_key(key, version, true, self.router.deadline()).await,
            Scope::Prefix(prefix) => {
                let sweep = self.invalidate_prefix(prefix, version);
                self.within(self.options.sweep_timeout_ms, sweep).await
            }
            Scope::Tag(tag) => {
                let sweep = self.invalidate_tag(tag, version);
                self.within(self.options.sweep_timeout_ms, sweep).await
            }
        }?;
        self.recent.remember(scope, version);
        Ok(dropped)
    }

    /// Makes this node's latest writes again, after a failover that may have lost them.
    pub(super) async fn write_again(self: &Arc<Self>) {
        let writes = self.recent.again();
        if writes.is_empty() {
            return;
        }
        let failed = stream::iter(writes.clone())
            .map(|(scope, version)| async move {
                match scope {
                    Scope::Key(key) => self.invalidate_key(&key, version, true, self.router.deadline()).await,
                    Scope::Prefix(prefix) => self.invalidate_prefix(&prefix, version).await,
                    Scope::Tag(tag) => self.invalidate_tag(&tag, version).await,
                }
            })
            .buffer_unordered(AT_ONCE)
            .filter(|done| std::future::ready(done.is_err()))
            .count()
            .await;
        let all = writes.len();
        self.reporter
            .tell(|| format!("redis: {all} invalidations made again after a failover, {failed} failed"));
    }

    async fn invalidate_prefix(self: &Arc<Self>, prefix: &Bytes, version: Version) -> Result<u64, L2Error> {
        let mut dropped = 0;
        for _ in 0..WALKS_MAX {
            let begun = self.router.topology(self.router.deadline()).await;
            let begun = begun.map_err(|trouble| self.router.error(&trouble))?;
            for shard in &begun.shards {
                dropped += self.walk_master(&shard.master, prefix, version).await?;
            }
            let now = self.router.refresh(begun.generation, self.router.deadline()).await;
            if now.map_err(|trouble| self.router.error(&trouble))?.generation == begun.generation {
                self.publish(b'P', version, prefix).await?;
                self.noticed.hear(&Notice::Gap);
                return Ok(dropped);
            }
        }
        Err(L2Error::Unavailable("the servers change all the time".into()))
    }

    /// Walks the keys of one master that begin with `prefix`.
    async fn walk_master(
        self: &Arc<Self>,
        node: &Node,
        prefix: &Bytes,
        version: Version,
    ) -> Result<u64, L2Error> {
        let pattern = self.names.pattern(prefix);
        let (mut cursor, mut dropped) = (Bytes::from_static(b"0"), 0);
        loop {
            let mut command = ::redis::cmd("SCAN");
            command.arg(&cursor[..]).arg("MATCH").arg(&pattern).arg("COUNT").arg(STEP);
            let (next, names) = self.step(node, command).await?;
            let keys = names.iter().filter_map(|name| self.names.key_of(name));
            dropped += self.invalidate_all(keys, version).await?;
            if &next[..] == b"0" {
                return Ok(dropped);
            }
            cursor = next;
        }
    }

    async fn invalidate_tag(self: &Arc<Self>, tag: &Arc<str>, version: Version) -> Result<u64, L2Error> {
        let name = self.names.tag(tag);
        // First: a fill that puts its key under the tag after the walk has passed there finds this.
        self.router.script(&VOID_TAG, &name, &[Arg::Number(TAG_VOID_MS)], self.router.deadline()).await?;
        let (mut cursor, mut dropped) = (Bytes::from_static(b"0"), 0);
        loop {
            let walk = |_| {
                let mut command = ::redis::cmd("ZSCAN");
                command.arg(&name).arg(&cursor[..]).arg("COUNT").arg(STEP);
                command
            };
            let answer = self.router.call(slot_of(&name), walk, self.router.deadline()).await?;
            let (next, items) =
                step_of(answer).ok_or_else(|| L2Error::Refused("no step of a walk".into()))?;
            // Members and scores in turn.
            let keys = items.iter().step_by(2).filter_map(|member| member.strip_prefix(b"k"));
            dropped += self.invalidate_all(keys.map(Bytes::copy_from_slice), version).await?;
            if &next[..] == b"0" {
                break;
            }
            cursor = next;
        }
        self.publish(b'T', version, tag.as_bytes()).await?;
        self.noticed.hear(&Notice::Gap);
        Ok(dropped)
    }

    async fn invalidate_all(
        &self,
        keys: impl Iterator<Item = Bytes>,
        version: Version,
    ) -> Result<u64, L2Error> {
        let keys: Vec<Bytes> = keys.collect();
        stream::iter(keys)
            .map(|key| async move { self.invalidate_key(&key, version, false, self.router.deadline()).await })
            .buffer_unordered(AT_ONCE)
            .try_fold(0, |sum, dropped| async move { Ok(sum + dropped) })
            .await
    }

    /// One step of a walk over one server: the next cursor and what was found.
    async fn step(&self, node: &Node, command: Cmd) -> Result<(Bytes, Vec<Bytes>), L2Error> {
        let mut trouble = Trouble::Timeout;
        for _ in 0..TRIES_MAX {
            match node.ask(command.clone(), self.router.deadline()).await {
                Ok(answer) => {
                    return step_of(answer).ok_or_else(|| L2Error::Refused("no step of a walk".into()));
                }
                Err(why @ Trouble::Refused(_)) => return Err(self.router.error(&why)),
                Err(why) => trouble = why,
            }
            tokio::time::sleep_until(Instant::now() + std::time::Duration::from_millis(100)).await;
        }
        Err(self.router.error(&trouble))
    }

    async fn publish(self: &Arc<Self>, kind: u8, version: Version, name: &[u8]) -> Result<(), L2Error> {
        let payload = notices::encode(kind, version, name);
        let channel = &self.names.channel;
        let publish = |_| {
            let mut command = ::redis::cmd("PUBLISH");
            command.arg(channel).arg(&payload);
            command
        };
        self.router.call(slot_of(channel), publish, self.router.deadline()).await.map(drop)
    }
}

/// The answer to SCAN and ZSCAN.
fn step_of(answer: Value) -> Option<(Bytes, Vec<Bytes>)> {
    let Value::Array(items) = answer else { return None };
    let mut items = items.into_iter();
    let cursor = reply::bytes(items.next()?)?;
    let Value::Array(found) = items.next()? else { return None };
    Some((cursor, found.into_iter().filter_map(reply::bytes).collect()))
}
