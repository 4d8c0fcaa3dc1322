//! The memcached store against a real server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use e2e::stack::Memcached;
use futures_util::future::join_all;
use terrace_cache::{Filled, Found, L2, L2Error, LeaseToken, Scope, Stored};
use terrace_stores::memcached::{MemcachedL2, MemcachedOptions};

const LONG_MS: u64 = 3_600_000;

struct Fleet {
    servers: Vec<Memcached>,
    stores: Vec<MemcachedL2>,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Servers, and two stores that share them.
fn start(servers: usize) -> Fleet {
    let servers: Vec<_> = (0..servers).map(|_| Memcached::start()).collect();
    let lines = Arc::new(Mutex::new(Vec::new()));
    let addresses = servers.iter().map(|server| server.address().to_string()).collect();
    let mut options = MemcachedOptions::new(addresses, "test:shop");
    (options.timeout_ms, options.connect_timeout_ms) = (20_000, 5_000);
    let open = |_| {
        let told = lines.clone();
        MemcachedL2::open(options.clone(), Arc::new(move |line| told.lock().unwrap().push(line))).unwrap()
    };
    Fleet { stores: (0..2).map(open).collect(), servers, lines }
}

fn value(text: impl Into<Bytes>, version: u64) -> Stored {
    Stored {
        value: Some(text.into()),
        version,
        age_ms: 0,
        ttl_ms: LONG_MS,
        dead_ms: 2 * LONG_MS,
        tags: Vec::new(),
    }
}

fn tagged(tag: &str) -> Stored {
    Stored { tags: vec![tag.into()], ..value("v", 0) }
}

async fn lease(store: &MemcachedL2, key: &'static str) -> LeaseToken {
    match store.get(key.into(), LONG_MS).await.unwrap() {
        Found::Lease { token, .. } => token,
        other => panic!("no lease: {other:?}"),
    }
}

async fn fresh(store: &MemcachedL2, key: &[u8]) -> Stored {
    match store.get(Bytes::copy_from_slice(key), LONG_MS).await.unwrap() {
        Found::Fresh(stored) => stored,
        other => panic!("not fresh: {other:?}"),
    }
}

async fn is_leased(store: &MemcachedL2, key: &'static str) -> bool {
    matches!(store.get(key.into(), LONG_MS).await.unwrap(), Found::Lease { stale: None, .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_gets_the_lease() {
    let fleet = start(1);
    let asked = (0..32).map(|at| fleet.stores[at % 2].get("k".into(), LONG_MS));
    let found: Vec<Found> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    let leases = found.iter().filter(|found| matches!(found, Found::Lease { .. })).count();
    let held = found.iter().filter(|found| matches!(found, Found::Held { .. })).count();
    assert_eq!((leases, held), (1, 31));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_filled_is_found() {
    let fleet = start(3);
    let long = vec![b'x'; 300];
    for key in [&b""[..], b"plain", b"\0\xff {}\r\n", &long, "ä b".as_bytes()] {
        let key = Bytes::copy_from_slice(key);
        let Found::Lease { token, .. } = fleet.stores[0].get(key.clone(), LONG_MS).await.unwrap() else {
            panic!()
        };
        let stored = Stored { tags: vec!["a b".into()], ..value(vec![b'v'; 500_000], u64::MAX) };
        for _ in 0..2 {
            let filled = fleet.stores[0].fill(key.clone(), token, stored.clone()).await.unwrap();
            assert_eq!(filled, Filled::Stored);
        }
        let found = fresh(&fleet.stores[1], &key).await;
        assert_eq!(Stored { age_ms: 0, ..found }, stored);
    }
    let keys: Vec<Bytes> = vec!["plain".into(), "unknown".into(), long.into()];
    let found = fleet.stores[1].peek(keys).await.unwrap();
    assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    assert!(fleet.lines.lock().unwrap().is_empty(), "{:?}", fleet.lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalidations_void_leases_and_leave_floors() {
    let fleet = start(1);
    let [here, there] = &fleet.stores[..] else { panic!() };
    let token = lease(here, "k").await;
    there.invalidate(Scope::Key("k".into()), 7).await.unwrap();
    assert_eq!(here.fill("k".into(), token, value("v", 6)).await.unwrap(), Filled::Older(7));
    assert_eq!(here.fill("k".into(), token, value("v", 8)).await.unwrap(), Filled::Voided);
    assert_eq!(there.set("k".into(), value("old", 6)).await.unwrap(), Filled::Older(7));
    assert_eq!(there.set("k".into(), value("new", 7)).await.unwrap(), Filled::Stored);
    assert_eq!(here.invalidate(Scope::Key("k".into()), 7).await.unwrap(), 0);
    assert_eq!(fresh(here, b"k").await.version, 7);
    assert_eq!(here.invalidate(Scope::Key("k".into()), 0).await.unwrap(), 1);
    let token = lease(here, "k").await;
    assert!(matches!(there.get("k".into(), LONG_MS).await.unwrap(), Found::Held { .. }));
    here.release("k".into(), token).await.unwrap();
    lease(there, "k").await;
    let token = lease(there, "unknown").await;
    there.release("unknown".into(), token).await.unwrap();
    lease(here, "unknown").await;
    assert!(fleet.lines.lock().unwrap().is_empty(), "{:?}", fleet.lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_invalidated_at_once() {
    let fleet = start(2);
    let [here, there] = &fleet.stores[..] else { panic!() };
    here.set("plain".into(), value("v", 1)).await.unwrap();
    here.set("tagged".into(), tagged("t")).await.unwrap();
    let late = lease(here, "late").await;
    there.invalidate(Scope::Tag("t".into()), 0).await.unwrap();
    assert!(is_leased(here, "tagged").await);
    assert_eq!(here.fill("late".into(), late, tagged("t")).await.unwrap(), Filled::Voided);
    assert_eq!(fresh(here, b"plain").await.version, 1);
    let late = lease(here, "later").await;
    there.invalidate(Scope::Prefix("".into()), 0).await.unwrap();
    assert_eq!(here.fill("later".into(), late, value("v", 1)).await.unwrap(), Filled::Voided);
    assert!(is_leased(here, "plain").await);
    assert_eq!(there.peek(vec!["plain".into()]).await.unwrap(), [None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_runs_out() {
    let fleet = start(1);
    let [here, there] = &fleet.stores[..] else { panic!() };
    let Found::Lease { token, .. } = here.get("k".into(), 1).await.unwrap() else { panic!() };
    let asked = async {
        while !matches!(there.get("k".into(), LONG_MS).await.unwrap(), Found::Lease { .. }) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(e2e::PATIENCE, asked).await.unwrap();
    assert_eq!(here.fill("k".into(), token, value("late", 1)).await.unwrap(), Filled::Voided);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_foreign_is_a_miss_and_what_is_too_large_is_refused() {
    use std::io::{Read, Write};
    let fleet = start(1);
    let mut stream = std::net::TcpStream::connect(fleet.servers[0].address()).unwrap();
    stream.write_all(b"set test:shop:k:k 0 0 7\r\nforeign\r\n").unwrap();
    stream.read_exact(&mut [0; 8]).unwrap();
    let store = &fleet.stores[0];
    let token = lease(store, "k").await;
    assert_eq!(store.fill("k".into(), token, value("v", 1)).await.unwrap(), Filled::Stored);
    assert!(fleet.lines.lock().unwrap()[0].contains("not one of Terrace's"));
    let mut seed = 1u32;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    });
    let large = value(noise.take(2 << 20).collect::<Vec<u8>>(), 1);
    assert!(matches!(store.set("large".into(), large).await, Err(L2Error::Refused(_))));
    assert_eq!(fresh(store, b"k").await.version, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_away_is_found_again() {
    let fleet = start(1);
    let store = &fleet.stores[0];
    store.set("k".into(), value("v", 1)).await.unwrap();
    fleet.servers[0].process.kill();
    assert!(matches!(store.get("k".into(), LONG_MS).await, Err(L2Error::Unavailable(_))));
    tokio::task::block_in_place(|| fleet.servers[0].process.restart());
    assert!(is_leased(store, "k").await);
    assert!(MemcachedL2::open(MemcachedOptions::new(Vec::new(), "p"), Arc::new(|_| ())).is_err());
    assert!(MemcachedL2::open(MemcachedOptions::new(vec!["a".into()], "p"), Arc::new(|_| ())).is_err());
    assert!(MemcachedL2::open(MemcachedOptions::new(vec!["a:1".into()], "a b"), Arc::new(|_| ())).is_err());
}
