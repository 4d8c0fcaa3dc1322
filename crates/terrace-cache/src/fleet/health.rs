//! Whether L2 is asked at all.
//!
//! L2 counts as away when a call failed and none succeeded for as long as a call may take. Single failures beside
//! successes (one node of the store is failing over, the others answer) do not count. While it is away, one lookup in
//! each interval tries; the others go on to the source at once.

use parking_lot::Mutex;

/// What is known of L2, shared by the engines of one cache.
#[derive(Debug, Default)]
pub(crate) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    succeeded_ms: Option<u64>,
    /// Away; the next try is due then.
    retry_at_ms: Option<u64>,
}

impl Health {
    /// Whether a lookup may ask L2. While L2 is away the one that may is the try of the interval.
    pub(crate) fn allows(&self, now_ms: u64, retry_ms: u64) -> bool {
        let mut state = self.0.lock();
        match state.retry_at_ms {
            None => true,
            Some(at_ms) if now_ms < at_ms => false,
            Some(_) => {
                state.retry_at_ms = Some(now_ms.saturating_add(retry_ms));
                true
            }
        }
    }

    /// Whether L2 is asked by everybody.
    pub(crate) fn is_up(&self) -> bool {
        self.0.lock().retry_at_ms.is_none()
    }

    pub(crate) fn succeeded(&self, now_ms: u64) {
        *self.0.lock() = State { succeeded_ms: Some(now_ms), retry_at_ms: None };
    }

    /// Whether L2 counts as away from now on and did not before.
    pub(crate) fn failed(&self, now_ms: u64, timeout_ms: u64, retry_ms: u64) -> bool {
        let mut state = self.0.lock();
        let quiet = state.succeeded_ms.is_none_or(|at_ms| at_ms.saturating_add(timeout_ms) <= now_ms);
        let turns = quiet && state.retry_at_ms.is_none();
        if turns {
            state.retry_at_ms = Some(now_ms.saturating_add(retry_ms));
        }
        turns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_store_is_tried_once_in_each_interval() {
        let health = Health::default();
        assert!(health.failed(1_000, 250, 500));
        assert!(!health.is_up());
        let tries: Vec<u64> = (1_000..3_000).filter(|&now_ms| health.allows(now_ms, 500)).collect();
        assert_eq!(tries, [1_500, 2_000, 2_500]);
        health.succeeded(3_000);
        assert!((3_000..3_100).all(|now_ms| health.allows(now_ms, 500)));
    }

    #[test]
    fn failures_beside_successes_do_not_count() {
        let health = Health::default();
        health.succeeded(1_000);
        assert!(!health.failed(1_249, 250, 500));
        assert!(health.allows(1_249, 500));
        assert!(health.failed(1_250, 250, 500));
        assert!(!health.failed(1_260, 250, 500), "it is away already");
        assert!(!health.allows(1_260, 500));
    }
}
