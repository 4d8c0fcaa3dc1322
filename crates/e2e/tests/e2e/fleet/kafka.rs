//! Kafka is away while products change.

use std::time::{Duration, Instant};

use e2e::stack::{Kafka, RedisCluster};

use super::rig::{self, Plan};
use super::shop::Shop;
use super::traffic::{self, MESSAGE_MAX, Rules};

/// Only a message shows a change within the time of a test.
const LIFE: &str = "ttl 10m; stale_while_revalidate 1s; stale_if_error 1h;";
const RULES: Rules = Rules {
    fresh_max: Duration::from_secs(600),
    stale_max: Duration::from_secs(4200),
    message_max: MESSAGE_MAX,
    may_go_back: false,
};

#[test]
fn kafka_is_stopped_while_products_change_and_nothing_is_lost() {
    stopped_for("kafka-stopped", 150..170, Duration::from_secs(5));
}

#[test]
#[ignore = "takes more than a minute"]
fn kafka_is_stopped_for_a_minute_while_products_change() {
    stopped_for("kafka-minute", 170..190, Duration::from_secs(60));
}

fn stopped_for(name: &str, products: std::ops::Range<u32>, time: Duration) {
    let (kafka, db) = (Kafka::start(), rig::database());
    let shop = Shop::new(db, &kafka, name, products);
    let plan = Plan {
        name,
        mariadb: db.port,
        l2: rig::cluster(RedisCluster::shared()),
        kafka: &kafka,
        zookeeper: None,
        life: LIFE,
        action: "drop",
    };
    let nodes = plan.pair(&shop);
    let loads = rig::loads(&nodes);
    let changes = shop.changes();
    traffic::during(&shop, &nodes.each_ref().map(|node| node.port), RULES, |traffic| {
        traffic.wait_for_changes(&shop, 20);
        kafka.process.kill();
        let began = Instant::now();
        while began.elapsed() < time {
            traffic.wait_for_changes(&shop, 10);
        }
        // What changed last is told after the broker is back.
        traffic.rest();
        kafka.process.restart();
        traffic.freeze(&shop);
        nodes.iter().for_each(|node| node.wait_until_current(&shop));
        traffic.wait_for_responses(100);
    });
    // All changes of the outage come at once, and none costs more than it does alone.
    let (loads, changes) = (rig::loads(&nodes) - loads, shop.changes() - changes);
    println!("{loads} loads for {changes} changes");
    assert!(loads <= 3 * changes, "{loads} loads for {changes} changes");
}
