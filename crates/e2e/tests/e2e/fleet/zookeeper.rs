//! The lock service is away.

use std::time::Duration;

use e2e::stack::{DelayProxy, Kafka, RedisCluster, ZooKeeper};

use super::rig::{self, Plan};
use super::shop::Shop;
use super::traffic::{self, MESSAGE_MAX, Rules};

const RULES: Rules = Rules {
    fresh_max: Duration::from_secs(600),
    stale_max: Duration::from_secs(4200),
    message_max: MESSAGE_MAX,
    may_go_back: false,
};

#[test]
fn zookeeper_is_away_and_loads_go_on() {
    let (db, redis) = (rig::database(), RedisCluster::shared());
    let proxy = DelayProxy::start(ZooKeeper::shared().address());
    let shop = Shop::new(db, Kafka::shared(), "zookeeper-away", 400..410);
    let plan = Plan {
        name: "zookeeper-away",
        mariadb: db.port,
        l2: rig::cluster(redis),
        kafka: Kafka::shared(),
        zookeeper: Some(proxy.port),
        life: "ttl 10m; stale_while_revalidate 1s; stale_if_error 1h;",
        action: "drop",
    };
    let nodes = plan.pair(&shop);
    traffic::during(&shop, &nodes.each_ref().map(|node| node.port), RULES, |traffic| {
        let current = || {
            traffic.wait_for_changes(&shop, 10);
            traffic.freeze(&shop);
            nodes.iter().for_each(|node| node.wait_until_current(&shop));
            traffic.thaw();
        };
        current();
        proxy.refuse();
        current();
        proxy.accept();
        current();
        proxy.stall();
        current();
        proxy.pass();
        current();
    });
}
