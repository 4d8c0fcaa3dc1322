//! The store on a cluster of three masters and three replicas: slots that move, masters that die, replicas that lag.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use e2e::stack::resp::Reply;
use e2e::stack::{Redis, RedisCluster};
use terrace_cache::{Filled, Found, L2, Notice, Scope};
use terrace_stores::redis::{RedisMode, RedisOptions};
use tokio::task::block_in_place;

use crate::support::{LONG_MS, Store, eventually, options, value};

/// For tests that break nothing.
static SHARED: LazyLock<RedisCluster> = LazyLock::new(RedisCluster::start);

/// Options with a prefix of the test's own, beginning with one node.
fn on(cluster: &RedisCluster, prefix: &str) -> RedisOptions {
    RedisOptions { prefix: prefix.to_owned(), ..options(RedisMode::Cluster, [cluster.nodes[0].address()]) }
}

/// The numbers from 0, as keys; they spread over all masters.
fn keys(count: usize) -> Vec<Bytes> {
    (0..count).map(|at| Bytes::from(at.to_string())).collect()
}

/// Keeps a replica from what its master is told from now on. Connections to the master that are open stay so.
fn cut_off(master: &Redis, replica: &Redis) {
    master.call(&["CONFIG", "SET", "requirepass", "nobody knows"]);
    // The one that set the password may still act.
    let mut inside = master.connect();
    inside.call(&["AUTH", "nobody knows"]).unwrap();
    inside.call(&["CLIENT", "KILL", "TYPE", "replica"]).unwrap();
    e2e::wait_for("the replica is cut off", || {
        (replica.info(&["INFO", "replication"], "master_link_status") == "down").then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_master_has_its_share() {
    let cluster = block_in_place(|| &*SHARED);
    let here = Store::listening(on(cluster, "share")).await;
    let there = Store::listening(on(cluster, "share")).await;
    let keys = keys(300);
    for (at, key) in keys.iter().enumerate() {
        if at % 3 != 0 {
            let token = here.lease(key).await;
            assert_eq!(here.fill(key, token, value(key.clone(), 1)).await, Filled::Stored);
        }
    }
    let found = there.l2.peek(keys.clone()).await.unwrap();
    for (at, (key, found)) in keys.iter().zip(found).enumerate() {
        assert_eq!(found.and_then(|stored| stored.value), (at % 3 != 0).then(|| key.clone()));
    }
    // What a script publishes on any master is heard on every node.
    for store in [&here, &there] {
        eventually("every notice", async || store.notices().len() >= 200).await;
        assert!(store.notices().iter().all(|notice| matches!(notice, Notice::Filled { version: 1, .. })));
    }
    assert_eq!(here.l2.stats().redirections, 0, "the slots are known");
    assert_eq!(there.l2.invalidate(Scope::Prefix("1".into()), 0).await.unwrap(), 75);
    assert_eq!(there.l2.invalidate(Scope::Prefix("".into()), 0).await.unwrap(), 125);
    here.heard("the prefixes", |notice| {
        *notice == Notice::Invalidated { scope: Scope::Prefix("".into()), version: 0 }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_reach_over_the_masters() {
    let cluster = block_in_place(|| &*SHARED);
    let store = Store::open(on(cluster, "tags"));
    for key in keys(100) {
        let mut stored = value(key.clone(), 0);
        stored.tags = vec!["shop".into()];
        store.set(&key, stored).await;
    }
    assert_eq!(store.l2.invalidate(Scope::Tag("shop".into()), 0).await.unwrap(), 100);
    assert!(store.l2.peek(keys(100)).await.unwrap().iter().all(Option::is_none));
}

#[tokio::test(flavor = "multi_thread")]
async fn braces_in_keys_harm_nothing() {
    let cluster = block_in_place(|| &*SHARED);
    let store = Store::open(on(cluster, "braces"));
    for key in [&b"{a}b"[..], b"{", b"}", b"{}", b"{}a", b"a{b}{c}", b"{{a}}", b"}{"] {
        assert_eq!(store.set(key, value(Bytes::copy_from_slice(key), 1)).await, Filled::Stored);
        assert_eq!(store.fresh(key).await.value.as_deref(), Some(key));
    }
    assert_eq!(store.l2.stats().redirections, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moving_slot_is_followed() {
    let cluster = block_in_place(|| &*SHARED);
    let store = Store::listening(on(cluster, "moving")).await;
    store.set(b"{m}old", value("old", 1)).await;
    let from = block_in_place(|| cluster.master_of("{m}"));
    let to = (0..3).find(|node| *node != from).unwrap();
    block_in_place(|| cluster.begin_move("{m}", to));
    // What is still there is found there; what is not is asked for at the new place.
    assert_eq!(store.fresh(b"{m}old").await.version, 1);
    let token = store.lease(b"{m}new").await;
    assert_eq!(store.fill(b"{m}new", token, value("new", 2)).await, Filled::Stored);
    assert_eq!(store.fresh(b"{m}new").await.version, 2);
    let asked = store.l2.stats().redirections;
    assert!(asked >= 3, "{asked}");
    let found = store.l2.peek(vec!["{m}old".into(), "{m}new".into()]).await.unwrap();
    assert_eq!(found.iter().flatten().map(|stored| stored.version).collect::<Vec<_>>(), [1, 2]);
    block_in_place(|| cluster.finish_move("{m}", to));
    let found = store.l2.peek(vec!["{m}old".into(), "{m}new".into()]).await.unwrap();
    assert_eq!(found.iter().flatten().map(|stored| stored.version).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(store.fresh(b"{m}old").await.version, 1);
    // From then on the way is known.
    let followed = store.l2.stats().redirections;
    for _ in 0..10 {
        store.fresh(b"{m}new").await;
    }
    assert_eq!(store.l2.stats().redirections, followed);
    assert_eq!(store.l2.stats().failovers, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_master_is_replaced_in_mid_traffic() {
    let cluster = Arc::new(block_in_place(RedisCluster::start));
    let mut options = on(&cluster, "traffic");
    options.timeout_ms = 1_000;
    let store = Arc::new(Store::listening(options).await);
    let killed = block_in_place(|| cluster.master_of("{k}"));
    assert_ne!(block_in_place(|| cluster.master_of("{other}")), killed);
    let traffic = {
        let (store, cluster) = (store.clone(), cluster.clone());
        tokio::spawn(async move {
            let (mut version, mut acknowledged) = (0, 0);
            // Until the new master has taken writes for a while.
            let mut since = 0;
            while since < 200 {
                version += 1;
                match store.l2.set("{k}".into(), value("v", version)).await {
                    Ok(Filled::Stored) => acknowledged = version,
                    Ok(other) => panic!("{other:?}"),
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
                match store.l2.get("{k}".into(), LONG_MS).await {
                    Ok(Found::Fresh(stored)) => assert!(stored.version <= version),
                    Ok(Found::Lease { token, .. }) => {
                        store.l2.release("{k}".into(), token).await.unwrap_or(())
                    }
                    Ok(Found::Held { .. }) => {}
                    Err(_) => {}
                }
                // The masters that live are not held up.
                let other = store.l2.set("{other}".into(), value("v", version)).await;
                assert_eq!(other, Ok(Filled::Stored));
                if version == 50 {
                    block_in_place(|| cluster.nodes[killed].process.kill());
                }
                if store.l2.stats().failovers > 0 {
                    since += 1;
                }
            }
            (version, acknowledged)
        })
    };
    let (version, acknowledged) = tokio::time::timeout(e2e::PATIENCE, traffic).await.unwrap().unwrap();
    assert!(acknowledged > 50, "{acknowledged} of {version}");
    store.heard("the gap", |notice| *notice == Notice::Gap).await;
    eventually("a fresh value", async || {
        store.l2.set("{k}".into(), value("v", version + 1)).await == Ok(Filled::Stored)
    })
    .await;
    assert_eq!(store.fresh(b"{k}").await.version, version + 1);
    assert!(store.told("failover"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failover_loses_does_not_come_back() {
    let cluster = block_in_place(RedisCluster::start);
    let mut options = on(&cluster, "lost");
    options.connections_per_node = 1;
    let store = Store::listening(options).await;
    store.set(b"{k}set", value("old", 1)).await;
    store.set(b"{k}gone", value("old", 0)).await;
    let master = block_in_place(|| {
        let master = cluster.master_of("{k}");
        let replica = &cluster.nodes[cluster.replicas_of(master)[0]];
        e2e::wait_for("the replica has both", || {
            let count = |node: &Redis| node.call(&["DBSIZE"]);
            (count(replica) == count(&cluster.nodes[master])).then_some(())
        });
        cut_off(&cluster.nodes[master], replica);
        master
    });
    // The master takes these with it.
    assert_eq!(store.set(b"{k}set", value("new", 2)).await, Filled::Stored);
    assert_eq!(store.l2.invalidate(Scope::Key("{k}gone".into()), 0).await.unwrap(), 1);
    block_in_place(|| {
        cluster.nodes[master].process.kill();
        cluster.wait_for_failover(master);
    });
    eventually("the store notices", async || store.l2.stats().failovers > 0).await;
    eventually("the writes are made again", async || store.told("made again after a failover")).await;
    for key in [&b"{k}set"[..], b"{k}gone"] {
        let found = store.get(key).await;
        assert!(matches!(found, Found::Lease { stale: None, .. }), "{found:?}");
    }
    assert_eq!(store.set(b"{k}set", value("old", 1)).await, Filled::Older(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_is_not_believed() {
    let cluster = block_in_place(RedisCluster::start);
    let mut options = on(&cluster, "replica");
    options.replica_reads = true;
    options.connections_per_node = 1;
    let reader = Store::listening(options.clone()).await;
    let writer = Store::open(options);
    writer.set(b"{k}", value("old", 1)).await;
    eventually("a replica answers", async || {
        assert_eq!(reader.fresh(b"{k}").await.version, 1);
        reader.l2.stats().replica_hits > 0
    })
    .await;
    let hits = reader.l2.stats().replica_hits;
    assert_eq!(reader.l2.peek(vec!["{k}".into()]).await.unwrap()[0].as_ref().unwrap().version, 1);
    block_in_place(|| {
        let master = cluster.master_of("{k}");
        cut_off(&cluster.nodes[master], &cluster.nodes[cluster.replicas_of(master)[0]]);
    });
    reader.forget_notices();
    writer.set(b"{k}", value("new", 2)).await;
    reader.heard("the fill", |notice| matches!(notice, Notice::Filled { version: 2, .. })).await;
    for _ in 0..5 {
        assert_eq!(reader.fresh(b"{k}").await.version, 2);
        assert_eq!(reader.l2.peek(vec!["{k}".into()]).await.unwrap()[0].as_ref().unwrap().version, 2);
    }
    assert!(reader.l2.stats().replica_hits >= hits);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_was_away_comes_back() {
    let cluster = block_in_place(RedisCluster::start);
    let mut options = on(&cluster, "away");
    options.timeout_ms = 500;
    let store = Store::listening(options).await;
    eventually("a first call", async || store.l2.set("k".into(), value("v", 1)).await.is_ok()).await;
    block_in_place(|| cluster.kill_all());
    for _ in 0..5 {
        assert!(store.l2.get("k".into(), LONG_MS).await.is_err());
        assert!(store.l2.peek(keys(10)).await.is_err());
    }
    assert_eq!(store.notices().iter().filter(|notice| **notice == Notice::Gap).count(), 0);
    block_in_place(|| cluster.start_all());
    eventually("calls again", async || store.l2.set("k".into(), value("v", 2)).await.is_ok()).await;
    store.heard("the gap", |notice| *notice == Notice::Gap).await;
    let server = &cluster.nodes[0];
    assert_eq!(block_in_place(|| server.call(&["PING"])), Reply::Status("PONG".into()));
}
