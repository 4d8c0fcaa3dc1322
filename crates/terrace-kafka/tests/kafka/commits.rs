//! Offsets are committed after the effects, and only then.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;

use e2e::stack::Kafka;
use terrace_base::log::ErrorLog;
use terrace_cache::Scope;
use terrace_kafka::{Consumer, Effect};
use tokio::runtime::Handle;

use crate::hub::*;

/// Tells the child below whom to listen to: brokers, topic, group.
const CHILD: &str = "TERRACE_KAFKA_TEST_CHILD";

/// Not a test by itself: the consumer that `a_consumer_killed_before_the_commit_...` kills. It prints each effect.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(order) = std::env::var(CHILD) else { return };
    let words: Vec<&str> = order.split(' ').collect();
    let [brokers, topic, group] = words[..] else { panic!("brokers, topic, group") };
    let mut options = group_options(vec![brokers.into()], topic, group);
    options.commit_interval_ms = 3_600_000;
    // Its death shall be noticed soon.
    options.session_timeout_ms = 3_000;
    let effect: Effect = Arc::new(|invalidation| {
        Box::pin(async move {
            let Scope::Key(key) = invalidation.scope else { panic!("not a key") };
            println!("effect {}", String::from_utf8_lossy(&key));
            Ok(())
        })
    });
    let _consumer = Consumer::start(options, products(), effect, ErrorLog::default(), &Handle::current())
        .expect("options");
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_killed_before_the_commit_has_its_messages_redelivered() {
    let kafka = Kafka::shared();
    let (topic, group) = (topic(kafka, 1), unique("group"));
    publish(kafka, &topic, 1, 0..3).await;

    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "commits::child", "--nocapture"])
        .env(CHILD, format!("{} {topic} {group}", kafka.address()))
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program again");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let effects = lines.map(|l| l.expect("text")).filter(|l| l.contains("effect product_info_")).take(3);
    assert_eq!(effects.count(), 3);
    child.kill().expect("it runs");
    child.wait().expect("it was killed");
    assert_eq!(kafka.committed(&group, &topic, 0), None);

    // Its partition is given to another member when its session is over.
    let recorder = Recorder::new();
    let heir = start(group_options(brokers(kafka), &topic, &group), &recorder);
    until("the messages come again", || recorder.seen().len() == 3).await;
    assert_eq!(recorder.seen(), keys(0..3));
    heir.stop().await;

    // It ended orderly: what it did is committed.
    assert_eq!(kafka.committed(&group, &topic, 0), Some(3));
    publish(kafka, &topic, 1, 3..4).await;
    let recorder = Recorder::new();
    let next = start(group_options(brokers(kafka), &topic, &group), &recorder);
    until("the new message comes", || !recorder.seen().is_empty()).await;
    assert_eq!(recorder.seen(), keys(3..4));
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_effects_fail_nothing_is_skipped_or_committed_and_then_all_is_done_in_order() {
    let kafka = Kafka::shared();
    let (topic, group) = (topic(kafka, 1), unique("group"));
    let recorder = Recorder::new();
    recorder.fail(true);
    let options = group_options(brokers(kafka), &topic, &group);
    let failing = start(options.clone(), &recorder);
    publish(kafka, &topic, 1, 0..50).await;
    until_stats("the first effect is tried again and again", &failing, |s| s.effect_failures >= 5).await;
    let stats = failing.stats();
    assert_eq!((stats.done, stats.effects), (0, 0));
    failing.stop().await;
    assert_eq!(kafka.committed(&group, &topic, 0), None);

    // Nothing was committed: the next member begins with the first message, and it fails, too, until L2 is back.
    let successor = start(options, &recorder);
    until_stats("tried again", &successor, |s| s.effect_failures >= 5).await;
    recorder.fail(false);
    until_stats("all is done", &successor, |s| s.done == 50).await;
    assert_eq!(recorder.seen(), keys(0..50));
    until_stats("the lag is gone", &successor, |s| s.lag == 0).await;
    successor.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_bounded_and_nothing_is_lost_by_pausing() {
    let kafka = Kafka::shared();
    let (topic, group) = (topic(kafka, 2), unique("group"));
    publish(kafka, &topic, 2, 0..2_000).await;
    let recorder = Recorder::new();
    recorder.fail(true);
    let mut options = group_options(brokers(kafka), &topic, &group);
    options.in_flight_max = 8;
    let consumer = start(options, &recorder);
    until_stats("both partitions are full", &consumer, |s| s.waiting == 16 && s.effect_failures > 20).await;
    assert_eq!(consumer.stats().messages, 18);
    until_stats("the lag is told", &consumer, |s| s.lag == 2_000).await;
    recorder.fail(false);
    until_stats("all is done", &consumer, |s| s.done >= 2_000).await;
    assert_eq!(recorder.distinct(), keys(0..2_000).into_iter().collect());
    consumer.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_without_sense_are_skipped_counted_and_told_once() {
    let kafka = Kafka::shared();
    let (topic, group) = (topic(kafka, 1), unique("group"));
    let dir = tempfile::tempdir().expect("a folder");
    let log = dir.path().join("error.log");
    let producer = producer(brokers(kafka));
    let large = format!(r#"{{"serviceId":"productInfoService","productId":"{}"}}"#, "9".repeat(2_000));
    let bad = [
        "",
        "not json",
        "{\"serviceId\":",
        "[]",
        "\u{0}",
        r#"{"serviceId":"unknown"}"#,
        &large,
        r#"{"serviceId":"productInfoService"}"#,
        r#"{"serviceId":"productInfoService","productId":[]}"#,
    ];
    for (n, bad) in bad.iter().enumerate() {
        producer.post(&topic, Some(0), None, bad.as_bytes()).expect("room");
        producer.post(&topic, Some(0), None, message(n).as_bytes()).expect("room");
    }
    producer.flush(60_000).await.expect("delivered");

    let recorder = Recorder::new();
    let mut options = group_options(brokers(kafka), &topic, &group);
    options.message_bytes_max = 1_000;
    let consumer = start_logging(options, &recorder, log_to(&log));
    until_stats("all is done", &consumer, |s| s.done == 2 * bad.len() as u64).await;
    assert_eq!(recorder.seen(), keys(0..bad.len()));
    let stats = consumer.stats();
    assert_eq!(
        (stats.not_json, stats.unmatched, stats.unmappable, stats.too_large),
        (4, 2, 1, 1),
        "{stats:?}"
    );
    until_stats("the lag is gone", &consumer, |s| s.lag == 0 && s.brokers_up > 0).await;
    consumer.stop().await;

    let text = std::fs::read_to_string(&log).expect("a log");
    for kind in ["it is no JSON", "no rule matches it", "no field \"productId\"", "bytes"] {
        assert_eq!(text.lines().filter(|l| l.contains(kind)).count(), 1, "{kind}: {text}");
    }
}
