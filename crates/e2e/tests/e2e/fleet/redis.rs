//! Redis Cluster loses a master, and all of its servers; a Redis is slow.

use std::time::{Duration, Instant};

use e2e::stack::resp::Reply;
use e2e::stack::{DelayProxy, Kafka, Redis, RedisCluster};
use e2e::wait_for;

use super::rig::{self, Node, Plan};
use super::shop::Shop;
use super::traffic::{self, Rules};

/// Lives that are short enough to see old values die: past L2, what Kafka's message did to L2 may be lost with a master,
/// and the age is what bounds a value then.
const LIFE: &str = "ttl 4s; jitter 0%; stale_while_revalidate 1s; stale_if_error 20s;";
const RULES: Rules = Rules {
    // The life, a load, and an answer of L2.
    fresh_max: Duration::from_millis(4_000 + 2_000 + 500),
    stale_max: Duration::from_millis(24_000 + 2_000 + 500),
    message_max: Duration::MAX,
    may_go_back: true,
};
/// The shortest life of a value here: one that was loaded past L2.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

fn plan(name: &str, l2: String) -> Plan<'_> {
    let mariadb = rig::database().port;
    Plan { name, mariadb, l2, kafka: Kafka::shared(), zookeeper: None, life: LIFE, action: "drop" }
}

#[test]
fn a_redis_master_is_killed_and_no_page_fails() {
    let redis = RedisCluster::start();
    let shop = Shop::new(rig::database(), Kafka::shared(), "master-killed", 1..25);
    let nodes = plan("master-killed", rig::cluster(&redis)).pair(&shop);
    let herd = Herd::new(&nodes, &shop);
    traffic::during(&shop, &nodes.each_ref().map(|node| node.port), RULES, |traffic| {
        traffic.wait_for_changes(&shop, 20);
        let lost = redis.kill_master_of("any");
        redis.wait_for_failover(lost);
        traffic.wait_for_changes(&shop, 20);
        redis.restart(lost);
        traffic.wait_for_changes(&shop, 20);
        traffic.freeze(&shop);
        nodes.iter().for_each(|node| node.wait_until_current(&shop));
        traffic.wait_for_responses(100);
    });
    herd.assert_none(&nodes, &shop);
}

#[test]
fn all_of_redis_is_stopped_and_comes_back() {
    let redis = RedisCluster::start();
    let shop = Shop::new(rig::database(), Kafka::shared(), "redis-stopped", 25..49);
    let nodes = plan("redis-stopped", rig::cluster(&redis)).pair(&shop);
    let herd = Herd::new(&nodes, &shop);
    traffic::during(&shop, &nodes.each_ref().map(|node| node.port), RULES, |traffic| {
        traffic.wait_for_changes(&shop, 20);
        redis.kill_all();
        traffic.wait_for_changes(&shop, 40);
        // Changes show without L2: every node hears of them by itself.
        traffic.freeze(&shop);
        nodes.iter().for_each(|node| node.wait_until_current(&shop));
        traffic.thaw();
        redis.start_all();
        wait_for("the nodes use Redis again", || {
            let keys = |node: &Redis| match node.call(&["DBSIZE"]) {
                Reply::Int(keys) => keys,
                _ => 0,
            };
            (redis.nodes.iter().map(keys).sum::<i64>() > 0).then_some(())
        });
        traffic.wait_for_changes(&shop, 20);
        traffic.freeze(&shop);
        nodes.iter().for_each(|node| node.wait_until_current(&shop));
        traffic.wait_for_responses(100);
    });
    herd.assert_none(&nodes, &shop);
}

#[test]
fn redis_is_slow_and_lookups_go_past_it() {
    let redis = Redis::start();
    let proxy = DelayProxy::start(redis.address());
    let shop = Shop::new(rig::database(), Kafka::shared(), "redis-slow", 49..65);
    let nodes = plan("redis-slow", rig::single(proxy.port)).pair(&shop);
    let herd = Herd::new(&nodes, &shop);
    let timeouts = || nodes.iter().map(|node| node.counter("L2", "timeouts")).sum::<u64>();
    traffic::during(&shop, &nodes.each_ref().map(|node| node.port), RULES, |traffic| {
        traffic.wait_for_changes(&shop, 20);
        proxy.delay(Duration::from_secs(5));
        wait_for("lookups give Redis up", || (timeouts() > 0).then_some(()));
        traffic.wait_for_changes(&shop, 20);
        proxy.stall();
        traffic.wait_for_changes(&shop, 20);
        // Each node hears of changes by itself.
        traffic.freeze(&shop);
        nodes.iter().for_each(|node| node.wait_until_current(&shop));
        traffic.thaw();
        proxy.pass();
        let hits = || nodes.iter().map(|node| node.counter("L2", "hits")).sum::<u64>();
        let before = hits();
        wait_for("the nodes use Redis again", || (hits() > before).then_some(()));
        traffic.freeze(&shop);
        nodes.iter().for_each(|node| node.wait_until_current(&shop));
        traffic.wait_for_responses(100);
    });
    herd.assert_none(&nodes, &shop);
}

/// That there was no stampede to the database.
struct Herd {
    began: Instant,
    loads: u64,
    changes: u64,
}

impl Herd {
    fn new(nodes: &[Node], shop: &Shop<'_>) -> Herd {
        Herd { began: Instant::now(), loads: rig::loads(nodes), changes: shop.changes() }
    }

    /// A node loads a product once in the shortest life, and each change voids at most what a node has on its way, and the
    /// lease in L2.
    fn assert_none(self, nodes: &[Node], shop: &Shop<'_>) {
        let lives = 1 + self.began.elapsed().div_duration_f64(SHORTEST_LIFE) as u64;
        let changes = shop.changes() - self.changes;
        let most =
            nodes.len() as u64 * shop.products().len() as u64 * lives + changes * (nodes.len() as u64 + 1);
        let loads = rig::loads(nodes) - self.loads;
        println!("{loads} loads, at most {most} are due");
        assert!(loads <= most, "{loads} loads, and only {most} are due");
    }
}
