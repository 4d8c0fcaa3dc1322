//! One process without an L2: random interleavings of lookups, loads that finish, fail, come late or are
//! dropped, invalidations, sets and time; the invariants of the crate are checked after every step.
//!
//! The world keeps a truth for each key that only an invalidation changes, so any answer can be judged: a lookup
//! must never see a version older than the one that was true when it asked. A failing run prints its seed and
//! replays with it. Deliberate defects in the engine prove that the simulator can fail.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::{Action, Ask, Bounds, Engine, Mutation, Shared, Ticket, Tiers, Verdict, Waiting};
use crate::entry::{Answer, Level, Made};
use crate::error::{CacheError, LoadError};
use crate::fleet::Health;
use crate::l1::L1;
use crate::policy::{Jitter, OnChange, Policy};
use crate::source::{Loaded, Params};
use crate::stats::Counters;

const KEYS: usize = 6;
const STEPS: usize = 400;
const LOADS_MAX: usize = 4;
const WAITERS_MAX: usize = 5;
const SIZE_BYTES_MAX: u64 = 2048;

/// A waiter of the world: an index into the list of those who asked.
#[derive(Debug)]
struct Client {
    id: usize,
    gone: bool,
}

impl Waiting for Client {
    fn is_gone(&self) -> bool {
        self.gone
    }
}

/// Somebody who asked and has to wait.
struct Asked {
    key: usize,
    /// The version that was true when they asked; no answer may be older.
    floor: u64,
    answers: usize,
}

/// A load that the world is doing.
struct Load {
    ticket: Ticket,
    key: usize,
    /// What the source said, read when the load began.
    version: u64,
    deadline_ms: u64,
}

struct World {
    draw: Jitter,
    now_ms: u64,
    policy: Policy,
    engine: Engine<Client>,
    l1: L1,
    bounds: Arc<Bounds>,
    truth: [u64; KEYS],
    asked: Vec<Asked>,
    loads: Vec<Load>,
    violation: Option<String>,
}

