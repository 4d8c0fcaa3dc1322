//! The dictionary against a naive model, its semantics case by case, its bounds, and threads.

use std::collections::HashMap;

use super::*;

const SEED: u64 = 0x7e55_ace5;

fn string(bytes: &str) -> Value<'_> {
    Value::String(bytes.as_bytes())
}

fn read(dict: &Dict, key: &str, now_ms: u64) -> Option<String> {
    let text = |item: Item<'_>| match item.value {
        Value::String(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        other => format!("{other:?}"),
    };
    dict.get_with(key.as_bytes(), now_ms, text).unwrap()
}

fn entry_bytes(key: &str, value: &str) -> usize {
    ENTRY_OVERHEAD_BYTES + key.len() + value.len()
}

#[test]
fn values_flags_and_types_come_back() {
    let dict = Dict::new(10_000, SEED);
    dict.set(b"s", string("text"), 0, 7, 1).unwrap();
    dict.set(b"n", Value::Number(1.5), 0, 0, 1).unwrap();
    dict.set(b"b", Value::Boolean(true), 0, 0, 1).unwrap();
    let mut out = b"left over".to_vec();
    let fetched = dict.get(b"s", 1, &mut out).unwrap().unwrap();
    assert_eq!((fetched.value, fetched.flags, out.as_slice()), (FetchedValue::String, 7, &b"text"[..]));
    assert_eq!(dict.get(b"n", 1, &mut out).unwrap().unwrap().value, FetchedValue::Number(1.5));
    assert_eq!(dict.get(b"b", 1, &mut out).unwrap().unwrap().value, FetchedValue::Boolean(true));
    assert_eq!(dict.get(b"missing", 1, &mut out), Ok(None));
    // A value of another type takes the place of the old one.
    dict.set(b"s", Value::Boolean(false), 0, 0, 1).unwrap();
    assert_eq!(dict.get(b"s", 1, &mut out).unwrap().unwrap().value, FetchedValue::Boolean(false));
    dict.store(Operation::Set, b"s", None, 0, 0, 1).unwrap();
    assert_eq!(dict.get(b"s", 1, &mut out), Ok(None));
    dict.check_invariants();
}

#[test]
fn keys_are_checked() {
    let dict = Dict::new(1 << 20, SEED);
    let long = vec![b'k'; KEY_BYTES_MAX + 1];
    assert_eq!(dict.set(b"", string("v"), 0, 0, 1), Err(Error::EmptyKey));
    assert_eq!(dict.set(&long, string("v"), 0, 0, 1).unwrap_err().to_string(), "key too long");
    dict.set(&long[1..], string("v"), 0, 0, 1).unwrap();
    assert_eq!(dict.keys(0, 1), vec![Box::from(&long[1..])]);
}

#[test]
fn add_and_replace_look_at_live_entries_only() {
    let dict = Dict::new(10_000, SEED);
    let store = |operation, value, now_ms| dict.store(operation, b"k", Some(string(value)), 10, 0, now_ms);
    assert_eq!(store(Operation::Replace, "a", 100), Err(Error::NotFound));
    assert!(store(Operation::Add, "a", 100).is_ok());
    assert_eq!(store(Operation::SafeAdd, "b", 109), Err(Error::Exists));
    assert!(store(Operation::Replace, "longer", 109).is_ok());
    assert_eq!(store(Operation::Replace, "c", 119), Err(Error::NotFound));
    assert!(store(Operation::Add, "d", 119).is_ok());
    assert_eq!(read(&dict, "k", 119).as_deref(), Some("d"));
    assert_eq!(dict.store(Operation::Add, b"x", None, 0, 0, 119), Err(Error::NilValue));
    dict.check_invariants();
}

#[test]
fn expired_entries_are_stale_until_reclaimed() {
    let dict = Dict::new(10_000, SEED);
    dict.set(b"old", string("v"), 50, 3, 1_000).unwrap();
    assert_eq!(dict.ttl(b"old", 1_020), Ok(Some(30)));
    assert_eq!(dict.ttl(b"old", 1_060), Ok(Some(-10)));
    let mut out = Vec::new();
    let stale = dict.get_stale(b"old", 1_050, &mut out).unwrap().unwrap();
    assert_eq!((stale.stale, stale.flags, out.as_slice()), (true, 3, &b"v"[..]));
    dict.expire(b"old", 0, 1_060).unwrap();
    assert_eq!(dict.ttl(b"old", 9_000), Ok(None));
    assert_eq!(read(&dict, "old", 9_000).as_deref(), Some("v"));
    dict.expire(b"old", 1, 9_000).unwrap();
    assert_eq!(read(&dict, "old", 9_001), None);
    assert_eq!(dict.ttl(b"old", 9_001), Err(Error::NotFound));
    assert_eq!(dict.expire(b"old", 1, 9_001).unwrap_err().to_string(), "not found");
}

