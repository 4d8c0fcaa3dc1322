//! Locks of a real ZooKeeper.

mod relay;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use e2e::stack::{Home, ZooKeeper};
use terrace_cache::{FleetLock, L2Error, LockGuard};
use terrace_stores::{ZooKeeperLock, ZooKeeperOptions};
use zookeeper_client::Client;

use relay::Relay;

/// How long a condition may take; far more than it ever does.
const PATIENCE: Duration = Duration::from_secs(120);
/// A wait that is never used up.
const LONG_MS: u64 = 120_000;

fn options(zookeeper: &ZooKeeper, base: &str) -> ZooKeeperOptions {
    ZooKeeperOptions {
        base: base.into(),
        session_timeout_ms: 4_000,
        timeout_ms: 60_000,
        ..ZooKeeperOptions::new(zookeeper.address().to_string())
    }
}

/// A node of the fleet: a session of its own.
fn node(zookeeper: &ZooKeeper, base: &str) -> Arc<ZooKeeperLock> {
    Arc::new(ZooKeeperLock::new(options(zookeeper, base)).expect("options are right"))
}

async fn take(node: &ZooKeeperLock, key: &'static [u8], wait_ms: u64) -> Option<LockGuard> {
    node.lock(Bytes::from_static(key), wait_ms).await.expect("ZooKeeper is there")
}

