//! What the tests share: topics, a recorder of effects that can be told to fail, and waiting for conditions.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use e2e::stack::Kafka;
use parking_lot::Mutex;
use terrace_base::log::{ErrorLog, Level, LogFile, Sink};
use terrace_cache::{L2Error, Scope};
use terrace_kafka::mapping::{Condition, Path as FieldPath, Rule, Target, Template};
use terrace_kafka::{
    Consumer, ConsumerOptions, ConsumerStats, Effect, Mapping, Producer, ProducerOptions, Role,
};
use tokio::runtime::Handle;

/// How long a condition may take; far more than it ever does.
const PATIENCE: Duration = Duration::from_secs(120);

/// A name that no other test, and no other run, has.
pub fn unique(prefix: &str) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

pub fn brokers(kafka: &Kafka) -> Vec<String> {
    vec![kafka.address().to_string()]
}

/// Makes a topic of its own.
pub fn topic(kafka: &Kafka, partitions: i32) -> String {
    let name = unique("topic");
    kafka.create_topic(&name, partitions);
    name
}

/// `{"serviceId":"productInfoService","productId":n}` means the key `product_info_n`.
pub fn products() -> Mapping {
    Mapping::new(vec![Rule {
        conditions: vec![Condition::parse("serviceId=productInfoService").expect("a condition")],
        cache: "product".into(),
        target: Target::Key(Template::parse("product_info_$productId").expect("a template")),
        refresh: true,
        version: Some(FieldPath::parse("version").expect("a path")),
    }])
}

pub fn message(product: usize) -> String {
    format!(
        r#"{{"serviceId":"productInfoService","productId":{product},"shopId":1,"version":{}}}"#,
        product + 1
    )
}

pub fn key(product: usize) -> String {
    format!("product_info_{product}")
}

pub fn keys(products: impl IntoIterator<Item = usize>) -> Vec<String> {
    products.into_iter().map(key).collect()
}

/// Records effects in the order of their acknowledgement, or fails them.
#[derive(Default)]
pub struct Recorder {
    seen: Mutex<Vec<String>>,
    failing: AtomicBool,
}

impl Recorder {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    pub fn seen(&self) -> Vec<String> {
        self.seen.lock().clone()
    }

    pub fn distinct(&self) -> BTreeSet<String> {
        self.seen.lock().iter().cloned().collect()
    }

    pub fn effect(self: &Arc<Self>) -> Effect {
        let recorder = Arc::clone(self);
        Arc::new(move |invalidation| {
            let recorder = Arc::clone(&recorder);
            Box::pin(async move {
                // Gives other effects a turn, as a real one would.
                tokio::task::yield_now().await;
                if recorder.failing.load(Ordering::SeqCst) {
                    return Err(L2Error::Unavailable("L2 is away".into()));
                }
                let Scope::Key(key) = invalidation.scope else { panic!("not a key") };
                recorder.seen.lock().push(String::from_utf8_lossy(&key).into_owned());
                Ok(())
            })
        })
    }
}

pub fn group_options(brokers: Vec<String>, topic: &str, group: &str) -> ConsumerOptions {
    ConsumerOptions {
        session_timeout_ms: 20_000,
        commit_interval_ms: 200,
        retry_min_ms: 5,
        retry_max_ms: 50,
        ..ConsumerOptions::new(brokers, vec![topic.into()], Role::Group(group.into()))
    }
}

pub fn node_options(brokers: Vec<String>, topic: &str) -> ConsumerOptions {
    ConsumerOptions { role: Role::EveryNode, ..group_options(brokers, topic, "") }
}

pub fn start(options: ConsumerOptions, recorder: &Arc<Recorder>) -> Consumer {
    start_logging(options, recorder, ErrorLog::default())
}

pub fn start_logging(options: ConsumerOptions, recorder: &Arc<Recorder>, log: ErrorLog) -> Consumer {
    Consumer::start(options, products(), recorder.effect(), log, &Handle::current())
        .expect("options are right")
}

/// A log of warnings and graver lines.
pub fn log_to(file: &Path) -> ErrorLog {
    ErrorLog::new(vec![Sink { file: LogFile::open(file).expect("a log file"), level: Level::Warn }])
}

pub fn producer(brokers: Vec<String>) -> Producer {
    Producer::open(&ProducerOptions::new(brokers), ErrorLog::default()).expect("options are right")
}

/// Sends messages of products to partition `product % partitions`, and waits until they are there.
pub async fn publish(kafka: &Kafka, topic: &str, partitions: i32, products: impl IntoIterator<Item = usize>) {
    let producer = producer(brokers(kafka));
    let mut sent = Vec::new();
    for product in products {
        let partition = i32::try_from(product).expect("a small number") % partitions;
        sent.push(producer.send(topic, Some(partition), None, message(product).as_bytes()).expect("room"));
    }
    for delivery in sent {
        delivery.await.expect("delivered");
    }
}

/// Waits until a condition holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until a condition on a consumer's numbers holds.
pub async fn until_stats(what: &str, consumer: &Consumer, holds: impl Fn(&ConsumerStats) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let stats = consumer.stats();
        if holds(&stats) {
            return;
        }
        assert!(Instant::now() < end, "still not so: {what}: {stats:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