#[test]
fn incr_follows_init_and_types() {
    let dict = Dict::new(10_000, SEED);
    assert_eq!(dict.incr(b"n", 1.0, None, 0, 1), Err(Error::NotFound));
    assert_eq!(dict.incr(b"n", 2.0, Some(10.0), 100, 1).unwrap().value, 12.0);
    assert_eq!(dict.incr(b"n", -0.5, Some(10.0), 5_000, 2).unwrap().value, 11.5);
    assert_eq!(dict.ttl(b"n", 1), Ok(Some(100)), "a live entry keeps its expiry");
    assert_eq!(dict.incr(b"n", 1.0, Some(1.0), 0, 101).unwrap().value, 2.0);
    dict.set(b"s", string("12345678"), 0, 0, 1).unwrap();
    assert_eq!(dict.incr(b"s", 1.0, Some(1.0), 0, 1).unwrap_err().to_string(), "not a number");
    dict.check_invariants();
}

#[test]
fn lists_push_and_pop_at_both_ends() {
    let dict = Dict::new(10_000, SEED);
    assert_eq!(dict.rpush(b"l", string("b"), 1), Ok(1));
    assert_eq!(dict.lpush(b"l", string("a"), 1), Ok(2));
    assert_eq!(dict.rpush(b"l", Value::Number(3.0), 1), Ok(3));
    assert_eq!(dict.rpush(b"l", Value::Boolean(true), 1), Err(Error::BadValueType));
    assert_eq!(dict.get_with(b"l", 1, |_| ()).unwrap_err().to_string(), "value is a list");
    dict.check_invariants();
    assert_eq!(dict.lpop(b"l", 1), Ok(Some(Popped::String(Box::from(&b"a"[..])))));
    assert_eq!(dict.rpop(b"l", 1), Ok(Some(Popped::Number(3.0))));
    assert_eq!(dict.llen(b"l", 1), Ok(1));
    dict.lpop(b"l", 1).unwrap();
    assert_eq!((dict.llen(b"l", 1), dict.lpop(b"l", 1)), (Ok(0), Ok(None)));
    assert_eq!(dict.free_bytes(), dict.capacity_bytes(), "an empty list is gone");
    dict.set(b"s", string("v"), 0, 0, 1).unwrap();
    assert_eq!(dict.lpush(b"s", string("v"), 1).unwrap_err().to_string(), "value not a list");
    assert_eq!(
        (dict.llen(b"s", 1), dict.rpop(b"s", 1)),
        (Err(Error::ValueNotAList), Err(Error::ValueNotAList))
    );
    // An expired value gives way to a new list.
    dict.expire(b"s", 1, 1).unwrap();
    assert_eq!(dict.lpush(b"s", string("v"), 2), Ok(1));
    dict.check_invariants();
}

#[test]
fn eviction_takes_the_least_recently_used() {
    let dict = Dict::new(3 * entry_bytes("a", "v"), SEED);
    for key in ["a", "b", "c"] {
        assert!(!dict.set(key.as_bytes(), string("v"), 0, 0, 1).unwrap().forcible);
    }
    assert_eq!(dict.store(Operation::SafeSet, b"d", Some(string("v")), 0, 0, 1), Err(Error::NoMemory));
    assert_eq!(dict.rpush(b"d", string("v"), 1), Err(Error::NoMemory));
    assert!(read(&dict, "a", 1).is_some());
    assert!(dict.set(b"d", string("v"), 0, 0, 1).unwrap().forcible);
    assert_eq!(dict.keys(0, 1), ["c", "a", "d"].map(|key| Box::from(key.as_bytes())));
    assert_eq!(dict.keys(2, 1).len(), 2);
    // An expired entry goes first, and that is not "forcible".
    dict.expire(b"a", 1, 1).unwrap();
    assert!(!dict.set(b"e", string("v"), 0, 0, 2).unwrap().forcible);
    assert_eq!(dict.stats(), Stats { evicted: 1, expired: 1, no_memory: 2 });
    dict.check_invariants();
}

#[test]
fn only_what_cannot_fit_finds_no_memory() {
    for capacity in [20_000, 8 << 20] {
        let dict = Dict::new(capacity, SEED);
        for i in 0..1_000 {
            dict.set(format!("key{i}").as_bytes(), Value::String(&vec![b'v'; capacity / 600]), 0, 0, 1)
                .unwrap();
        }
        dict.check_invariants();
        let large = vec![b'x'; capacity - ENTRY_OVERHEAD_BYTES - 3];
        assert_eq!(dict.set(b"big", Value::String(&large), 0, 0, 1), Ok(Stored { forcible: true }));
        assert_eq!((dict.len(), dict.free_bytes()), (1, 0));
        dict.check_invariants();
        assert_eq!(dict.set(b"bigger", Value::String(&large), 0, 0, 1), Err(Error::NoMemory));
        // A replacement needs room for itself only, not for its predecessor too.
        assert_eq!(
            dict.store(Operation::Replace, b"big", Some(Value::String(&large[1..])), 0, 0, 1),
            Ok(Stored { forcible: false })
        );
        dict.check_invariants();
    }
}