async fn until<F: Future<Output = bool>>(what: &str, holds: impl Fn() -> F) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The nodes of all locks below a base.
async fn contenders(client: &Client, base: &str) -> Vec<String> {
    let mut found = Vec::new();
    for dir in client.list_children(base).await.unwrap_or_default() {
        found.extend(client.list_children(&format!("{base}/{dir}")).await.unwrap_or_default());
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn one_holds_and_the_others_wait_their_time() {
    let zookeeper = ZooKeeper::shared();
    let (a, b) = (node(zookeeper, "/one/holds"), node(zookeeper, "/one/holds"));
    let held = take(&a, b"k", 0).await;
    assert!(held.is_some());
    assert!(take(&b, b"k", 0).await.is_none());
    assert!(take(&b, b"k", 20).await.is_none());
    assert!(take(&a, b"k", 0).await.is_none(), "the same node's other loads wait, too");
    assert!(take(&b, b"another", 0).await.is_some());

    let waiting = tokio::spawn(async move { take(&b, b"k", LONG_MS).await.is_some() });
    let client = Client::connect(&zookeeper.address().to_string()).await.expect("ZooKeeper is there");
    until("the other one stands in line", || async { contenders(&client, "/one/holds").await.len() == 2 })
        .await;
    assert!(!waiting.is_finished());
    drop(held);
    assert!(waiting.await.expect("no panic"));
}

#[tokio::test(flavor = "multi_thread")]
async fn at_no_time_do_two_hold() {
    let zookeeper = ZooKeeper::shared();
    let nodes = [node(zookeeper, "/two"), node(zookeeper, "/two"), node(zookeeper, "/two")];
    let (inside, total) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let tasks: Vec<_> = (0..30)
        .map(|n| {
            let (node, inside, total) = (Arc::clone(&nodes[n % 3]), Arc::clone(&inside), Arc::clone(&total));
            tokio::spawn(async move {
                let guard = take(&node, b"k", LONG_MS).await.expect("its turn comes");
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::task::yield_now().await;
                inside.fetch_sub(1, Ordering::SeqCst);
                total.fetch_add(1, Ordering::SeqCst);
                drop(guard);
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no two at once");
    }
    assert_eq!(total.load(Ordering::SeqCst), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_gives_up_leaves_nothing_behind() {
    let zookeeper = ZooKeeper::shared();
    let (a, b) = (node(zookeeper, "/gives/up"), node(zookeeper, "/gives/up"));
    let held = take(&a, b"k", 0).await.expect("free");
    // Dropped at every stage: before the creation is sent, in the middle of it, and in line.
    for n in 0..40 {
        let attempt = b.lock(Bytes::from_static(b"k"), LONG_MS);
        tokio::select! {
            biased;
            end = attempt => panic!("the lock is held: {end:?}"),
            () = async { for _ in 0..n { tokio::task::yield_now().await } } => {}
        }
    }
    assert!(take(&b, b"k", 1).await.is_none());
    let client = Client::connect(&zookeeper.address().to_string()).await.expect("ZooKeeper is there");
    until("one contender is left", || async { contenders(&client, "/gives/up").await.len() == 1 }).await;
    drop(held);
    until("none is left", || async { contenders(&client, "/gives/up").await.is_empty() }).await;
    assert!(take(&b, b"k", 0).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn any_bytes_are_a_key() {
    let zookeeper = ZooKeeper::shared();
    let a = node(zookeeper, "/bytes");
    let long = Bytes::from(vec![b'x'; 100_000]);
    let keys = [&b""[..], b"/", b"..", b"a/b", b"\0", b"\xff\xfe", "中文".as_bytes(), b"zookeeper", &long];
    let mut guards = Vec::new();
    for key in keys {
        let key = Bytes::copy_from_slice(key);
        guards.push(a.lock(key.clone(), 0).await.expect("ZooKeeper is there").expect("a lock of its own"));
        assert!(a.lock(key, 0).await.expect("ZooKeeper is there").is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_locks_of_a_node_that_dies_go_with_its_session() {
    let zookeeper = ZooKeeper::shared();
    // A runtime of its own, which takes the session's heartbeats with it as a process would.
    let dying = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let a = node(zookeeper, "/dies");
    let guard = dying.spawn(async move { (take(&a, b"k", 0).await, a) }).await.expect("no panic");
    assert!(guard.0.is_some());
    let b = node(zookeeper, "/dies");
    assert!(take(&b, b"k", 0).await.is_none());
    dying.shutdown_background();
    assert!(take(&b, b"k", LONG_MS).await.is_some());
    drop(guard);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_is_replaced_and_its_locks_are_free() {
    let zookeeper = ZooKeeper::start();
    let (a, b) = (node(&zookeeper, "/lost"), node(&zookeeper, "/lost"));
    let held = take(&a, b"k", 0).await;
    assert!(take(&b, b"k", 0).await.is_none());
    zookeeper.process.restart();
    // The sessions outlive a short absence, and so does the lock.
    until("the session goes on", || async { b.lock(Bytes::from_static(b"other"), 0).await.is_ok() }).await;
    assert!(take(&b, b"k", 0).await.is_none());
    drop(held);
    assert!(take(&b, b"k", LONG_MS).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_whose_release_got_lost_is_released_again() {
    let zookeeper = ZooKeeper::shared();
    let relay = Relay::start(zookeeper.address().to_string()).await;
    let base = "/release/lost";
    let way = ZooKeeperOptions { servers: relay.address.clone(), ..options(zookeeper, base) };
    let (a, b) = (ZooKeeperLock::new(way).expect("options are right"), node(zookeeper, base));
    let held = take(&a, b"k", 0).await;
    assert!(held.is_some());
    relay.break_next();
    drop(held);
    until("the connection is reset", || async { relay.has_broken() }).await;
    let held = take(&b, b"k", LONG_MS).await;
    assert!(held.is_some());
    // The session has gone on all the while.
    assert!(take(&a, b"k", 0).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_away_is_an_error_in_bounded_time_and_found_again() {
    let zookeeper = ZooKeeper::start();
    let mut short = options(&zookeeper, "/away");
    short.timeout_ms = 300;
    let a = ZooKeeperLock::new(short).expect("options are right");
    let key = || Bytes::from_static(b"k");
    until("a lock", || async { matches!(a.lock(key(), 0).await, Ok(Some(_))) }).await;
    zookeeper.process.kill();
    until("the absence is told", || async { a.lock(key(), 0).await.is_err() }).await;
    // The session ends meanwhile, and attempts to connect fail.
    until("an end of the session", || async {
        matches!(a.lock(key(), 0).await, Err(L2Error::Unavailable(text)) if text.contains("no available hosts"))
    })
    .await;
    zookeeper.process.restart();
    until("a lock again", || async { matches!(a.lock(key(), 0).await, Ok(Some(_))) }).await;

    zookeeper.process.pause();
    until("silence is told", || async { matches!(a.lock(key(), 0).await, Err(L2Error::Timeout(300))) }).await;
    zookeeper.process.resume();
    until("a lock after the silence", || async { matches!(a.lock(key(), 0).await, Ok(Some(_))) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_and_nonsense_are_told_apart() {
    let mut home = Home::temporary("nobody");
    let nobody = ZooKeeperOptions::new(format!("127.0.0.1:{}", home.port()));
    let lock = ZooKeeperLock::new(nobody.clone()).expect("options are right");
    assert!(matches!(lock.lock(Bytes::new(), 0).await, Err(L2Error::Unavailable(_))));
    for base in ["", "locks", "/", "/a//b", "/a/", "/a/../b", "/a\u{0}"] {
        let wrong = ZooKeeperOptions { base: base.into(), ..nobody.clone() };
        assert!(matches!(ZooKeeperLock::new(wrong), Err(L2Error::Refused(_))), "{base}");
    }
}
