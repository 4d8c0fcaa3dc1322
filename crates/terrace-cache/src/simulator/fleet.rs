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

    fn call(&mut self, node: usize, key: usize, call: Call) {
        let (delay_ms, life) = (self.delay_ms(), self.nodes[node].life);
        self.after(delay_ms, Event::Arrives(node, life, key, call));
    }

    /// L2 does what it is asked, in one step.
    fn arrives(&mut self, node: usize, life: u32, key: usize, call: Call) {
        let now_ms = self.now_ms;
        if now_ms < self.l2_away_until_ms {
            return self.lost(node, life, key, call);
        }
        let reply = match call {
            Call::Get { ticket, lease_ms, repair } => {
                if repair != 0 {
                    self.l2.invalidate(key, repair, repair, now_ms);
                    self.tell(key, &Told::Invalidated(repair, repair));
                }
                Reply::Found(ticket, Ok(self.l2.get(key, lease_ms, now_ms)))
            }
            Call::Fill { ticket, token, stored } => {
                let version = stored.version;
                let outcome = self.l2.fill(key, token, stored, now_ms);
                if outcome == Filled::Stored {
                    self.tell(key, &Told::Filled(version, version));
                }
                Reply::Filled(ticket, Ok(outcome))
            }
            Call::Release { token } => {
                if self.l2.release(key, token, now_ms) {
                    self.tell(key, &Told::Released);
                }
                return;
            }
            Call::Invalidate { version, truth } => {
                self.l2.invalidate(key, version, truth, now_ms);
                self.tell(key, &Told::Invalidated(version, truth));
                Reply::Invalidated { version, truth }
            }
            Call::Set { stored, truth } => {
                let version = stored.version;
                match self.l2.set(key, stored, truth, now_ms) {
                    Filled::Older(newest) => Reply::SetFailed(newest),
                    _ => return self.tell(key, &Told::Filled(version, version)),
                }
            }
        };
        let delay_ms = self.delay_ms();
        self.after(delay_ms, Event::Replied(node, life, key, reply));
    }

    /// A call that L2 never sees. Some fail at once, of others nothing is heard; changes are repeated.
    fn lost(&mut self, node: usize, life: u32, key: usize, call: Call) {
        let error = || L2Error::Unavailable("simulated".into());
        let fails = self.below(2) == 0;
        let reply = match call {
            Call::Get { ticket, .. } if fails => Reply::Found(ticket, Err(error())),
            Call::Fill { ticket, .. } if fails => Reply::Filled(ticket, Err(error())),
            Call::Get { .. } | Call::Fill { .. } | Call::Release { .. } => return,
            Call::Set { .. } => Reply::SetFailed(0),
            call @ Call::Invalidate { .. } => return self.after(30, Event::Arrives(node, life, key, call)),
        };
        self.after(1, Event::Replied(node, life, key, reply));
    }

    fn tell(&mut self, key: usize, told: &Told) {
        for node in 0..self.nodes.len() {
            let (delay_ms, life) = (self.delay_ms(), self.nodes[node].life);
            let hears = self.nodes[node].hears && self.below(100) != 0;
            if hears {
                self.after(delay_ms, Event::Notice(node, life, key, told.clone()));
            } else if self.nodes[node].hears {
                self.go_deaf(node);
            }
        }
    }

    fn replied(&mut self, node: usize, key: usize, reply: Reply) {
        let bytes = [key as u8];
        match reply {
            Reply::Found(ticket, outcome) => {
                let clock_ms = self.nodes[node].clock_ms(self.now_ms);
                let met = &mut self.nodes[node].met[key];
                match &outcome {
                    Err(_) => met.failed = true,
                    Ok(Found::Held { .. }) => {
                        met.held_since_ms.get_or_insert(clock_ms);
                    }
                    Ok(_) => {}
                }
                self.at(node, &bytes, |n, now_ms, out| {
                    n.engine.l2_answered(&n.l1, &ticket, outcome, now_ms, out);
                });
            }
            Reply::Filled(ticket, outcome) => {
                self.at(node, &bytes, |n, now_ms, out| {
                    n.engine.filled(&n.l1, &ticket, outcome, now_ms, out);
                });
            }
            Reply::Invalidated { version, truth } => self.changed(node, key, version, truth),
            Reply::SetFailed(newest) => {
                self.at(node, &bytes, |n, now_ms, out| {
                    n.engine.changed(&n.l1, &bytes, newest, OnChange::Drop, now_ms, out)
                });
            }
        }
    }

    fn noticed(&mut self, node: usize, key: usize, told: Told) {
        let bytes = [key as u8];
        match told {
            Told::Filled(version, truth) => {
                let heard = &mut self.nodes[node].heard[key];
                *heard = truth.max(*heard);
                self.at(node, &bytes, |n, now_ms, out| {
                    n.engine.noticed_fill(&n.l1, &bytes, version, now_ms, out);
                });
            }
            Told::Released => {
                self.at(node, &bytes, |n, now_ms, out| n.engine.noticed_release(&n.l1, &bytes, now_ms, out));
            }
            Told::Invalidated(version, truth) => self.changed(node, key, version, truth),
            Told::Gap => {
                let floors: Vec<u64> = (0..self.truth.len()).map(|key| self.l2.truth(key)).collect();
                let deaf = self.deaf_to_gaps;
                self.nodes[node].hears = true;
                self.nodes[node].fresh = floors;
                self.at(node, &bytes, |n, now_ms, out| {
                    if !deaf {
                        let number = n.l1.marks.gap(now_ms);
                        n.engine.noticed_gap(&n.l1, number, now_ms, out);
                    }
                });
            }
        }
    }

    fn carry_out(&mut self, node: usize, actions: Vec<Action<Client>>) {
        let life = self.nodes[node].life;
        for action in actions {
            match action {
                Action::Wake(client, outcome) => self.wake(&client, outcome),
                Action::Hand(client, ticket) => {
                    self.check(!client.gone, || "a load was handed to somebody who left".to_owned());
                    self.asked[client.id].answers += 1;
                    self.begin(node, ticket, true);
                }
                Action::Load(ticket) => self.begin(node, ticket, false),
                Action::Watch(ticket) => {
                    self.after(self.policy.load_timeout_ms, Event::Expires(node, life, ticket))
                }
                Action::AskL2 { ticket, lease_ms, repair } => {
                    let key = Node::key_of(&ticket.key);
                    let clock_ms = self.nodes[node].clock_ms(self.now_ms);
                    let met = &mut self.nodes[node].met[key];
                    met.asks += 1;
                    met.asked_ms = clock_ms;
                    let timeout = Err(L2Error::Timeout(self.policy.l2_timeout_ms));
                    let reply = Reply::Found(ticket.clone(), timeout);
                    self.after(self.policy.l2_timeout_ms, Event::Replied(node, life, key, reply));
                    self.call(node, key, Call::Get { ticket, lease_ms, repair });
                }
                Action::Fill { ticket, token, stored } => {
                    let key = Node::key_of(&ticket.key);
                    let timeout = Err(L2Error::Timeout(self.policy.l2_timeout_ms));
                    let reply = Reply::Filled(ticket.clone(), timeout);
                    self.after(self.policy.l2_timeout_ms, Event::Replied(node, life, key, reply));
                    self.call(node, key, Call::Fill { ticket, token, stored });
                }
                Action::Release { key, token } => {
                    self.call(node, Node::key_of(&key), Call::Release { token });
                }
                Action::Wait { ticket, wait_ms } => {
                    self.after(wait_ms + 1, Event::Waited(node, life, ticket))
                }
                Action::Lock { ticket, wait_ms } => {
                    let delay_ms = self.draw.draw() % wait_ms;
                    self.after(delay_ms, Event::Locked(node, life, ticket));
                }
            }
        }
    }

    fn begin(&mut self, node: usize, ticket: Ticket, by_caller: bool) {
        let key = Node::key_of(&ticket.key);
        let n = &self.nodes[node];
        let (life, met, clock_ms) = (n.life, n.met[key], n.clock_ms(self.now_ms));
        // Away, or silent for so long that the next lookup took it for a timeout.
        let away = !n.health.is_up() || met.asked_ms + self.policy.l2_timeout_ms <= clock_ms;
        // Taken over by somebody else within the same event: not this load's any more.
        let Some(lease) = n.engine.load_under(&ticket) else { return };
        match lease {
            Some(token) => {
                let now = |load: &&Load| load.lease == Some(token) && load.key == key;
                let running = |load: &&Load| self.nodes[load.node].engine.load_under(&load.ticket).is_some();
                let others = self.loads.values().filter(now).filter(running).count();
                self.check(others == 0, || format!("key {key}: two loads under one lease"));
            }
            None => {
                let held =
                    met.held_since_ms.is_some_and(|at_ms| at_ms + self.policy.held_wait_ms <= clock_ms);
                let excused = away || met.failed || held || met.asks >= ASKS_MAX;
                self.check(excused, || format!("node {node} loads key {key} without a lease: {met:?}"));
            }
        }
        let (truth, began_ms) = (self.truth[key], self.now_ms);
        let delay_ms = if self.below(15) == 0 { 150 } else { 2 + self.draw.draw() % 60 };
        self.after(delay_ms, Event::LoadEnds(node, life, ticket.clone()));
        if !by_caller {
            self.after(self.policy.load_timeout_ms, Event::Expires(node, life, ticket.clone()));
        }
        let number = (node, life, ticket.flight);
        self.loads.insert(number, Load { node, life, key, truth, began_ms, ticket, by_caller, lease });
    }

    fn end_load(&mut self, node: usize, ticket: &Ticket) {
        let number = (node, self.nodes[node].life, ticket.flight);
        let Some(load) = self.loads.remove(&number) else { return };
        debug_assert_eq!(load.life, self.nodes[node].life);
        match self.below(10) {
            0 | 1 => self.fail(node, load.key, ticket),
            2 if load.by_caller => {
                self.at(node, &ticket.key, |n, now_ms, out| n.engine.abandoned(&n.l1, ticket, now_ms, out));
            }
            _ => {
                let value = value_of(load.truth, load.began_ms);
                let loaded = Loaded::versioned(value, None, self.version(load.truth));
                self.at(node, &ticket.key, |n, now_ms, out| {
                    n.engine.loaded(&n.l1, ticket, loaded, now_ms, out)
                });
            }
        }
    }

    fn fail(&mut self, node: usize, key: usize, ticket: &Ticket) {
        let error = LoadError::Unavailable("simulated".into());
        let (before, outcome, after) = self.at(node, &ticket.key, |n, now_ms, out| {
            let before = n.l1.usable(&ticket.key, now_ms);
            let outcome = n.engine.failed(&n.l1, ticket, error, now_ms, out);
            (before, outcome, n.l1.usable(&ticket.key, now_ms))
        });
        if before.is_some() {
            self.check(before == after, || format!("key {key}: an error replaced {before:?} by {after:?}"));
            self.check(outcome.is_ok(), || format!("key {key}: a usable value was not served"));
        }
    }

    fn wake(&mut self, client: &Client, outcome: Result<Answer, CacheError>) {
        if client.gone {
            return;
        }
        self.asked[client.id].answers += 1;
        self.check(self.asked[client.id].answers == 1, || format!("client {} was answered twice", client.id));
        if let Ok(answer) = outcome {
            self.judge(client.id, &answer);
        }
    }

    fn judge(&mut self, id: usize, answer: &Answer) {
        let Asked { node, key, heard, fresh, .. } = self.asked[id];
        let Some(value) = &answer.value else { return };
        let (truth, loaded_ms) = (truth_of(Some(value)), loaded_ms(value));
        let n = &self.nodes[node];
        // A failover that lost an invalidation takes back what may be asked of its key.
        let heard = heard.min(n.heard[key]);
        let fresh = fresh.min(n.fresh[key]);
        let stale = answer.level == Level::Stale;
        if !(stale && self.policy.on_change == OnChange::Refresh) {
            self.check(truth >= heard, || {
                format!("node {node}, key {key}: {truth} served ({:?}), {heard} was heard of", answer.level)
            });
        }
        if !stale {
            self.check(truth >= fresh, || {
                format!(
                    "node {node}, key {key}: {truth} called fresh, {fresh} was known before the gap ended"
                )
            });
        }
        let windows_ms = self.policy.stale_while_revalidate_ms.max(self.policy.stale_if_error_ms);
        let life_ms = self.policy.ttl_ms + windows_ms + self.policy.load_timeout_ms;
        // Clocks differ by one in a hundred, and messages are on their way for a while.
        let bound_ms = life_ms + life_ms / 20 + 400;
        let age_ms = self.now_ms - loaded_ms;
        self.check(age_ms <= bound_ms, || format!("key {key}: served {age_ms} ms after its load"));
    }

    fn check_always(&mut self) {
        if let Some(violation) = self.l2.violation.take() {
            self.check(false, || violation);
        }
        for node in 0..self.nodes.len() {
            let n = &self.nodes[node];
            let (size_bytes, flights) = (n.l1.size_bytes(), n.engine.flights());
            let (taken, loads) = (n.bounds.flights.taken(), n.bounds.loads.taken());
            let inside = size_bytes <= SIZE_BYTES_MAX && flights <= FLIGHTS_MAX && loads <= LOADS_MAX;
            let dropped = self.policy.on_change == OnChange::Drop;
            let old = (0..self.truth.len()).find_map(|key| {
                let entry = n.l1.peek(&[key as u8]).filter(|_| dropped)?;
                let truth = truth_of(entry.value.as_ref());
                (truth < n.heard[key]).then_some((key, truth, n.heard[key]))
            });
            self.check(inside && flights == taken, || {
                format!(
                    "node {node}: {size_bytes} bytes, {flights} flights hold {taken} permits, {loads} loads"
                )
            });
            self.check(old.is_none(), || format!("node {node}: L1 holds (key, version, due) {old:?}"));
        }
    }

    /// Lets everything that is on its way arrive, after which nobody may be left waiting.
    fn settle(&mut self) {
        self.l2_away_until_ms = 0;
        for _ in 0..100_000 {
            if self.events.is_empty() || self.violation.is_some() {
                break;
            }
            self.next_event();
        }
        self.check_always();
        let left = self.asked.iter().filter(|it| it.answers == 0 && self.lives(it.node, it.life)).count();
        // A caller's load that nobody waited for has no deadline but the next lookup.
        let flights: usize = self.nodes.iter().map(|node| node.engine.flights()).sum();
        self.check(left == 0, || format!("{left} clients were never answered, {flights} flights are left"));
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

/// Runs one fleet; the first violation, if any, with the step at which it showed.
fn run(seed: u64, mutation: Mutation, defect: Defect, deaf_to_gaps: bool) -> Option<String> {
    let mut world = World::new(seed, mutation, defect, deaf_to_gaps);
    for step in 0..STEPS {
        world.step();
        if let Some(violation) = world.violation.take() {
            return Some(format!("seed {seed}, step {step}: {violation}"));
        }
    }
    world.settle();
    world.violation.map(|violation| format!("seed {seed}, at the end: {violation}"))
}

#[test]
fn no_fleet_breaks_an_invariant() {
    let seeds = super::seeds(0..1_000);
    let sound = |seed| run(seed, Mutation::None, Defect::None, false);
    let violations: Vec<String> = seeds.filter_map(sound).take(5).collect();
    assert!(violations.is_empty(), "replay one with TERRACE_SIM_SEED: {violations:#?}");
}

/// Each defect with what the simulator says when it finds it.
fn finds(symptom: &str, mutation: Mutation, defect: Defect, deaf_to_gaps: bool) {
    let mut found = (0..300).filter_map(|seed| run(seed, mutation, defect, deaf_to_gaps));
    assert!(
        found.any(|violation| violation.contains(symptom)),
        "{mutation:?}, {defect:?}, deaf to gaps: {deaf_to_gaps}: unnoticed"
    );
}

#[test]
fn the_first_invariant_can_fail() {
    finds("without a lease", Mutation::LoadWhenHeld, Defect::None, false);
}

#[test]
fn the_second_invariant_can_fail() {
    finds("", Mutation::PopulateVoided, Defect::None, false);
    finds("", Mutation::DeafFlights, Defect::None, false);
    finds("called fresh", Mutation::None, Defect::None, true);
    finds("L2 took key", Mutation::None, Defect::AcceptVoid, false);
}

#[test]
fn the_third_invariant_can_fail() {
    finds("L2 took key", Mutation::None, Defect::AcceptOlder, false);
    finds("replaced version", Mutation::OlderReplaces, Defect::None, false);
}

#[test]
fn the_fourth_invariant_can_fail() {
    finds("an error replaced", Mutation::ErrorDropsValue, Defect::None, false);
}

#[test]
fn the_fifth_invariant_can_fail() {
    finds("permits", Mutation::LeakPermits, Defect::None, false);
}

#[test]
fn a_lost_waiter_is_noticed() {
    finds("never answered", Mutation::ForgetWaiters, Defect::None, false);
}