#[test]
fn flushes_mark_and_reclaim() {
    let dict = Dict::new(100_000, SEED);
    for i in 0..10 {
        dict.set(format!("k{i}").as_bytes(), string("v"), 0, 0, 1).unwrap();
    }
    dict.flush_all(1_000);
    assert_eq!(read(&dict, "k9", 1_000), None);
    assert_eq!(dict.get_stale_with(b"k9", 1_000, |item| item.stale), Ok(Some(true)));
    assert!(dict.keys(0, 1_000).is_empty());
    assert_eq!(dict.flush_expired(3, 1_000), 3);
    let rest = dict.len();
    assert_eq!(dict.flush_expired(0, 1_000), rest);
    assert_eq!(dict.free_bytes(), dict.capacity_bytes());
    dict.check_invariants();
}

struct Lcg(u64);

impl Lcg {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// What the entries should be if nothing were ever evicted: eviction may only make keys disappear.
#[derive(Default)]
struct Model(HashMap<String, (String, u64, u32)>);

impl Model {
    fn live(&self, key: &str, now_ms: u64) -> Option<&(String, u64, u32)> {
        self.0.get(key).filter(|(_, expires_ms, _)| *expires_ms == 0 || *expires_ms > now_ms)
    }
}

fn run_model(seed: u64, capacity: usize, may_evict: bool) {
    let dict = Dict::new(capacity, seed);
    let (mut random, mut model, mut now_ms) = (Lcg(seed), Model::default(), 1_000);
    for step in 0..6_000 {
        now_ms += random.below(4);
        let key = format!("key{}", random.below(60));
        let value = "v".repeat(random.below(200) as usize);
        let (ttl_ms, flags) = (random.below(3) * random.below(300), random.below(5) as u32);
        let expires_ms = if ttl_ms == 0 { 0 } else { now_ms + ttl_ms };
        let before = model.live(&key, now_ms).cloned();
        let operation = match random.below(10) {
            0..=3 => Operation::Set,
            4 => Operation::Add,
            5 => Operation::Replace,
            6 => {
                dict.delete(key.as_bytes(), now_ms).unwrap();
                model.0.remove(&key);
                continue;
            }
            _ => {
                let got = dict.get_with(key.as_bytes(), now_ms, |item| match item.value {
                    Value::String(bytes) => (String::from_utf8_lossy(bytes).into_owned(), item.flags),
                    other => panic!("unexpected {other:?}"),
                });
                let expected = before.map(|(value, _, flags)| (value, flags));
                match got.unwrap() {
                    None if may_evict => drop(model.0.remove(&key)),
                    got => assert_eq!(got, expected, "seed {seed} step {step}"),
                }
                continue;
            }
        };
        let answer = dict.store(operation, key.as_bytes(), Some(string(&value)), ttl_ms, flags, now_ms);
        match answer {
            Ok(stored) => {
                assert!(may_evict || !stored.forcible);
                assert!(operation != Operation::Replace || before.is_some(), "seed {seed} step {step}");
                assert!(
                    operation != Operation::Add || before.is_none() || may_evict,
                    "seed {seed} step {step}"
                );
                model.0.insert(key, (value, expires_ms, flags));
            }
            Err(Error::Exists) => assert!(operation == Operation::Add && before.is_some()),
            Err(Error::NotFound) => {
                assert!(operation == Operation::Replace && (before.is_none() || may_evict));
                model.0.remove(&key);
            }
            Err(error) => panic!("seed {seed} step {step}: {error}"),
        }
        if step % 50 == 0 {
            dict.check_invariants();
        }
    }
    dict.check_invariants();
}

#[test]
fn agrees_with_a_naive_model() {
    for seed in 1..=8 {
        run_model(seed, 8 << 20, false);
        run_model(seed, 1 << 20, false);
        run_model(seed, 4_000, true);
    }
}

#[test]
fn threads_share_one_dictionary() {
    for capacity in [30_000, 4 << 20] {
        let dict = Dict::new(capacity, SEED);
        let value = vec![b'v'; capacity / 300];
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (dict, value) = (&dict, &value);
                scope.spawn(move || {
                    let mut random = Lcg(thread);
                    let mut out = Vec::new();
                    for _ in 0..5_000 {
                        let key = random.below(500).to_le_bytes();
                        match random.below(4) {
                            0 => drop(dict.set(&key, Value::String(value), random.below(2), 0, 1).unwrap()),
                            1 => drop(dict.delete(&key, 1)),
                            2 => drop(dict.rpush(b"list", Value::Number(1.0), 1)),
                            _ => drop(dict.get(&key, 2, &mut out).unwrap()),
                        }
                        dict.incr(b"counter", 1.0, Some(0.0), 0, 1).unwrap();
                    }
                });
            }
        });
        dict.check_invariants();
        // Used in every step, so never the least recently used one of its shard by enough to be evicted.
        assert_eq!(dict.incr(b"counter", 0.0, Some(0.0), 0, 1).unwrap().value, 20_000.0);
    }
}
