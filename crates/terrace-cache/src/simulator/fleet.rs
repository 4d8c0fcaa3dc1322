//! Fleets: up to sixteen nodes with the real engine above a model of L2 and a source whose truth changes.
//!
//! Calls and notices take time and overtake each other; notices get lost, and then a gap is told; nodes crash and come
//! back empty; clocks run at their own rates; L2 goes away, and fails over to a copy that lacks the newest writes. After
//! every step the invariants of the crate are checked:
//!
//! 1. A lease has one load at a time, and nobody loads without one unless L2 failed, or the wait for another's load is
//!    over.
//! 2. What a node heard of, none of its answers and no entry of its L1 is older than. After a gap the same holds of what
//!    it calls fresh, for all that L2 knows.
//! 3. L2 never takes a key back, and no L1 replaces a version by an older one.
//! 4. While a value is inside its windows, a failed load is answered by it, and leaves it in place.
//! 5. L1, flights and loads stay inside their bounds.
//!
//! A failover that loses an invalidation makes the second impossible for its key: what was lost is known nowhere. What
//! holds for that key until the next invalidation is the bound on age: no answer is older than the life and the stale
//! windows of the value, counted from its load. That is checked for all answers always.

mod judge;
mod loads;
mod tests;
mod wire;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use bytes::Bytes;

use super::model::{Defect, Model, truth_of};
use super::node::{Client, Met, Node};
use crate::engine::{Action, Ask, Mutation, Ticket, Tiers, Verdict};
use crate::entry::{Answer, Level, Made};
use crate::error::{CacheError, LoadError};
use crate::l2::{Filled, Found, L2Error, LeaseToken, Stored, Version};
use crate::policy::{Jitter, OnChange, Policy};
use crate::source::{Loaded, Params};

const STEPS: usize = 3_000;
const SIZE_BYTES_MAX: u64 = 2048;
const LOADS_MAX: usize = 6;
const FLIGHTS_MAX: usize = 8;
const ASKS_MAX: u32 = 16;

/// A call of a node to L2.
#[derive(Clone)]
enum Call {
    Get { ticket: Ticket, lease_ms: u64, repair: Version },
    Fill { ticket: Ticket, token: LeaseToken, stored: Stored },
    Release { token: LeaseToken },
    Invalidate { version: Version, truth: u64 },
    Set { stored: Stored, truth: u64 },
}

enum Reply {
    Found(Ticket, Result<Found, L2Error>),
    Filled(Ticket, Result<Filled, L2Error>),
    Invalidated { version: Version, truth: u64 },
    SetFailed(Version),
}

#[derive(Clone)]
enum Told {
    /// With what the checks may then ask of the node.
    Filled(Version, u64),
    Released,
    /// Likewise.
    Invalidated(Version, u64),
    Gap,
}

/// Something that happens at a time; all but arrivals at L2 at one life of a node.
enum Event {
    Arrives(usize, u32, usize, Call),
    Replied(usize, u32, usize, Reply),
    Notice(usize, u32, usize, Told),
    LoadEnds(usize, u32, Ticket),
    Expires(usize, u32, Ticket),
    Waited(usize, u32, Ticket),
    Locked(usize, u32, Ticket),
}

struct Asked {
    node: usize,
    life: u32,
    key: usize,
    heard: u64,
    fresh: u64,
    answers: usize,
}

struct Load {
    node: usize,
    life: u32,
    key: usize,
    truth: u64,
    began_ms: u64,
    ticket: Ticket,
    by_caller: bool,
    lease: Option<LeaseToken>,
}

struct World {
    draw: Jitter,
    now_ms: u64,
    policy: Policy,
    tiers: Tiers,
    mutation: Mutation,
    deaf_to_gaps: bool,
    versioned: bool,
    l2: Model,
    l2_away_until_ms: u64,
    nodes: Vec<Node>,
    truth: Vec<u64>,
    asked: Vec<Asked>,
    loads: HashMap<(usize, u32, u64), Load>,
    events: BinaryHeap<Reverse<(u64, u64)>>,
    by_number: HashMap<u64, Event>,
    scheduled: u64,
    violation: Option<String>,
}

