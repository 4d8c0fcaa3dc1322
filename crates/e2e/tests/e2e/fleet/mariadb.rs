//! The source is away, slow, and answers with errors.

use std::time::Duration;

use e2e::stack::{Kafka, MariaDb, RedisCluster};
use e2e::wait_for;

use super::rig::{self, Node, Plan};
use super::shop::Shop;
use super::traffic::{self, Rules};

const LIFE: &str =
    "ttl 1s; jitter 0%; stale_while_revalidate 1s; stale_if_error 2m; error_retry 1s; on_change refresh;";
const RULES: Rules = Rules {
    // The life, a load, and an answer of L2.
    fresh_max: Duration::from_millis(1_000 + 2_000 + 500),
    stale_max: Duration::from_millis(121_000 + 2_000 + 500),
    message_max: Duration::MAX,
    may_go_back: true,
};
/// A product that nobody asks for but once.
const COLD: u32 = 999;

#[test]
fn mariadb_is_stopped_and_what_is_stale_is_served() {
    let db = rig::own_database();
    source_is_lost_and_found(&db, "mariadb-stopped", || db.process.kill(), || db.process.restart());
}

#[test]
fn mariadb_answers_with_errors_and_what_is_stale_is_served() {
    let db = rig::own_database();
    let rename = |from: &str, to: &str| drop(db.sql(&format!("RENAME TABLE {from} TO {to}")));
    source_is_lost_and_found(
        &db,
        "mariadb-errors",
        || rename("product", "away"),
        || rename("away", "product"),
    );
}

fn source_is_lost_and_found(db: &MariaDb, name: &str, lose: impl Fn(), find: impl Fn()) {
    let shop = Shop::new(db, Kafka::shared(), name, 1..17);
    let plan = Plan {
        name,
        mariadb: db.port,
        l2: rig::cluster(RedisCluster::shared()),
        kafka: Kafka::shared(),
        zookeeper: None,
        life: LIFE,
        action: "refresh",
    };
    let nodes = plan.pair(&shop);
    traffic::during(&shop, &nodes.each_ref().map(|node| node.port), RULES, |traffic| {
        traffic.wait_for_changes(&shop, 20);
        traffic.freeze(&shop);
        let herd = Herd::begin(&nodes);
        lose();
        // More than all windows but that for errors are long.
        herd.wait_until_stale(traffic);
        assert_eq!(nodes[0].product(COLD).status, 503, "there is nothing to serve");
        find();
        herd.wait_until_fresh(traffic, &nodes, &shop);
        herd.assert_none(&nodes, &shop);
        traffic.thaw();
        traffic.wait_for_changes(&shop, 20);
        traffic.freeze(&shop);
        nodes.iter().for_each(|node| node.wait_until_current(&shop));
        wait_for("what was never loaded", || (nodes[0].product(COLD).status == 200).then_some(()));
    });
}

#[test]
fn mariadb_takes_five_seconds_and_what_is_stale_is_served() {
    let (db, redis) = (rig::database(), RedisCluster::shared());
    let proxy = db.behind_proxy();
    let shop = Shop::new(db, Kafka::shared(), "mariadb-slow", 100..116);
    let plan = Plan {
        name: "mariadb-slow",
        mariadb: proxy.port,
        l2: rig::cluster(redis),
        kafka: Kafka::shared(),
        zookeeper: None,
        life: LIFE,
        action: "refresh",
    };
    let nodes = plan.pair(&shop);
    traffic::during(&shop, &nodes.each_ref().map(|node| node.port), RULES, |traffic| {
        traffic.wait_for_changes(&shop, 20);
        let herd = Herd::begin(&nodes);
        proxy.delay(Duration::from_secs(5));
        herd.wait_until_stale(traffic);
        // Products change, and messages tell of it: the old value is what there is.
        traffic.wait_for_changes(&shop, 20);
        traffic.freeze(&shop);
        proxy.pass();
        herd.wait_until_fresh(traffic, &nodes, &shop);
        nodes.iter().for_each(|node| node.wait_until_current(&shop));
    });
}

/// What the source is asked while it is away, and when it is back.
struct Herd {
    began: std::time::Instant,
    loads: u64,
}

impl Herd {
    fn begin(nodes: &[Node]) -> Herd {
        Herd { began: std::time::Instant::now(), loads: rig::loads(nodes) }
    }

    /// Waits until much of what is served is stale.
    fn wait_until_stale(&self, traffic: &traffic::Traffic) {
        let enough = traffic.stale() + 500;
        wait_for("stale values are served", || (traffic.stale() >= enough).then_some(()));
    }

    /// Waits until loads succeed.
    fn wait_until_fresh(&self, traffic: &traffic::Traffic, nodes: &[Node], shop: &Shop<'_>) {
        for node in nodes {
            let fresh = |id| node.product(id).header("X-Cache-Level") != Some("stale");
            wait_for("loads succeed", || fresh(shop.products().start).then_some(()));
        }
        traffic.wait_for_responses(100);
    }

    /// A node tries each product once in `error_retry` or in a life, and they are as long.
    fn assert_none(&self, nodes: &[Node], shop: &Shop<'_>) {
        let tries = 1 + self.began.elapsed().as_secs();
        // And the product that is not in memory, which everybody who asks tries.
        let most = nodes.len() as u64 * shop.products().len() as u64 * tries + 1;
        let loads = rig::loads(nodes) - self.loads;
        println!("{loads} loads, at most {most} are due");
        assert!(loads <= most, "{loads} loads, and only {most} are due");
    }
}
