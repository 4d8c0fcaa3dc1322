//! The producer: where messages go, in which order, and what becomes of those that cannot go.

use e2e::stack::{Home, Kafka};
use terrace_base::log::ErrorLog;
use terrace_kafka::{Producer, ProducerOptions, SendError};

use crate::hub::*;

/// Murmur2 of texts, as Java's client documents them in its tests.
const MURMUR2: [(&str, i32); 3] =
    [("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)];

#[tokio::test(flavor = "multi_thread")]
async fn a_key_goes_to_the_partition_that_java_sends_it_to_and_keeps_its_order() {
    let kafka = Kafka::shared();
    let topic = topic(kafka, 12);
    let producer = producer(brokers(kafka));
    for (key, hash) in MURMUR2 {
        let mut sent = Vec::new();
        for n in 0..100 {
            sent.push(
                producer.send(&topic, None, Some(key.as_bytes()), n.to_string().as_bytes()).expect("room"),
            );
        }
        for (n, delivery) in sent.into_iter().enumerate() {
            let placed = delivery.await.expect("delivered");
            assert_eq!((placed.partition, placed.offset), ((hash & i32::MAX) % 12, n as i64), "{key}");
        }
    }
    until("the spool is empty", || producer.stats().waiting == 0).await;
    let stats = producer.stats();
    assert_eq!((stats.taken, stats.delivered, stats.lost, stats.dropped, stats.waiting), (300, 300, 0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_cannot_be_sent_are_refused() {
    let kafka = Kafka::shared();
    let topic = topic(kafka, 1);
    let producer = producer(brokers(kafka));
    let large = vec![b'x'; 2_000_000];
    assert!(matches!(producer.post(&topic, None, None, &large), Err(SendError::Refused(_))));
    assert_eq!(producer.stats().refused, 1);
    let there_is_none = producer.send(&topic, Some(9), None, b"x");
    let fate = match there_is_none {
        Ok(delivery) => delivery.await.err(),
        Err(error) => Some(error),
    };
    assert!(fate.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_spool_is_bounded_and_what_is_not_delivered_is_counted() {
    // Held, and nobody listens there.
    let mut home = Home::temporary("nobody");
    let mut options = ProducerOptions::new(vec![format!("127.0.0.1:{}", home.port())]);
    options.spool_messages_max = 10;
    options.delivery_timeout_ms = 5_000;
    let producer = Producer::open(&options, ErrorLog::default()).expect("options are right");
    let sent: Vec<_> = (0..10).map(|n: u8| producer.send("t", None, None, &[n]).expect("room")).collect();
    assert_eq!(producer.post("t", None, None, b"x"), Err(SendError::Full));
    assert_eq!(producer.send("t", None, None, b"x").err(), Some(SendError::Full));
    assert!(producer.flush(1).await.is_err());
    for delivery in sent {
        assert!(matches!(delivery.await, Err(SendError::Lost(_))));
    }
    until("the spool is empty", || producer.stats().waiting == 0).await;
    let stats = producer.stats();
    assert_eq!((stats.taken, stats.lost, stats.dropped, stats.delivered, stats.waiting), (10, 10, 2, 0, 0));
    producer.post("t", None, None, b"x").expect("there is room again");
}
