//! This node's latest writes that a failover must not undo. Replication is asynchronous: a new master may have missed them, and would
//! serve the values that they replaced.

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;
use terrace_cache::{Scope, Version};
use tokio::time::Instant;

/// How long ago a write may have been made to be made again. The time includes what the servers take to notice a dead master.
const RECENT: Duration = Duration::from_secs(60);

/// How many writes are remembered; the oldest are forgotten first.
const WRITES_MAX: usize = 4_096;

#[derive(Default)]
pub(super) struct Recent(Mutex<VecDeque<(Instant, Scope, Version)>>);

impl Recent {
    /// Remembers that values older than `version` (all, if it is zero) are no longer true.
    pub(super) fn remember(&self, scope: Scope, version: Version) {
        let mut writes = self.0.lock();
        if writes.len() >= WRITES_MAX {
            writes.pop_front();
        }
        writes.push_back((Instant::now(), scope, version));
    }

    /// What to do again, oldest first, each once.
    pub(super) fn again(&self) -> Vec<(Scope, Version)> {
        let mut writes = self.0.lock();
        while writes.front().is_some_and(|(at, ..)| at.elapsed() > RECENT) {
            writes.pop_front();
        }
        let mut again: Vec<(Scope, Version)> = Vec::with_capacity(writes.len());
        let mut seen = std::collections::HashSet::new();
        for (_, scope, version) in writes.iter() {
            let name = match scope {
                Scope::Key(key) => (0u8, key.clone()),
                Scope::Prefix(prefix) => (1, prefix.clone()),
                Scope::Tag(tag) => (2, bytes::Bytes::copy_from_slice(tag.as_bytes())),
            };
            if seen.insert((name, *version)) {
                again.push((scope.clone(), *version));
            }
        }
        again
    }
}