impl World {
    fn new(seed: u64, mutation: Mutation) -> Self {
        let counters = Arc::new(Counters::new());
        let bounds = Arc::new(Bounds::new(LOADS_MAX * 2, LOADS_MAX));
        let mut draw = Jitter::new(seed);
        let policy = Policy {
            ttl_ms: 200,
            jitter_percent: 20,
            negative_ttl_ms: 50,
            stale_while_revalidate_ms: draw.draw() % 3 * 60,
            stale_if_error_ms: draw.draw() % 3 * 400,
            error_retry_ms: 30,
            load_timeout_ms: 100,
            waiters_per_key_max: WAITERS_MAX,
            loads_max: LOADS_MAX,
            size_bytes_max: SIZE_BYTES_MAX,
            ..Policy::default()
        };
        let shared = Shared {
            bounds: bounds.clone(),
            health: Arc::new(Health::default()),
            counters: counters.clone(),
        };
        let mut engine = Engine::new(policy, Tiers::default(), seed, shared);
        engine.mutation = mutation;
        let l1 = L1::new(policy.size_bytes_max, seed, counters);
        let (asked, loads) = (Vec::new(), Vec::new());
        Self {
            draw,
            now_ms: 1_000,
            policy,
            engine,
            l1,
            bounds,
            truth: [0; KEYS],
            asked,
            loads,
            violation: None,
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

    fn step(&mut self) {
        let key = self.below(KEYS);
        match self.below(100) {
            0..40 => self.look_up(key),
            40..62 => self.end_a_load(),
            62..65 => self.drop_a_load(),
            65..73 => self.invalidate(key),
            73..75 => self.set(key),
            75 => self.invalidate_all(),
            76..80 => self.expire(),
            _ => self.now_ms += self.draw.draw() % 40,
        }
        self.check_always();
    }

    fn look_up(&mut self, key: usize) {
        let native = self.below(2) == 0;
        let (id, floor) = (self.asked.len(), self.truth[key]);
        let client = Client { id, gone: self.below(10) == 0 };
        let gone = client.gone;
        let mut waits = false;
        let mut out = Vec::new();
        let ask = Ask { key: &[key as u8], now_ms: self.now_ms, native, params: Params::new() };
        let waiter = || {
            waits = true;
            client
        };
        let verdict = self.engine.lookup(&self.l1, ask, waiter, &mut out);
        // Those who left are owed nothing: they count as answered.
        let answers = usize::from(!waits || gone);
        self.asked.push(Asked { key, floor, answers });
        match verdict {
            Verdict::Answer(answer) | Verdict::AnswerAndWait(answer) => self.judge(key, floor, &answer),
            Verdict::AnswerAndLoad(answer, ticket) => {
                self.judge(key, floor, &answer);
                self.begin(ticket);
            }
            Verdict::Load(ticket) => self.begin(ticket),
            Verdict::Joined | Verdict::Refused(_) => {}
        }
        self.carry_out(out);
    }

    fn begin(&mut self, ticket: Ticket) {
        let key = usize::from(ticket.key[0]);
        let now_ms = self.now_ms;
        let valid = self.loads.iter().filter(|load| load.key == key && load.deadline_ms > now_ms).count();
        self.check(valid == 0, || format!("key {key}: a second load began while one is valid"));
        let deadline_ms = now_ms + self.policy.load_timeout_ms;
        self.loads.push(Load { ticket, key, version: self.truth[key], deadline_ms });
    }

    /// A load comes back, whether in time or long after its deadline.
    fn end_a_load(&mut self) {
        if self.loads.is_empty() {
            return;
        }
        let at = self.below(self.loads.len());
        let load = self.loads.swap_remove(at);
        match self.below(4) {
            0 => self.fail(load),
            1 => self.complete(load, true),
            _ => self.complete(load, false),
        }
    }

    fn complete(&mut self, load: Load, brief: bool) {
        let mut out = Vec::new();
        // Versions that are a multiple of seven stand for "the source has no such thing".
        let ttl_ms = brief.then_some(30);
        let loaded = if load.version % 7 == 6 {
            Loaded::NotFound { ttl_ms }
        } else {
            Loaded::versioned(value_of(load.version), ttl_ms, 0)
        };
        let answer = self.engine.loaded(&self.l1, &load.ticket, loaded, self.now_ms, &mut out);
        self.check(answer.level == Level::Source, || "a loader was answered from elsewhere".to_owned());
        self.carry_out(out);
    }

    fn fail(&mut self, load: Load) {
        let key = [load.key as u8];
        let usable = |world: &Self| world.l1.usable(&key, world.now_ms);
        let before = usable(self);
        let mut out = Vec::new();
        let error = LoadError::Unavailable("simulated".into());
        let outcome = self.engine.failed(&self.l1, &load.ticket, error, self.now_ms, &mut out);
        let after = usable(self);
        self.check(before == after, || {
            format!("key {}: an error replaced {before:?} by {after:?}", load.key)
        });
        self.check(before == outcome.ok(), || format!("key {}: a usable value was not served", load.key));
        for action in &out {
            if let Action::Wake(_, outcome) = action {
                let told = outcome.as_ref().ok();
                self.check(told == before.as_ref(), || {
                    format!("key {}: a waiter was told {told:?}", load.key)
                });
            }
        }
        self.carry_out(out);
    }

    /// A caller's loader goes away without a result.
    fn drop_a_load(&mut self) {
        if self.loads.is_empty() {
            return;
        }
        let at = self.below(self.loads.len());
        let load = self.loads.swap_remove(at);
        let mut out = Vec::new();
        self.engine.abandoned(&self.l1, &load.ticket, self.now_ms, &mut out);
        self.carry_out(out);
    }

    fn invalidate(&mut self, key: usize) {
        self.truth[key] += 1;
        let mut out = Vec::new();
        self.engine.changed(&self.l1, &[key as u8], 0, OnChange::Drop, self.now_ms, &mut out);
        self.carry_out(out);
    }

    fn invalidate_all(&mut self) {
        self.truth.iter_mut().for_each(|version| *version += 1);
        let number = self.l1.marks.sweep();
        let mut out = Vec::new();
        self.engine.swept(&self.l1, b"", number, 0, self.now_ms, &mut out);
        self.carry_out(out);
        self.l1.sweep(b"", 0, OnChange::Drop, self.now_ms);
    }

    fn set(&mut self, key: usize) {
        self.truth[key] += 1;
        let mut out = Vec::new();
        let ttl_ms = (self.below(2) == 0).then_some(60);
        let value = Some(value_of(self.truth[key]));
        let made = Made::now(value, 0, Vec::new(), ttl_ms.unwrap_or(self.policy.ttl_ms), &self.policy);
        self.engine.set(&self.l1, &[key as u8], made, self.now_ms, &mut out);
        self.carry_out(out);
    }

    /// The runtime reports loads whose time is up; their loaders may still come back, late.
    fn expire(&mut self) {
        let now_ms = self.now_ms;
        let due: Vec<Ticket> = self
            .loads
            .iter()
            .filter(|load| load.deadline_ms <= now_ms)
            .map(|load| load.ticket.clone())
            .collect();
        for ticket in due {
            let mut out = Vec::new();
            self.engine.expired(&self.l1, &ticket, now_ms, &mut out);
            self.carry_out(out);
        }
    }

    fn carry_out(&mut self, actions: Vec<Action<Client>>) {
        for action in actions {
            match action {
                Action::Wake(client, outcome) => self.wake(&client, outcome),
                Action::Hand(client, ticket) => {
                    self.check(!client.gone, || "a load was handed to somebody who left".to_owned());
                    self.asked[client.id].answers += 1;
                    self.begin(ticket);
                }
                Action::Load(ticket) => self.begin(ticket),
                Action::Watch(_) => {}
                _ => self.check(false, || "an action for an L2 that is not there".to_owned()),
            }
        }
    }

    fn wake(&mut self, client: &Client, outcome: Result<Answer, CacheError>) {
        let Asked { key, floor, answers } = self.asked[client.id];
        if client.gone {
            return;
        }
        self.asked[client.id].answers += 1;
        self.check(answers == 0, || format!("client {} was answered twice", client.id));
        if let Ok(answer) = outcome {
            self.judge(key, floor, &answer);
        }
    }

    /// No lost invalidation: an answer is at least as new as the truth at the time of the question.
    fn judge(&mut self, key: usize, floor: u64, answer: &Answer) {
        if let Some(value) = &answer.value {
            let version = version_of(value);
            self.check(version >= floor, || format!("key {key}: version {version} served, {floor} was due"));
        }
        let life_ms = self.policy.ttl_ms;
        let windows_ms = self.policy.stale_while_revalidate_ms.max(self.policy.stale_if_error_ms);
        self.check(answer.age_ms < life_ms + windows_ms, || {
            format!("key {key}: served at {} ms", answer.age_ms)
        });
        let stale = answer.level == Level::Stale;
        self.check(!stale || answer.value.is_some(), || {
            format!("key {key}: a stale negative entry was served")
        });
    }

    fn check_always(&mut self) {
        let size_bytes = self.l1.size_bytes();
        self.check(size_bytes <= SIZE_BYTES_MAX, || format!("L1 holds {size_bytes} bytes"));
        let (flights, running) = (self.engine.flights(), self.bounds.loads.taken());
        self.check(flights == running && running <= LOADS_MAX, || {
            format!("{flights} flights hold {running} permits")
        });
        for key in 0..KEYS {
            let truth = self.truth[key];
            let Some(entry) = self.l1.peek(&[key as u8]) else { continue };
            if let Some(value) = entry.value.clone() {
                let version = version_of(&value);
                self.check(version >= truth, || format!("key {key}: L1 holds {version}, {truth} is true"));
            }
        }
    }

    /// Lets every load end, after which nobody may be left waiting.
    fn settle(&mut self) {
        while let Some(load) = self.loads.pop() {
            self.complete(load, false);
        }
        self.check_always();
        let left = self.asked.iter().filter(|asked| asked.answers == 0).count();
        self.check(left == 0, || format!("{left} clients were never answered"));
        let flights = self.engine.flights();
        self.check(flights == 0, || format!("{flights} flights never ended"));
    }
}

fn value_of(version: u64) -> Bytes {
    let mut value = version.to_le_bytes().to_vec();
    // Large enough that not all keys fit L1 together, so that evictions take part.
    value.resize(100 + (version % 5) as usize * 90, 0);
    value.into()
}

fn version_of(value: &Bytes) -> u64 {
    value.first_chunk().map_or(u64::MAX, |bytes| u64::from_le_bytes(*bytes))
}

/// Runs one world; the first violation, if any, with the step at which it showed.
fn run(seed: u64, mutation: Mutation) -> Option<String> {
    let mut world = World::new(seed, mutation);
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
fn no_interleaving_breaks_an_invariant() {
    // A failing seed is printed; to replay it alone, run it alone.
    let violations: Vec<String> =
        super::seeds(0..2_000).filter_map(|seed| run(seed, Mutation::None)).take(3).collect();
    assert!(violations.is_empty(), "{violations:#?}");
}

#[test]
fn runs_are_reproducible() {
    let found = |mutation| (0..200).find_map(|seed| run(seed, mutation));
    assert_eq!(found(Mutation::PopulateVoided), found(Mutation::PopulateVoided));
}

#[test]
fn the_simulator_finds_each_deliberate_defect() {
    let symptoms = [
        ("L1 holds", Mutation::PopulateVoided),
        ("a second load began", Mutation::LoadTwice),
        ("an error replaced", Mutation::ErrorDropsValue),
        ("clients were never answered", Mutation::ForgetWaiters),
    ];
    for (symptom, mutation) in symptoms {
        let found =
            (0..500).find_map(|seed| run(seed, mutation).filter(|violation| violation.contains(symptom)));
        assert!(found.is_some(), "{mutation:?} went unnoticed");
    }
}
