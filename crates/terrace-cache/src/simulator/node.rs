//! One node of a simulated fleet: the real engine and L1, a clock of its own, and what the checks remember of it.

use std::sync::Arc;

use crate::engine::{Bounds, Engine, Mutation, Shared, Tiers, Waiting};
use crate::fleet::Health;
use crate::l1::L1;
use crate::policy::Policy;
use crate::stats::Counters;

/// A waiter: an index into the list of those who asked.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) id: usize,
    pub(super) gone: bool,
}

impl Waiting for Client {
    fn is_gone(&self) -> bool {
        self.gone
    }
}

/// What the flight of a key has met, which decides whether it may load without a lease.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Met {
    /// L2 failed, or was left alone.
    pub(super) failed: bool,
    pub(super) held_since_ms: Option<u64>,
    pub(super) asks: u32,
    pub(super) asked_ms: u64,
}

pub(super) struct Node {
    pub(super) engine: Engine<Client>,
    pub(super) l1: L1,
    pub(super) bounds: Arc<Bounds>,
    pub(super) health: Arc<Health>,
    /// Which life of the node this is; what belongs to an earlier one is lost.
    pub(super) life: u32,
    /// For each key, the version that was true at the latest invalidation that the node heard of.
    pub(super) heard: Vec<u64>,
    /// The same for what a gap hid: what is called fresh is not older.
    pub(super) fresh: Vec<u64>,
    pub(super) met: Vec<Met>,
    pub(super) hears: bool,
    rate: u64,
    offset_ms: u64,
}

impl Node {
    pub(super) fn new(policy: Policy, tiers: Tiers, keys: usize, seed: u64, mutation: Mutation) -> Self {
        let counters = Arc::new(Counters::new());
        let bounds = Arc::new(Bounds::new(policy.lookups_max, policy.loads_max));
        let health = Arc::new(Health::default());
        let shared = Shared { bounds: bounds.clone(), health: health.clone(), counters: counters.clone() };
        let mut engine = Engine::new(policy, tiers, seed, shared);
        engine.mutation = mutation;
        let mut l1 = L1::new(policy.size_bytes_max, seed, counters);
        l1.lax = mutation == Mutation::OlderReplaces;
        Self {
            engine,
            l1,
            bounds,
            health,
            life: 0,
            heard: vec![0; keys],
            fresh: vec![0; keys],
            met: vec![Met::default(); keys],
            hears: true,
            rate: 990 + seed % 21,
            offset_ms: seed % 100_000,
        }
    }

    /// The node's clock: it runs at its own rate, from its own beginning.
    pub(super) fn clock_ms(&self, now_ms: u64) -> u64 {
        now_ms * self.rate / 1000 + self.offset_ms
    }

    pub(super) fn key_of(bytes: &[u8]) -> usize {
        bytes.first().map_or(0, |&key| usize::from(key))
    }
}
