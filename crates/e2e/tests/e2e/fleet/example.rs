//! The example `eshop-fleet` as it is, but for its ports.

use e2e::http;
use e2e::stack::fleet::{Fleet, NODES};
use e2e::stack::{Home, Kafka, RedisCluster, ZooKeeper};
use e2e::wait_for;

use super::rig;

#[test]
fn the_example_fleet_serves_pages_from_a_node_each_and_shows_changes() {
    let (db, redis, kafka) = (rig::database(), RedisCluster::shared(), Kafka::shared());
    kafka.create_topic("cache-message", 4);
    let mut homes = NODES.map(|(name, ..)| Home::temporary(name));
    let ports = homes.each_mut().map(Home::port);
    let servers = (7001..).zip(redis.nodes.iter().map(|node| node.port));
    let services = [(3306, db.port), (9092, kafka.port), (2181, ZooKeeper::shared().port)];
    let nodes = NODES.iter().zip(ports).map(|(node, port)| (node.2, port));
    let numbers: Vec<_> = servers.chain(services).chain(nodes).collect();
    let fleet = Fleet::copy(Home::temporary("fleet"), &numbers);
    let places = NODES.iter().zip(homes).zip(ports);
    let nodes: Vec<_> = places.map(|((node, home), port)| fleet.start(node.0, home, port)).collect();
    let [cache, first, _, dispatch] = &nodes[..] else { panic!("four nodes") };
    let page = |product: u32| {
        let path = format!("/product?productId={product}&shopId=1");
        http::get(dispatch.port, &path).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let served_by = |product| {
        let page = page(product);
        assert_eq!(page.status, 200, "{}", page.text());
        page.header("X-Served-By").map(str::to_string)
    };
    let seen: std::collections::BTreeSet<_> = (500..530).filter_map(served_by).collect();
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["application-1", "application-2"]);

    // Hours before its life is over.
    db.sql("UPDATE product SET name = 'A Lamp of Another Name' WHERE id = 501");
    kafka.produce(
        "cache-message",
        1,
        "",
        "{\"serviceId\":\"productInfoService\",\"productId\":501,\"shopId\":1}",
    );
    wait_for("the page shows the change", || {
        page(501).text().contains("A Lamp of Another Name").then_some(())
    });
    let json = |path: &str| http::get(cache.port, path).expect("an answer");
    // The message reaches memory and L2 on ways of their own, so that one reload or another may follow.
    wait_for("memory has the product", || {
        (json("/getProductInfo?productId=501").header("X-Cache-Level") == Some("L1")).then_some(())
    });
    assert_eq!(json("/getShelf?name=Lighting").status, 200);

    first.process.kill();
    assert!((500..530).all(|n| page(n).status == 200), "the other node serves all");
}
