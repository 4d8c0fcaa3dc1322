//! Snapshots: what comes back, what does not, and what is refused.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::*;
use crate::{Effect, Policy, SetOptions};

fn cache() -> Cache {
    Cache::new(Policy::default(), None, Handle::current(), Arc::new(|| 1_000), 1)
}

fn set(cache: &Cache, key: &str, value: Option<&'static str>) {
    let options = SetOptions { ttl_ms: Some(5_000), version: 7, tags: vec!["shop:1".into()] };
    let value = value.map(Bytes::from);
    assert!(matches!(cache.set_with(key.as_bytes(), value, options, 1_000), Effect::Now(_)));
}

#[tokio::test]
async fn lives_go_on_while_the_process_is_away() {
    let dir = tempdir();
    let path = dir.join("l1");
    let old = cache();
    set(&old, "a", Some("one"));
    set(&old, "gone", None);
    assert_eq!(old.write_snapshot(&path, 2_000, 50_000).expect("written"), 2);
    let new = cache();
    assert_eq!(new.load_snapshot(&path, 9_000, 52_500).expect("read"), 2);
    let answer = new.peek(b"a", 9_000).expect("it was in the snapshot");
    assert_eq!((answer.value.as_deref(), answer.age_ms, answer.ttl_ms), (Some(&b"one"[..]), 3_500, 1_500));
    assert_eq!(new.peek(b"gone", 10_500), None, "an absence has no stale windows");
    let late = cache();
    assert_eq!(late.load_snapshot(&path, 9_000, 60_000).expect("read"), 1);
    assert_eq!(late.peek(b"a", 9_000).map(|answer| answer.ttl_ms), Some(0));
    assert!(matches!(cache().load_snapshot(&path, 9_000, 49_999), Err(SnapshotError::Future)));
    std::fs::remove_dir_all(dir).expect("removed");
}

#[tokio::test]
async fn a_file_that_was_changed_or_cut_short_is_refused() {
    let dir = tempdir();
    let path = dir.join("l1");
    let old = cache();
    set(&old, "a", Some("one"));
    old.write_snapshot(&path, 2_000, 50_000).expect("written");
    let whole = std::fs::read(&path).expect("read");
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        std::fs::write(&path, &changed).expect("written");
        assert!(cache().load_snapshot(&path, 2_000, 50_000).is_err(), "byte {at} was changed");
        std::fs::write(&path, &whole[..at]).expect("written");
        assert!(cache().load_snapshot(&path, 2_000, 50_000).is_err(), "cut at {at}");
    }
    std::fs::remove_dir_all(dir).expect("removed");
}

fn tempdir() -> std::path::PathBuf {
    let unique = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), std::process::id());
    let dir = std::env::temp_dir().join(format!("terrace-cache-{unique:x}"));
    std::fs::create_dir(&dir).expect("made");
    dir
}
