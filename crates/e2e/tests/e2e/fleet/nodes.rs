//! Two cache nodes that rebuild the same keys, and nodes that are killed.

use std::time::Duration;

use e2e::stack::{Kafka, RedisCluster};
use e2e::wait_for;

use super::rig::{self, Node, Plan};
use super::shop::Shop;
use super::traffic::{self, MESSAGE_MAX, Rules};

const RULES: Rules = Rules {
    fresh_max: Duration::from_secs(600),
    stale_max: Duration::from_secs(4200),
    message_max: MESSAGE_MAX,
    may_go_back: false,
};

#[test]
fn two_nodes_rebuild_the_same_products_while_they_change() {
    let (db, redis) = (rig::own_database(), RedisCluster::shared());
    // Loads take a while, so that they meet each other, and changes.
    let proxy = db.behind_proxy();
    proxy.delay(Duration::from_millis(30));
    let shop = Shop::new(&db, Kafka::shared(), "rebuilds", 1..5);
    let plan = Plan {
        name: "rebuilds",
        mariadb: proxy.port,
        l2: rig::cluster(redis),
        kafka: Kafka::shared(),
        zookeeper: None,
        // A node waits for the other's load for as long as a lease may last.
        life: "ttl 10m; stale_while_revalidate 1s; stale_if_error 1h; held_wait 10s; l2_timeout 2s;",
        action: "drop",
    };
    db.sql("SET GLOBAL general_log_file = 'queries.log', GLOBAL general_log = 1");
    let nodes = plan.pair(&shop);
    traffic::during(&shop, &nodes.each_ref().map(|node| node.port), RULES, |traffic| {
        traffic.wait_for_changes(&shop, 150);
        traffic.freeze(&shop);
        nodes.iter().for_each(|node| node.wait_until_current(&shop));
    });
    let log = std::fs::read(db.process.home().path().join("data/queries.log")).expect("the log of queries");
    let log = String::from_utf8_lossy(&log);
    for id in shop.products() {
        let query = format!("WHERE id = {id}");
        let is_load = |line: &&str| line.contains("Execute") && line.ends_with(&query);
        let loads = log.lines().filter(is_load).count() as u64;
        // A lease ends with its load unless a change voids it: in L2, and with it what each node has on its way.
        let most = 1 + (shop.versions(id) - 1) * (nodes.len() as u64 + 1);
        println!("product {id}: {loads} loads, {} versions", shop.versions(id));
        assert!(loads > 0 && loads <= most, "product {id}: {loads} loads, and at most {most} leases");
    }
    let taken = nodes.iter().map(|node| node.counter("source", "timeouts")).sum::<u64>();
    assert_eq!(taken, 0, "no lease ran out");
}

#[test]
fn nodes_are_killed_and_begin_with_their_snapshots() {
    let (db, redis) = (rig::database(), RedisCluster::shared());
    let shop = Shop::new(db, Kafka::shared(), "nodes-killed", 250..350);
    let plan = Plan {
        name: "nodes-killed",
        mariadb: db.port,
        l2: rig::cluster(redis),
        kafka: Kafka::shared(),
        zookeeper: None,
        life: "ttl 10m; stale_while_revalidate 1s; stale_if_error 1h; snapshot l1.snapshot interval=200ms;",
        action: "drop",
    };
    let nodes = plan.pair(&shop);
    let [first, second] = nodes.each_ref().map(|node| node.port.to_string());
    let dispatch = Node::start(include_str!("dispatch.conf"), &[("FIRST", &first), ("SECOND", &second)]);
    // Who is sent to another node may see what that one has not heard of yet.
    let rules = Rules { may_go_back: true, ..RULES };
    traffic::during(&shop, &[dispatch.port], rules, |traffic| {
        for node in &nodes {
            traffic.wait_for_changes(&shop, 10);
            let snapshot = node.process.home().path().join("l1.snapshot");
            wait_for("a snapshot", || snapshot.exists().then_some(()));
            node.process.kill();
            let before = shop.changes();
            traffic.wait_for_changes(&shop, 20);
            node.process.restart();
            node.warm(&shop);
            let (loads, changes) = (node.loads(), shop.changes() - before);
            println!("{loads} loads after a start with a snapshot, {changes} changes");
            assert!(loads <= 3 * changes, "{loads} loads by a node that began with its snapshot");
            assert!(node.error_log().contains("values of the snapshot"), "{}", node.error_log());
            // Until then the dispatch node has one node to ask, which is the next to be killed.
            let hits = node.counter("L1", "hits");
            wait_for("it is asked again", || (node.counter("L1", "hits") > hits).then_some(()));
        }
        traffic.freeze(&shop);
        nodes.iter().for_each(|node| node.wait_until_current(&shop));
    });
}
