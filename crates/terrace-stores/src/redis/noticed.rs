//! What this node has heard of lately: the versions that a replica must have to be believed.
//!
//! Invariant: a key that was filled or invalidated less than [`REMEMBERED`] ago, as far as this node knows, is read from a replica
//! only if the replica's value has at least the version that was heard of. Without notices no replica is read at all. What a replica
//! lags more than that, a reader may see.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use terrace_cache::{Notice, Scope, Version};
use tokio::time::Instant;

/// For how long what was heard counts.
const REMEMBERED: Duration = Duration::from_secs(10);

/// How many keys are remembered; when there are more, all keys are read from masters until the oldest may be forgotten.
const KEYS_MAX: usize = 65_536;

#[derive(Default)]
pub(super) struct Noticed(Mutex<State>);

#[derive(Default)]
struct State {
    /// Whether notices come in.
    subscribed: bool,
    /// No replica is believed before.
    blind_until: Option<Instant>,
    /// The version that a replica must have, and since when; none: whatever it has is too old.
    keys: HashMap<Bytes, (Option<Version>, Instant)>,
    /// The keys in the order in which they were heard of; may name one twice.
    order: VecDeque<(Bytes, Instant)>,
}

impl Noticed {
    /// Notices come in from now on, or no longer.
    pub(super) fn subscribed(&self, subscribed: bool) {
        let mut state = self.0.lock();
        state.subscribed = subscribed;
        state.blind();
    }

    /// Something happened, here or elsewhere.
    pub(super) fn hear(&self, notice: &Notice) {
        let mut state = self.0.lock();
        match notice {
            Notice::Filled { key, version } => state.note(key, *version),
            Notice::Invalidated { scope: Scope::Key(key), version } => state.note(key, *version),
            Notice::Released { .. } => {}
            Notice::Invalidated { .. } | Notice::Gap => state.blind(),
        }
    }

    /// The version that a replica's value must have at least to be believed; none if replicas are not to be asked.
    pub(super) fn wanted(&self, key: &[u8]) -> Option<Version> {
        let state = self.0.lock();
        let now = Instant::now();
        if !state.subscribed || state.blind_until.is_some_and(|until| now < until) {
            return None;
        }
        match state.keys.get(key) {
            Some((wanted, since)) if now < *since + REMEMBERED => *wanted,
            _ => Some(0),
        }
    }
}

impl State {
    fn blind(&mut self) {
        self.blind_until = Some(Instant::now() + REMEMBERED);
        self.keys.clear();
        self.order.clear();
    }

    fn note(&mut self, key: &Bytes, version: Version) {
        let now = Instant::now();
        while let Some((_, at)) = self.order.front()
            && (now >= *at + REMEMBERED || self.order.len() >= KEYS_MAX)
        {
            let Some((oldest, at)) = self.order.pop_front() else { break };
            if now < at + REMEMBERED {
                self.blind_until = Some(at + REMEMBERED);
            }
            if self.keys.get(&oldest).is_some_and(|(_, since)| *since == at) {
                self.keys.remove(&oldest);
            }
        }
        let wanted = match self.keys.get(key) {
            _ if version == 0 => None,
            Some((None, since)) if now < *since + REMEMBERED => None,
            Some((Some(known), _)) => Some(version.max(*known)),
            _ => Some(version),
        };
        self.keys.insert(key.clone(), (wanted, now));
        self.order.push_back((key.clone(), now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(key: &'static str, version: Version) -> Notice {
        Notice::Filled { key: key.into(), version }
    }

    #[tokio::test(start_paused = true)]
    async fn replicas_are_believed_as_far_as_notices_allow() {
        let noticed = Noticed::default();
        assert_eq!(noticed.wanted(b"a"), None, "not subscribed");
        noticed.subscribed(true);
        assert_eq!(noticed.wanted(b"a"), None, "just subscribed");
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(noticed.wanted(b"a"), Some(0));
        noticed.hear(&filled("a", 7));
        noticed.hear(&filled("a", 5));
        noticed.hear(&filled("b", 0));
        assert_eq!(
            (noticed.wanted(b"a"), noticed.wanted(b"b"), noticed.wanted(b"c")),
            (Some(7), None, Some(0))
        );
        noticed.hear(&filled("b", 3));
        assert_eq!(noticed.wanted(b"b"), None, "the fill without a version may still be on its way");
        tokio::time::advance(REMEMBERED).await;
        assert_eq!((noticed.wanted(b"a"), noticed.wanted(b"b")), (Some(0), Some(0)));
        noticed.hear(&Notice::Invalidated { scope: Scope::Tag("t".into()), version: 0 });
        assert_eq!(noticed.wanted(b"c"), None);
        tokio::time::advance(REMEMBERED).await;
        noticed.subscribed(false);
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(noticed.wanted(b"c"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_fit_makes_blind() {
        let noticed = Noticed::default();
        noticed.subscribed(true);
        tokio::time::advance(REMEMBERED).await;
        for key in 0..=KEYS_MAX {
            noticed.hear(&Notice::Filled { key: key.to_string().into(), version: 1 });
        }
        assert!(noticed.0.lock().order.len() <= KEYS_MAX);
        assert_eq!(noticed.wanted(b"0"), None);
        tokio::time::advance(REMEMBERED).await;
        assert_eq!(noticed.wanted(b"0"), Some(0));
    }
}