impl World {
    fn new(seed: u64, mutation: Mutation, defect: Defect, deaf_to_gaps: bool) -> Self {
        let mut draw = Jitter::new(seed);
        let keys = 1 + (draw.draw() % 6) as usize;
        let nodes = 1 + (draw.draw() % 16) as usize;
        let policy = Policy {
            ttl_ms: 400,
            jitter_percent: 20,
            negative_ttl_ms: 50,
            stale_while_revalidate_ms: draw.draw() % 3 * 60,
            stale_if_error_ms: draw.draw() % 3 * 400,
            error_retry_ms: 30,
            load_timeout_ms: 100,
            waiters_per_key_max: 6,
            loads_max: LOADS_MAX,
            size_bytes_max: SIZE_BYTES_MAX,
            refresh_ahead_percent: (draw.draw() % 2 * 20) as u8,
            on_change: if draw.draw().is_multiple_of(3) { OnChange::Refresh } else { OnChange::Drop },
            invalidation_refreshes_per_s: 100,
            l1_ttl_ms: draw.draw().is_multiple_of(2).then_some(150),
            l2_timeout_ms: 25,
            l2_retry_ms: 60,
            l2_down_ttl_ms: 80,
            lease_ms: 200,
            held_wait_ms: 70,
            lock_wait_ms: 20,
            lookups_max: FLIGHTS_MAX,
        };
        let tiers = Tiers { l2: true, lock: draw.draw().is_multiple_of(4) };
        let versioned = draw.draw().is_multiple_of(2);
        let node = |index: u64| Node::new(policy, tiers, keys, seed ^ (index << 32), mutation);
        Self {
            now_ms: 10_000,
            policy,
            tiers,
            mutation,
            deaf_to_gaps,
            versioned,
            l2: Model::new(keys, defect),
            l2_away_until_ms: 0,
            nodes: (0..nodes as u64).map(node).collect(),
            truth: vec![1; keys],
            asked: Vec::new(),
            loads: HashMap::new(),
            events: BinaryHeap::new(),
            by_number: HashMap::new(),
            scheduled: 0,
            violation: None,
            draw,
        }
    }

    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(what());
        }
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.draw.draw() % bound as u64) as usize
    }

    fn after(&mut self, delay_ms: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now_ms + delay_ms, self.scheduled)));
        self.by_number.insert(self.scheduled, event);
    }

    /// How long a message takes: mostly little, now and then more than the soft timeout.
    fn delay_ms(&mut self) -> u64 {
        match self.below(20) {
            0 => 20 + self.draw.draw() % 60,
            _ => 1 + self.draw.draw() % 6,
        }
    }

    fn version(&self, truth: u64) -> Version {
        if self.versioned { truth } else { 0 }
    }

    fn step(&mut self) {
        let (node, key) = (self.below(self.nodes.len()), self.below(self.truth.len()));
        match self.below(1000) {
            0..380 => self.look_up(node, key),
            380..400 => self.change(node, key),
            // Without versions, of two changes that overtake each other the later one wins, and that may be the older.
            400..405 if self.versioned => self.set(node, key),
            405 => self.l2_away_until_ms = self.now_ms + self.draw.draw() % 200,
            406 => self.fail_over(),
            407 | 408 => self.crash(node),
            409 => self.go_deaf(node),
            410..430 => self.now_ms += self.draw.draw() % 20,
            _ => self.next_event(),
        }
        self.check_always();
    }

    fn next_event(&mut self) {
        let Some(Reverse((at_ms, number))) = self.events.pop() else {
            self.now_ms += self.draw.draw() % 40;
            return;
        };
        self.now_ms = self.now_ms.max(at_ms);
        if let Some(event) = self.by_number.remove(&number) {
            self.happens(event);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives(node, life, key, call) => self.arrives(node, life, key, call),
            Event::Replied(node, life, key, reply) if self.lives(node, life) => {
                self.replied(node, key, reply)
            }
            Event::Notice(node, life, key, told) if self.lives(node, life) => self.noticed(node, key, told),
            Event::LoadEnds(node, life, ticket) if self.lives(node, life) => self.end_load(node, &ticket),
            Event::Expires(node, life, ticket) if self.lives(node, life) => {
                self.at(node, &ticket.key, |n, now_ms, out| n.engine.expired(&n.l1, &ticket, now_ms, out));
            }
            Event::Waited(node, life, ticket) if self.lives(node, life) => {
                self.at(node, &ticket.key, |n, now_ms, out| n.engine.waited(&n.l1, &ticket, now_ms, out));
            }
            Event::Locked(node, life, ticket) if self.lives(node, life) => {
                self.at(node, &ticket.key, |n, now_ms, out| n.engine.locked(&n.l1, &ticket, now_ms, out));
            }
            _ => {}
        }
    }

    fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].life == life
    }

    /// One event of a key at a node, with its checks and its actions.
    fn at<R>(
        &mut self,
        node: usize,
        key: &[u8],
        event: impl FnOnce(&mut Node, u64, &mut Vec<Action<Client>>) -> R,
    ) -> R {
        let index = Node::key_of(key);
        let mut out = Vec::new();
        let n = &mut self.nodes[node];
        let now_ms = n.clock_ms(self.now_ms);
        let before = n.l1.version(key, now_ms);
        if !n.health.is_up() {
            n.met[index].failed = true;
        }
        let result = event(n, now_ms, &mut out);
        let after = n.l1.version(key, now_ms);
        if !n.health.is_up() {
            n.met[index].failed = true;
        }
        self.check(after == 0 || after >= before, || {
            format!("node {node} replaced version {before} of key {index} by {after}")
        });
        self.carry_out(node, out);
        let n = &mut self.nodes[node];
        if !n.engine.has_flight(key) {
            n.met[index] = Met::default();
        }
        result
    }

    fn look_up(&mut self, node: usize, key: usize) {
        let native = self.below(5) != 0;
        let n = &self.nodes[node];
        let (id, heard, fresh, life) = (self.asked.len(), n.heard[key], n.fresh[key], n.life);
        let client = Client { id, gone: self.below(12) == 0 };
        let gone = client.gone;
        self.asked.push(Asked { node, life, key, heard, fresh, answers: usize::from(gone) });
        let mut waits = false;
        let bytes = [key as u8];
        let verdict = self.at(node, &bytes, |n, now_ms, out| {
            if let Some(answer) = n.l1.hit(&bytes, now_ms) {
                return Verdict::Answer(answer);
            }
            let ask = Ask { key: &bytes, now_ms, native, params: Params::new() };
            let waiter = || {
                waits = true;
                client
            };
            n.engine.lookup(&n.l1, ask, waiter, out)
        });
        match verdict {
            Verdict::Answer(answer) => {
                self.asked[id].answers = 1;
                self.judge(id, &answer);
            }
            // The wait tells whether to load; the client was answered.
            Verdict::AnswerAndWait(answer) => self.judge(id, &answer),
            Verdict::Refused(_) => self.asked[id].answers = 1,
            Verdict::Joined => {}
            Verdict::Load(_) | Verdict::AnswerAndLoad(..) => {
                self.check(false, || "a caller loads without asking L2".to_owned());
            }
        }
    }

    /// The truth changes, and a node says so: at once at home, then to L2, again and again until L2 has it.
    fn change(&mut self, node: usize, key: usize) {
        self.truth[key] += 1;
        let truth = self.truth[key];
        let version = self.version(truth);
        // L2 still has the old value, so that this alone is not yet worth what hearing of it is.
        self.changed(node, key, version, 0);
        self.call(node, key, Call::Invalidate { version, truth });
    }

    fn changed(&mut self, node: usize, key: usize, version: Version, truth: u64) {
        let how = self.policy.on_change;
        let bytes = [key as u8];
        self.nodes[node].heard[key] = self.nodes[node].heard[key].max(truth);
        self.at(node, &bytes, |n, now_ms, out| n.engine.changed(&n.l1, &bytes, version, how, now_ms, out));
        if how == OnChange::Refresh {
            self.at(node, &bytes, |n, now_ms, out| n.engine.refresh_now(&n.l1, &bytes, now_ms, out));
        }
    }

    fn set(&mut self, node: usize, key: usize) {
        self.truth[key] += 1;
        let truth = self.truth[key];
        let value = Some(value_of(truth, self.now_ms));
        let made = Made::now(value, self.version(truth), Vec::new(), self.policy.ttl_ms, &self.policy);
        let bytes = [key as u8];
        let told = self.at(node, &bytes, |n, now_ms, out| n.engine.set(&n.l1, &bytes, made, now_ms, out));
        if let Some(stored) = told {
            self.call(node, key, Call::Set { stored, truth });
        }
    }

    fn fail_over(&mut self) {
        let tainted = self.l2.fail_over(self.now_ms);
        for key in tainted {
            for node in &mut self.nodes {
                node.heard[key] = 0;
                node.fresh[key] = 0;
            }
            // What is still on its way tells of writes that are lost.
            for event in self.by_number.values_mut() {
                match event {
                    Event::Notice(_, _, at, Told::Filled(_, truth) | Told::Invalidated(_, truth))
                        if *at == key =>
                    {
                        *truth = 0;
                    }
                    Event::Replied(_, _, at, Reply::Invalidated { truth, .. }) if *at == key => *truth = 0,
                    _ => {}
                }
            }
        }
        for node in 0..self.nodes.len() {
            let (delay_ms, life) = (self.delay_ms(), self.nodes[node].life);
            self.after(delay_ms, Event::Notice(node, life, 0, Told::Gap));
        }
    }

    fn crash(&mut self, node: usize) {
        let life = self.nodes[node].life + 1;
        let seed = self.draw.draw();
        self.nodes[node] = Node::new(self.policy, self.tiers, self.truth.len(), seed, self.mutation);
        self.nodes[node].life = life;
        self.loads.retain(|(at, ..), _| *at != node);
        self.asked.iter_mut().filter(|asked| asked.node == node).for_each(|asked| asked.answers = 1);
    }

    /// The node loses its notices for a while, and then hears of the gap.
    fn go_deaf(&mut self, node: usize) {
        self.nodes[node].hears = false;
        let (delay_ms, life) = (self.draw.draw() % 300, self.nodes[node].life);
        self.after(delay_ms, Event::Notice(node, life, 0, Told::Gap));
    }
}

fn value_of(truth: u64, loaded_ms: u64) -> Bytes {
    let mut value = truth.to_le_bytes().to_vec();
    value.extend_from_slice(&loaded_ms.to_le_bytes());
    // Large enough that not all keys fit L1 together, so that evictions take part.
    value.resize(100 + (truth % 5) as usize * 90, 0);
    value.into()
}

fn loaded_ms(value: &Bytes) -> u64 {
    value.get(8..16).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}
