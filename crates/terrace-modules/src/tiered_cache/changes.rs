//! Has changes that are heard of take effect: on this node at once, and on L2 before the message counts as done.

use std::sync::Arc;

use terrace_base::log::{ErrorLog, Level};
use terrace_cache::{BoxFuture, L2Error, OnChange};
use terrace_kafka::{Consumer, ConsumerStats, Effect, Invalidation, Mapping, Role};
use tokio::runtime::Handle;

use super::invalidation_block::InvalidationSpec;
use super::registry::Kept;

/// The running consumers of a `cache_invalidation`. Dropping them ends them; what was not done then is heard of again.
pub(super) struct Listening {
    pub(super) spec: InvalidationSpec,
    /// Each with its part.
    consumers: Vec<(&'static str, Consumer)>,
}

impl Listening {
    /// What the consumers did, by their parts: `node` hears each message for this node's memory, `group` is one of the
    /// fleet that has changes take effect on L2.
    pub(super) fn stats(&self) -> impl Iterator<Item = (&'static str, ConsumerStats)> {
        self.consumers.iter().map(|(part, consumer)| (*part, consumer.stats()))
    }
}

/// Begins to listen. Options that the client refuses are logged: they show only now.
pub(super) fn listen(
    spec: InvalidationSpec,
    kept: &Arc<Kept>,
    log: &ErrorLog,
    runtime: &Handle,
) -> Listening {
    let mut consumers = Vec::new();
    for options in spec.consumers() {
        let (part, effect) = match options.role {
            Role::EveryNode => ("node", here(kept.clone())),
            Role::Group(_) => ("group", in_fleet(kept.clone())),
        };
        let mapping = Mapping::new(spec.rules.clone());
        match Consumer::start(options, mapping, effect, log.clone(), runtime) {
            Ok(consumer) => consumers.push((part, consumer)),
            Err(error) => {
                let line = format!("cache invalidation \"{}\": {error}", spec.name);
                log.write(Level::Error, None, line.as_bytes());
            }
        }
    }
    Listening { spec, consumers }
}

/// The effect on this node's memory.
fn here(kept: Arc<Kept>) -> Effect {
    Arc::new(move |change: Invalidation| {
        if let Some(cache) = kept.cache(&change.cache) {
            cache.invalidate_here(&change.scope, change.version, how(&change));
        }
        Box::pin(std::future::ready(Ok(())))
    })
}

/// The effect on L2, which tells all nodes.
fn in_fleet(kept: Arc<Kept>) -> Effect {
    Arc::new(move |change: Invalidation| -> BoxFuture<'static, Result<(), L2Error>> {
        let Some(cache) = kept.cache(&change.cache) else {
            // The configuration has it no more, and nobody else has its values.
            return Box::pin(std::future::ready(Ok(())));
        };
        let how = how(&change);
        Box::pin(async move { cache.invalidate(change.scope, change.version, how).done().await.map(drop) })
    })
}

fn how(change: &Invalidation) -> OnChange {
    if change.refresh { OnChange::Refresh } else { OnChange::Drop }
}
