//! What the fleet is told, and how it is heard: one channel for each cache, on a connection of its own.
//!
//! A notice is one byte for what (`F` filled, `R` released, `K`, `P`, `T` invalidated by key, prefix, tag), the version in 20 digits,
//! and the name. Nothing else on the channel is understood, and nothing else is heard.
//!
//! Invariant: between the end of one subscription and the [`Notice::Gap`] of the next, nothing is told. The first subscription is
//! followed by a gap as well: what was stored before it may be out of date.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::PubSub;
use bytes::Bytes;
use futures_util::StreamExt;
use terrace_cache::{Listener, Notice, Scope, Version};
use tokio::time::{Instant, timeout};

use super::inner::Inner;
use super::names::{narrow, wide};
use super::node::Node;
use super::options::RedisMode;
use crate::report::Lasting;

/// How long after a lost subscription the next is tried; twice as long each time up to the second.
const RETRY_AFTER: Duration = Duration::from_millis(20);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(2);

/// How often the subscribed server is asked whether it is still there, and the others who they are.
const CHECK_EVERY: Duration = Duration::from_secs(2);

/// The bytes of a notice.
pub(super) fn encode(kind: u8, version: Version, name: &[u8]) -> Vec<u8> {
    [&[kind][..], &wide(version), name].concat()
}

/// The notice in its bytes.
pub(super) fn decode(payload: &[u8]) -> Option<Notice> {
    let (kind, rest) = payload.split_first()?;
    let (version, name) = rest.split_at_checked(20)?;
    let version = narrow(version)?;
    let name = Bytes::copy_from_slice(name);
    let invalidated = |scope| Some(Notice::Invalidated { scope, version });
    match kind {
        b'F' => Some(Notice::Filled { key: name, version }),
        b'R' => Some(Notice::Released { key: name }),
        b'K' => invalidated(Scope::Key(name)),
        b'P' => invalidated(Scope::Prefix(name)),
        b'T' => invalidated(Scope::Tag(std::str::from_utf8(&name).ok()?.into())),
        _ => None,
    }
}

/// Hears notices for as long as the task lives.
pub(super) async fn listen(inner: Arc<Inner>, listener: Listener) {
    let mut wait = RETRY_AFTER;
    let mut turn = 0;
    let mut wrong = Lasting::default();
    loop {
        let began = Instant::now();
        let why = subscribed(&inner, &listener, turn, &mut wrong).await;
        inner.noticed.subscribed(false);
        inner.stats.count(|stats| &stats.subscriptions_lost);
        if wrong.is_due(Instant::now().into_std()) {
            inner.reporter.tell(|| format!("redis: no notices: {why}"));
        }
        turn += 1;
        wait = if began.elapsed() > RETRY_AFTER_MAX { RETRY_AFTER } else { (wait * 2).min(RETRY_AFTER_MAX) };
        tokio::time::sleep(wait).await;
    }
}

/// One subscription; answers why it ended.
async fn subscribed(inner: &Arc<Inner>, listener: &Listener, turn: usize, wrong: &mut Lasting) -> String {
    let node = match server(inner, turn).await {
        Ok(node) => node,
        Err(why) => return why,
    };
    let mut failovers = inner.router.failovers();
    failovers.mark_unchanged();
    let connecting = timeout(Duration::from_millis(inner.options.connect_timeout_ms), connect(inner, &node));
    let pubsub = match connecting.await {
        Ok(Ok(pubsub)) => pubsub,
        Ok(Err(error)) => return format!("{}: {error}", node.address),
        Err(_) => return format!("{}: no subscription in time", node.address),
    };
    let (mut sink, mut stream) = pubsub.split();
    inner.noticed.subscribed(true);
    listener(Notice::Gap);
    if wrong.is_over() {
        inner.reporter.tell(|| format!("redis: notices are heard again, from {}", node.address));
    }
    let mut checks = tokio::time::interval_at(Instant::now() + CHECK_EVERY, CHECK_EVERY);
    loop {
        tokio::select! {
            message = stream.next() => {
                let Some(message) = message else { return format!("{}: the connection is gone", node.address) };
                match decode(message.get_payload_bytes()) {
                    Some(notice) => {
                        inner.noticed.hear(&notice);
                        listener(notice);
                    }
                    None => inner.reporter.tell(|| "redis: a message that is no notice".to_owned()),
                }
            }
            _ = failovers.changed() => {
                inner.noticed.hear(&Notice::Gap);
                listener(Notice::Gap);
            }
            _ = checks.tick() => {
                let limit = Duration::from_millis(inner.options.timeout_ms);
                if !matches!(timeout(limit, sink.ping::<::redis::Value>()).await, Ok(Ok(_))) {
                    return format!("{}: it does not answer", node.address);
                }
                inner.router.refresh_soon(u64::MAX);
            }
        }
        if !still_there(inner, &node) {
            return format!("{}: no longer a server of this cache", node.address);
        }
    }
}

/// A server to subscribe at: in a cluster any master, since what is published on one is heard on all.
async fn server(inner: &Arc<Inner>, turn: usize) -> Result<Arc<Node>, String> {
    let deadline = inner.router.deadline();
    let known = match inner.router.known() {
        Some(known) => inner.router.refresh(known.generation, deadline).await,
        None => inner.router.topology(deadline).await,
    };
    let topology = known.map_err(|trouble| trouble.to_string())?;
    let at = (inner.turn + turn).checked_rem(topology.shards.len()).ok_or("no server is known")?;
    Ok(topology.shards[at].master.clone())
}

async fn connect(inner: &Inner, node: &Node) -> ::redis::RedisResult<PubSub> {
    let mut pubsub = node.client()?.get_async_pubsub().await?;
    pubsub.subscribe(&inner.names.channel).await?;
    Ok(pubsub)
}

/// Whether the server is still where notices are published. A replica still hears them, but a server that has left does not.
fn still_there(inner: &Inner, node: &Node) -> bool {
    let Some(topology) = inner.router.known() else { return true };
    let address = &node.address;
    let replica = inner.options.mode == RedisMode::Cluster;
    let mut shards = topology.layout.shards.iter();
    shards.any(|shard| shard.master == *address || (replica && shard.replicas.contains(address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_read_as_they_were_written() {
        let key = Bytes::from_static(b"a\0\xff b");
        let invalidated = |scope| Notice::Invalidated { scope, version: u64::MAX };
        for (kind, notice) in [
            (b'F', Notice::Filled { key: key.clone(), version: u64::MAX }),
            (b'R', Notice::Released { key: key.clone() }),
            (b'K', invalidated(Scope::Key(key.clone()))),
            (b'P', invalidated(Scope::Prefix(key.clone()))),
        ] {
            assert_eq!(decode(&encode(kind, u64::MAX, &key)), Some(notice));
        }
        assert_eq!(decode(&encode(b'T', u64::MAX, b"shop")), Some(invalidated(Scope::Tag("shop".into()))));
        for nonsense in [&b""[..], b"F", b"F1", &encode(b'X', 1, b"k"), &encode(b'T', 1, b"\xff")] {
            assert_eq!(decode(nonsense), None);
        }
    }
}
