//! The access log in Kafka.

use std::collections::BTreeMap;

use e2e::server::Server;
use e2e::stack::Kafka;
use e2e::wait_for;

const PARTITIONS: i32 = 3;

fn status(server: &Server) -> serde_json::Value {
    serde_json::from_slice(&server.get("/status").body).expect("JSON")
}

/// The records of the topic: partition, key, value.
fn records(kafka: &Kafka) -> Vec<(i32, Option<String>, serde_json::Value)> {
    let of = |partition| {
        kafka.records("access-log", partition, 0).into_iter().map(move |r| {
            let key = r.key.as_ref().map(|k| String::from_utf8_lossy(k).into_owned());
            (partition, key, serde_json::from_str(&r.text()).expect("JSON"))
        })
    };
    (0..PARTITIONS).flat_map(of).collect()
}

#[test]
fn requests_are_records_in_the_order_of_their_product() {
    let kafka = Kafka::shared();
    kafka.create_topic("access-log", PARTITIONS);
    let (server, _) = super::start("kafka-access-log", [8080], &[(9092, kafka.port)]);
    // One connection is one worker's, and a worker sends in order.
    let mut client = server.connect();
    for round in 0..5 {
        for product in 1..=8 {
            let path = format!("/product?productId={product}&round={round}");
            client.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).expect("sent");
            assert_eq!(client.read_response(false).expect("an answer").status, 200);
        }
    }
    let request = format!(
        "GET /other%ff?x={} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: test\r\nAuthorization: secret\r\n\r\n",
        "y".repeat(2000)
    );
    client.send(request.as_bytes()).expect("sent");
    assert_eq!(client.read_response(false).expect("an answer").status, 200);

    let all = wait_for("all records", || Some(records(kafka)).filter(|r| r.len() >= 41));
    assert_eq!(all.len(), 41, "each request is there once");
    let mut products: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (partition, key, value) in &all {
        if value["path"] == "/product" {
            assert_eq!(value["args"]["productId"].as_str(), key.as_deref(), "{value}");
            products.entry(key.clone()).or_default().push((*partition, value["args"]["round"].clone()));
        }
    }
    assert_eq!(products.len(), 8);
    for (product, seen) in &products {
        assert!(seen.iter().all(|(partition, _)| *partition == seen[0].0), "{product:?} is in one partition");
        let rounds: Vec<_> = seen.iter().map(|(_, round)| round.as_str().expect("a text")).collect();
        assert_eq!(rounds, ["0", "1", "2", "3", "4"], "{product:?}");
    }
    let used: std::collections::BTreeSet<_> = products.values().map(|seen| seen[0].0).collect();
    assert!(used.len() > 1, "products are spread over the partitions");

    let (_, _, other) = all.iter().find(|(_, _, v)| v["path"] != "/product").expect("the other request");
    assert_eq!(other["path"], "/other%FF");
    assert_eq!(other["args"]["x"].as_str().map(str::len), Some(1024), "texts are cut");
    assert_eq!(other["headers"], serde_json::json!({ "host": "localhost", "user-agent": "test" }));
    assert_eq!(
        (&other["status"], &other["method"], &other["client"]),
        (&200.into(), &"GET".into(), &"127.0.0.1".into())
    );
    assert_eq!(status(&server), serde_json::json!({ "taken": 41, "dropped": 0, "lost": 0 }));

    // The document's own script, as it stands.
    let seed = server.get("/seed?productId=77");
    assert_eq!(seed.status, 200, "{}", server.error_log());
    let record = wait_for("its record", || records(kafka).into_iter().find(|r| r.1.as_deref() == Some("77")));
    assert_eq!(record.2["uri_args"]["productId"], "77");
    assert_eq!(record.2["method"], "GET");
}

#[test]
fn without_kafka_pages_come_and_the_loss_is_told() {
    let (server, _) = super::start("kafka-access-log", [8080], &[(9092, e2e::free_ports::<1>()[0])]);
    for _ in 0..10 {
        assert_eq!(server.get("/product?productId=1").status, 200);
    }
    wait_for("all are given up", || (status(&server)["lost"] == 10).then_some(()));
    assert_eq!(status(&server), serde_json::json!({ "taken": 10, "dropped": 0, "lost": 10 }));
    server.wait_for_log("are lost: ");
}
