//! Leases, fills, versions, invalidations and notices on one server.

use std::sync::Arc;

use bytes::Bytes;
use e2e::stack::Redis;
use e2e::stack::resp::Reply;
use futures_util::future::join_all;
use terrace_cache::{Filled, Found, L2, L2Error, Notice, Scope};
use terrace_stores::redis::{Address, RedisL2, RedisMode, RedisOptions};
use tokio::runtime::Handle;

use crate::support::{LONG_MS, Store, eventually, options, value};

fn start() -> (Redis, RedisOptions) {
    let server = Redis::start();
    let options = options(RedisMode::Single, [server.address()]);
    (server, options)
}

fn key(name: &'static str) -> Scope {
    Scope::Key(name.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_gets_the_lease() {
    let (_server, options) = start();
    let stores: Vec<_> = (0..4).map(|_| Arc::new(Store::open(options.clone()))).collect();
    let asked = (0..32).map(|at| {
        let store = stores[at % stores.len()].clone();
        tokio::spawn(async move { store.get(b"k").await })
    });
    let (mut leases, mut held) = (Vec::new(), 0);
    for found in join_all(asked).await {
        match found.unwrap() {
            Found::Lease { token, stale: None } => leases.push(token),
            Found::Held { remaining_ms, stale: None } if remaining_ms <= LONG_MS => held += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((leases.len(), held), (1, 31));
    assert_ne!(leases[0], 0);
    assert_eq!(stores[0].fill(b"k", leases[0], value("v", 1)).await, Filled::Stored);
    assert_eq!(stores[1].fresh(b"k").await.value.as_deref(), Some(&b"v"[..]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_filled_is_found() {
    let (_server, options) = start();
    let store = Store::open(options);
    let large = Bytes::from(
        (0..1024 * 1024).map(|at: u32| (at.wrapping_mul(2_654_435_769) >> 13) as u8).collect::<Vec<_>>(),
    );
    let binary: &[u8] = b"\0\xff {}*[k]\r\n\\";
    for (name, text) in [(&b""[..], Bytes::new()), (binary, Bytes::from_static(b"x")), (b"large", large)] {
        let mut stored = value(text, u64::MAX);
        stored.tags = vec!["a".into(), "b {c}".into()];
        let token = store.lease(name).await;
        assert_eq!(store.fill(name, token, stored.clone()).await, Filled::Stored);
        let mut found = store.fresh(name).await;
        assert!(found.age_ms < LONG_MS);
        found.age_ms = 0;
        assert_eq!(found, stored);
    }
    let mut absent = value("", 7);
    absent.value = None;
    let token = store.lease(b"absent").await;
    store.fill(b"absent", token, absent).await;
    assert_eq!(store.fresh(b"absent").await.value, None);
    assert!(store.lines.lock().unwrap().is_empty(), "{:?}", store.lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalidation_voids_the_lease() {
    let (_server, options) = start();
    let store = Store::open(options);
    for version in [0, 5] {
        let token = store.lease(b"k").await;
        store.l2.invalidate(key("k"), version).await.unwrap();
        assert_eq!(store.fill(b"k", token, value("old", 9)).await, Filled::Voided);
        assert!(matches!(store.get(b"k").await, Found::Lease { stale: None, .. }));
        store.l2.invalidate(key("k"), 0).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_never_replaces_newer() {
    let (server, options) = start();
    let store = Store::open(options);
    // Neighbours that a double cannot tell apart.
    let new = (1 << 60) + 1;
    assert_eq!(store.set(b"k", value("new", new)).await, Filled::Stored);
    assert_eq!(store.set(b"k", value("old", new - 1)).await, Filled::Older(new));
    assert_eq!(store.set(b"k", value("same", new)).await, Filled::Stored);
    assert_eq!(store.fresh(b"k").await.value.as_deref(), Some(&b"same"[..]));
    // An invalidation keeps what is as new as it says, and drops what is older.
    assert_eq!(store.l2.invalidate(key("k"), new).await.unwrap(), 0);
    assert_eq!(store.fresh(b"k").await.version, new);
    assert_eq!(store.l2.invalidate(key("k"), new + 1).await.unwrap(), 1);
    let token = store.lease(b"k").await;
    assert_eq!(store.fill(b"k", token, value("old", new)).await, Filled::Older(new + 1));
    assert_eq!(store.set(b"k", value("old", new)).await, Filled::Older(new + 1));
    // The refused fill gave its lease back.
    let token = store.lease(b"k").await;
    assert_eq!(store.fill(b"k", token, value("new", new + 1)).await, Filled::Stored);
    // A key of which nothing was known keeps the floor too, and not for ever.
    store.l2.invalidate(key("unknown"), 7).await.unwrap();
    assert_eq!(store.set(b"unknown", value("old", 6)).await, Filled::Older(7));
    let Reply::Int(ttl_ms) = server.call(&["PTTL", "test:shop:k:unknown"]) else { panic!() };
    assert!(ttl_ms > 0 && ttl_ms <= terrace_stores::redis::FLOOR_MS as i64, "{ttl_ms}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_voided_leaves_nothing_behind() {
    let (server, options) = start();
    let store = Store::open(options);
    store.set(b"k", value("v", 0)).await;
    assert_eq!(store.l2.invalidate(key("k"), 0).await.unwrap(), 1);
    assert_eq!(store.l2.invalidate(key("k"), 0).await.unwrap(), 0);
    let token = store.lease(b"k").await;
    store.l2.release("k".into(), token).await.unwrap();
    assert_eq!(server.call(&["DBSIZE"]), Reply::Int(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_is_handed_out_again() {
    let (_server, options) = start();
    let store = Store::open(options);
    let Found::Lease { token: first, .. } = store.l2.get("k".into(), 1).await.unwrap() else { panic!() };
    let mut second = None;
    eventually("the lease runs out", async || {
        let Found::Lease { token, .. } = store.get(b"k").await else { return false };
        second = Some(token);
        true
    })
    .await;
    assert_eq!(store.fill(b"k", first, value("late", 1)).await, Filled::Voided);
    assert_eq!(store.fill(b"k", second.unwrap(), value("v", 1)).await, Filled::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_fill_counts_if_nobody_else_loads() {
    let (server, options) = start();
    let store = Store::open(options);
    // Long enough a stale value that the key outlives the lease.
    let mut stored = value("v", 1);
    stored.ttl_ms = 0;
    store.set(b"k", stored).await;
    let Found::Lease { token, stale: Some(_) } = store.l2.get("k".into(), 1).await.unwrap() else { panic!() };
    eventually("the lease runs out", async || {
        let state = server.call(&["HGET", "test:shop:k:k", "m"]);
        let Reply::Bulk(state) = state else { panic!() };
        let ends: u128 = String::from_utf8(state).unwrap().split(' ').nth(7).unwrap().parse().unwrap();
        std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis() > ends + 1
    })
    .await;
    assert_eq!(store.fill(b"k", token, value("late", 2)).await, Filled::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fill_sent_twice_answers_the_same() {
    let (_server, options) = start();
    let store = Store::open(options);
    let token = store.lease(b"k").await;
    for _ in 0..2 {
        assert_eq!(store.fill(b"k", token, value("v", 3)).await, Filled::Stored);
    }
    // Not after an invalidation, though.
    store.l2.invalidate(key("k"), 0).await.unwrap();
    assert_eq!(store.fill(b"k", token, value("v", 3)).await, Filled::Voided);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stale_value_stands_in() {
    let (_server, options) = start();
    let store = Store::open(options);
    let mut stale = value("stale", 1);
    stale.ttl_ms = 0;
    store.set(b"k", stale).await;
    let Found::Lease { token, stale: Some(found) } = store.get(b"k").await else { panic!() };
    assert_eq!(found.value.as_deref(), Some(&b"stale"[..]));
    let Found::Held { stale: Some(found), .. } = store.get(b"k").await else { panic!() };
    assert_eq!(found.version, 1);
    assert_eq!(store.fill(b"k", token, value("v", 1)).await, Filled::Stored);
    // What is past its whole life is gone.
    let mut dead = value("dead", 1);
    (dead.ttl_ms, dead.dead_ms) = (0, 1);
    store.set(b"gone", dead).await;
    eventually("the value dies", async || match store.get(b"gone").await {
        Found::Lease { token, stale } => {
            store.l2.release("gone".into(), token).await.unwrap();
            stale.is_none()
        }
        other => panic!("{other:?}"),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_hears_what_happens() {
    let (_server, options) = start();
    let (here, there) = (Store::listening(options.clone()).await, Store::listening(options).await);
    let name = Bytes::from_static(b"k\0\xff");
    let token = here.lease(&name).await;
    here.l2.release(name.clone(), token).await.unwrap();
    let token = here.lease(&name).await;
    here.fill(&name, token, value("v", u64::MAX)).await;
    let scopes = [Scope::Key(name.clone()), Scope::Prefix("k".into()), Scope::Tag("t".into())];
    for scope in scopes.clone() {
        here.l2.invalidate(scope, 7).await.unwrap();
    }
    let mut expected =
        vec![Notice::Released { key: name.clone() }, Notice::Filled { key: name, version: u64::MAX }];
    expected.extend(scopes.map(|scope| Notice::Invalidated { scope, version: 7 }));
    for store in [&here, &there] {
        store.heard("the last notice", |notice| Some(notice) == expected.last()).await;
        assert_eq!(store.notices(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_subscription_is_a_gap() {
    let (server, options) = start();
    let store = Store::listening(options).await;
    server.call(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    store.heard("the gap", |notice| *notice == Notice::Gap).await;
    store.forget_notices();
    store.set(b"k", value("v", 1)).await;
    store.heard("notices again", |notice| matches!(notice, Notice::Filled { .. })).await;
    store.forget_notices();
    server.process.restart();
    store.heard("the gap after a restart", |notice| *notice == Notice::Gap).await;
    assert!(store.l2.stats().subscriptions_lost >= 2);
    // The calls find the new server by themselves.
    assert_eq!(store.set(b"k", value("v", 1)).await, Filled::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_a_miss() {
    let (server, options) = start();
    let store = Store::open(options);
    store.set(b"a", value("a", 1)).await;
    store.set(b"b", value("b", 1)).await;
    // A value that lies under another key, one that is cut, one of somebody else.
    let Reply::Bulk(envelope) = server.call(&["HGET", "test:shop:k:a", "v"]) else { panic!() };
    for wrong in [&envelope[..], &envelope[..10], b"{\"id\":1}", b""] {
        server.call::<&[u8]>(&[b"HSET", b"test:shop:k:b", b"v", wrong]);
        assert_eq!(store.l2.peek(vec!["b".into()]).await.unwrap(), [None]);
        let Found::Lease { token, stale: None } = store.get(b"b").await else { panic!() };
        assert!(matches!(store.get(b"b").await, Found::Held { stale: None, .. }));
        assert_eq!(store.fill(b"b", token, value("b", 1)).await, Filled::Stored);
        assert_eq!(store.fresh(b"b").await.value.as_deref(), Some(&b"b"[..]));
    }
    assert!(store.told("the value of \"b\" cannot be read"));
    // A state of somebody else's is none.
    server.call(&["HSET", "test:shop:k:c", "m", "something else", "v", "x"]);
    let token = store.lease(b"c").await;
    assert_eq!(store.fill(b"c", token, value("c", 1)).await, Filled::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_at_the_key_is_left_alone() {
    let (server, options) = start();
    let store = Store::open(options);
    server.call(&["RPUSH", "test:shop:k:list", "x"]);
    let refused = store.l2.get("list".into(), LONG_MS).await.unwrap_err();
    assert!(matches!(&refused, L2Error::Refused(why) if why.contains("WRONGTYPE")), "{refused}");
    assert!(store.l2.set("list".into(), value("v", 1)).await.is_err());
    store.set(b"k", value("v", 1)).await;
    let found = store.l2.peek(vec!["list".into(), "k".into()]).await.unwrap();
    assert!(found[0].is_none() && found[1].is_some());
    assert!(store.told("key \"list\": WRONGTYPE"), "{:?}", store.lines);
    assert_eq!(server.call(&["LLEN", "test:shop:k:list"]), Reply::Int(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_are_peeked_in_one_round_trip() {
    let (server, options) = start();
    let store = Store::open(options);
    for at in (0..200).step_by(2) {
        store.set(format!("{at}").as_bytes(), value(at.to_string(), 1)).await;
    }
    let mut stale = value("stale", 1);
    stale.ttl_ms = 0;
    store.set(b"stale", stale).await;
    let mut keys: Vec<Bytes> = (0..200).map(|at| at.to_string().into()).collect();
    keys.push("stale".into());
    server.call(&["CONFIG", "RESETSTAT"]);
    let found = store.l2.peek(keys).await.unwrap();
    for (at, found) in found[..200].iter().enumerate() {
        let expected = (at % 2 == 0).then(|| Bytes::from(at.to_string()));
        assert_eq!(found.as_ref().and_then(|stored| stored.value.clone()), expected);
    }
    assert_eq!(found[200], None);
    // No lease was handed out.
    assert!(matches!(store.get(b"1").await, Found::Lease { .. }));
    assert!(store.l2.peek(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prefix_is_invalidated() {
    let (_server, options) = start();
    let store = Store::open(options);
    for at in 0..1500 {
        store.set(format!("a*{at}").as_bytes(), value("v", at % 3)).await;
    }
    store.set(b"ab", value("v", 0)).await;
    let token = store.lease(b"a*lease").await;
    // Versions 0 and 1 go, 2 stays.
    assert_eq!(store.l2.invalidate(Scope::Prefix("a*".into()), 2).await.unwrap(), 1000);
    assert_eq!(store.fill(b"a*lease", token, value("v", 2)).await, Filled::Voided);
    assert_eq!(store.fresh(b"a*2").await.version, 2);
    assert_eq!(store.fresh(b"ab").await.version, 0);
    assert_eq!(store.l2.invalidate(Scope::Prefix(Bytes::new()), 0).await.unwrap(), 501);
    assert!(matches!(store.get(b"ab").await, Found::Lease { stale: None, .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_invalidated() {
    let (_server, options) = start();
    let store = Store::open(options);
    let tagged = |tags: &[&str]| {
        let mut stored = value("v", 0);
        stored.tags = tags.iter().map(|tag| (*tag).into()).collect();
        stored
    };
    for at in 0..700 {
        let shop = if at % 2 == 0 { "even" } else { "odd" };
        store.set(format!("{at}").as_bytes(), tagged(&["all", shop])).await;
    }
    // This fill begins before the invalidation and is the first to name its tag after it.
    let late = store.lease(b"late").await;
    assert_eq!(store.l2.invalidate(Scope::Tag("even".into()), 0).await.unwrap(), 350);
    assert_eq!(store.fill(b"late", late, tagged(&["even"])).await, Filled::Voided);
    assert!(matches!(store.get(b"0").await, Found::Lease { .. }));
    assert_eq!(store.fresh(b"1").await.tags, tagged(&["all", "odd"]).tags);
    assert_eq!(store.l2.invalidate(Scope::Tag("all".into()), 0).await.unwrap(), 350);
    assert_eq!(store.l2.invalidate(Scope::Tag("nobody's".into()), 0).await.unwrap(), 0);
    // A lease from well after the invalidation may fill.
    eventually("a fill with the tag", async || {
        let token = store.lease(b"late").await;
        store.fill(b"late", token, tagged(&["even"])).await == Filled::Stored
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_the_server_forgot_are_sent_again() {
    let (server, options) = start();
    let store = Store::open(options);
    store.set(b"k", value("v", 1)).await;
    server.call(&["SCRIPT", "FLUSH"]);
    assert_eq!(store.fresh(b"k").await.version, 1);
    assert_eq!(store.set(b"k", value("w", 2)).await, Filled::Stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_away_is_found_when_it_comes() {
    let (server, mut options) = start();
    server.process.kill();
    options.timeout_ms = 50;
    let store = Store::open(options);
    let away = store.l2.get("k".into(), LONG_MS).await.unwrap_err();
    assert!(matches!(away, L2Error::Unavailable(_) | L2Error::Timeout(50)), "{away}");
    assert!(store.l2.peek(vec!["k".into()]).await.is_err());
    assert!(store.l2.invalidate(Scope::Prefix("".into()), 0).await.is_err());
    server.process.restart();
    eventually("the store finds it", async || store.l2.get("k".into(), LONG_MS).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_costs_a_timeout() {
    let (server, mut options) = start();
    options.timeout_ms = 200;
    let store = Store::open(options);
    eventually("a first call", async || store.l2.set("k".into(), value("v", 1)).await.is_ok()).await;
    server.process.pause();
    for _ in 0..4 {
        let hung = store.l2.get("k".into(), LONG_MS).await.unwrap_err();
        assert!(matches!(hung, L2Error::Timeout(200) | L2Error::Unavailable(_)), "{hung}");
    }
    server.process.resume();
    eventually("it goes on", async || matches!(store.l2.get("k".into(), LONG_MS).await, Ok(Found::Fresh(_))))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_still_drops() {
    let (server, options) = start();
    let mut options = options;
    options.timeout_ms = 300;
    let store = Store::open(options);
    eventually("a first call", async || store.l2.set("k".into(), value("v", 1)).await.is_ok()).await;
    server.call(&["CONFIG", "SET", "maxmemory", "1"]);
    let full = store.l2.set("k".into(), value("w", 2)).await.unwrap_err();
    assert!(matches!(&full, L2Error::Unavailable(why) if why.contains("OOM")), "{full}");
    eventually("the invalidation", async || store.l2.invalidate(key("k"), 0).await.is_ok()).await;
    assert_eq!(server.call(&["DBSIZE"]), Reply::Int(0));
}

#[tokio::test]
async fn passwords_are_shown_and_wrong_ones_are_refused() {
    let (server, mut options) = start();
    server.call(&["ACL", "SETUSER", "cache", "on", ">secret", "~*", "&*", "+@all"]);
    options.username = Some("cache".to_owned());
    options.password = Some("secret".to_owned());
    options.database = 3;
    let store = Store::open(options.clone());
    assert_eq!(store.set(b"k", value("v", 1)).await, Filled::Stored);
    assert_eq!(server.call(&["DBSIZE"]), Reply::Int(0), "it lies in database 3");
    options.password = Some("wrong".to_owned());
    let refused = Store::open(options).l2.get("k".into(), LONG_MS).await.unwrap_err();
    assert!(matches!(refused, L2Error::Refused(_)), "{refused}");
}

#[tokio::test]
async fn nonsense_is_refused_when_opening() {
    let good = options(RedisMode::Single, ["127.0.0.1:1".parse().unwrap()]);
    let refused = |change: &dyn Fn(&mut RedisOptions)| {
        let mut options = good.clone();
        change(&mut options);
        RedisL2::open(options, Handle::current(), Arc::new(|_| ())).unwrap_err().to_string()
    };
    assert!(RedisL2::open(good.clone(), Handle::current(), Arc::new(|_| ())).is_ok());
    assert_eq!(refused(&|o| o.addresses.clear()), "there is no address of a server");
    assert_eq!(refused(&|o| o.addresses.push(Address::new("b", 2))), "a single server has one address");
    assert!(refused(&|o| o.prefix = "a{b}".to_owned()).starts_with("the prefix \"a{b}\" must have"));
    assert_eq!(refused(&|o| o.timeout_ms = 0), "timeout_ms must be 1 to 3600000");
    assert_eq!(refused(&|o| o.replica_reads = true), "a single server has no replicas to read from");
    assert_eq!(
        refused(&|o| (o.mode, o.database) = (RedisMode::Cluster, 1)),
        "a cluster has only the database 0"
    );
    assert_eq!(refused(&|o| o.username = Some("u".to_owned())), "a user needs a password");
    assert!(refused(&|o| o.dictionary = Some(Vec::new())).starts_with("a dictionary has"));
    for (text, expected) in [("a", Some(("a", 6379))), ("a:1", Some(("a", 1))), ("[::1]:2", Some(("::1", 2)))]
    {
        let expected = expected.map(|(host, port)| Address::new(host, port));
        assert_eq!(text.parse().ok(), expected);
    }
    for wrong in ["", ":1", "a:", "a:0", "a:x", "redis://a", "[::1", "::1", "a:99999"] {
        assert!(wrong.parse::<Address>().is_err(), "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_store_listens_no_more() {
    let (server, options) = start();
    let store = Store::listening(options).await;
    drop(store);
    eventually("the subscription ends", async || {
        let Reply::Bulk(list) = server.call(&["CLIENT", "LIST", "TYPE", "pubsub"]) else {
            return false;
        };
        list.is_empty()
    })
    .await;
}
