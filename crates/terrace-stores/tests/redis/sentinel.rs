//! The store on a master that sentinels watch.

use e2e::stack::RedisSentinel;
use e2e::stack::redis_sentinel::MASTER_NAME;
use terrace_cache::{Filled, Found, L2, L2Error, Notice, Scope};
use terrace_stores::redis::{RedisMode, RedisOptions};
use tokio::task::block_in_place;

use crate::support::{LONG_MS, Store, eventually, options, value};

fn on(group: &RedisSentinel, master: &str) -> RedisOptions {
    options(RedisMode::Sentinel { master: master.to_owned() }, group.addresses())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_master_is_found() {
    let group = block_in_place(|| RedisSentinel::start(1));
    let mut options = on(&group, MASTER_NAME);
    options.timeout_ms = 1_000;
    options.replica_reads = true;
    let store = Store::listening(options).await;
    let there = Store::listening(on(&group, MASTER_NAME)).await;
    eventually("a first call", async || store.l2.set("k".into(), value("v", 1)).await == Ok(Filled::Stored))
        .await;
    there.heard("the fill", |notice| matches!(notice, Notice::Filled { version: 1, .. })).await;
    eventually("a replica answers", async || {
        store.fresh(b"k").await;
        store.l2.stats().replica_hits > 0
    })
    .await;
    let killed = block_in_place(|| {
        let killed = group.master().unwrap();
        group.nodes[killed].process.kill();
        killed
    });
    // Bounded, whatever happens meanwhile.
    let mut version = 1;
    eventually("writes again", async || {
        version += 1;
        let found = store.l2.get("k".into(), LONG_MS).await;
        assert!(!matches!(&found, Ok(Found::Fresh(stored)) if stored.version >= version), "{found:?}");
        store.l2.set("k".into(), value("v", version)).await == Ok(Filled::Stored)
    })
    .await;
    block_in_place(|| group.wait_for_failover(killed));
    assert_eq!(store.fresh(b"k").await.version, version);
    assert!(store.l2.stats().failovers >= 1);
    for store in [&store, &there] {
        store.heard("the gap", |notice| *notice == Notice::Gap).await;
    }
    store.l2.invalidate(Scope::Prefix("".into()), 0).await.unwrap();
    there
        .heard("notices from the new master", |notice| {
            *notice == Notice::Invalidated { scope: Scope::Prefix("".into()), version: 0 }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_nobody_knows_is_unavailable() {
    let group = block_in_place(|| RedisSentinel::start(0));
    let mut options = on(&group, "another");
    options.timeout_ms = 200;
    let unknown = Store::open(options).l2.get("k".into(), LONG_MS).await.unwrap_err();
    assert!(matches!(&unknown, L2Error::Unavailable(_) | L2Error::Timeout(_)), "{unknown}");
}
