//! Brokers that are away.

use e2e::stack::Kafka;

use crate::hub::*;

#[tokio::test(flavor = "multi_thread")]
async fn brokers_that_go_and_come_back_are_found_again_without_loss() {
    let kafka = Kafka::start();
    let (topic, group) = (topic(&kafka, 2), unique("group"));
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("error.log");
    let (member, node) = (Recorder::new(), Recorder::new());
    let consumer = start_logging(group_options(brokers(&kafka), &topic, &group), &member, log_to(&log));
    let listener = start(node_options(brokers(&kafka), &topic), &node);
    let sender = producer(brokers(&kafka));
    publish(&kafka, &topic, 2, 0..20).await;
    let heard = |n: usize| member.distinct().len() == n && node.distinct().len() == n;
    until("the first messages", || heard(20)).await;

    kafka.process.terminate();
    until_stats("the loss is noticed", &consumer, |s| s.client_errors > 0 && s.brokers_up == 0).await;
    for product in 20..40 {
        sender.post(&topic, Some((product % 2) as i32), None, message(product).as_bytes()).expect("room");
    }
    assert_eq!(sender.stats().delivered, 0);
    // Starts while the brokers are away.
    let late = Recorder::new();
    let latecomer = start(node_options(brokers(&kafka), &topic), &late);
    until_stats("it finds nobody", &latecomer, |s| s.client_errors > 0).await;

    kafka.process.launch();
    kafka.process.wait_until_ready();
    sender.flush(120_000).await.expect("what was spooled is delivered");
    until("messages of the outage", || heard(40)).await;
    until("the latecomer, too", || late.distinct().len() >= 20).await;
    let text = std::fs::read_to_string(&log).expect("a log");
    assert!((1..20).contains(&text.lines().count()), "{text}");
    for consumer in [consumer, listener, latecomer] {
        consumer.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_options_are_told_at_once() {
    let recorder = Recorder::new();
    let refused = |options| {
        let (effect, runtime) = (recorder.effect(), tokio::runtime::Handle::current());
        terrace_kafka::Consumer::start(options, products(), effect, Default::default(), &runtime)
            .err()
            .map(|e| e.to_string())
            .unwrap_or_default()
    };
    let good = group_options(vec!["127.0.0.1:1".into()], "t", "g");
    let property = |name: &str, value: &str| {
        let mut options = good.clone();
        options.properties.push((name.into(), value.into()));
        options
    };
    assert!(refused(property("enable.auto.offset.store", "true")).contains("set by other means"));
    assert!(refused(property("no.such.property", "1")).contains("no.such.property"));
    assert!(refused(property("fetch.min.bytes", "many")).contains("fetch.min.bytes"));
    assert!(refused(group_options(vec![], "t", "g")).contains("no broker"));
    let mut without_topic = good.clone();
    without_topic.topics.clear();
    assert!(refused(without_topic).contains("no topic"));
}
