//! The truth: which versions each product has had, since when each is in the database, and since when the message that
//! tells of it is in Kafka.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use e2e::stack::kafka_client::KafkaClient;
use e2e::stack::{Kafka, MariaDb};
use e2e::wait_for;

/// Partitions of a test's topic.
const PARTITIONS: i32 = 2;

/// A version of a product.
struct Version {
    number: u64,
    price: f64,
    written: Option<Instant>,
    told: Option<Instant>,
}

/// Products of one test, and who changes them.
pub struct Shop<'a> {
    db: &'a MariaDb,
    kafka: &'a Kafka,
    topic: &'a str,
    products: Range<u32>,
    truth: Mutex<BTreeMap<u32, Vec<Version>>>,
    /// Changes that no message tells of yet.
    untold: Mutex<VecDeque<(u32, u64)>>,
    client: Mutex<Option<KafkaClient>>,
    changes: AtomicU64,
}

/// What a response turned out to be.
pub struct Judged {
    pub version: u64,
    /// For how long a newer version was in the database when the response was asked for.
    pub behind: Duration,
    /// For how long the message of a newer version was in Kafka then.
    pub behind_message: Duration,
}

impl<'a> Shop<'a> {
    /// These products as they are now; the topic is made.
    pub fn new(db: &'a MariaDb, kafka: &'a Kafka, topic: &'a str, products: Range<u32>) -> Shop<'a> {
        kafka.create_topic(topic, PARTITIONS);
        let (first, end) = (products.start, products.end);
        let query = format!("SELECT id, version, price FROM product WHERE id >= {first} AND id < {end}");
        let row = |line: &str| {
            let mut words = line.split('\t');
            let mut word = || words.next().expect("three columns");
            let (id, number, price) = (word().parse(), word().parse(), word().parse());
            let number = number.expect("a version");
            let now = Some(Instant::now());
            let version = Version { number, price: price.expect("a price"), written: now, told: now };
            (id.expect("a number"), vec![version])
        };
        let truth: BTreeMap<_, _> = db.sql(&query).lines().map(row).collect();
        assert_eq!(truth.len(), products.len());
        Shop {
            db,
            kafka,
            topic,
            products,
            truth: Mutex::new(truth),
            untold: Mutex::default(),
            client: Mutex::default(),
            changes: AtomicU64::new(0),
        }
    }

    /// The products.
    pub fn products(&self) -> Range<u32> {
        self.products.clone()
    }

    /// How many changes there were.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// The newest version of a product, which must be in the database.
    pub fn newest(&self, id: u32) -> u64 {
        lock(&self.truth)[&id].last().map_or(0, |version| version.number)
    }

    /// How many versions a product has had since the beginning.
    pub fn versions(&self, id: u32) -> u64 {
        lock(&self.truth)[&id].len() as u64
    }

    /// Changes a product, and tells of it and of all that is untold as far as Kafka takes it.
    pub fn change(&self, id: u32) {
        self.write(id);
        self.tell();
    }

    /// Changes a product in the database.
    pub fn write(&self, id: u32) {
        let (number, price) = {
            let mut truth = lock(&self.truth);
            let versions = truth.get_mut(&id).expect("a product of this test");
            let number = versions.last().map_or(1, |version| version.number + 1);
            let price = number as f64 + 0.5;
            // Somebody may see it before it is known here that it is written.
            versions.push(Version { number, price, written: None, told: None });
            (number, price)
        };
        self.db.sql(&format!("UPDATE product SET price = {price} WHERE id = {id}"));
        self.note(id, number, |version| version.written = Some(Instant::now()));
        lock(&self.untold).push_back((id, number));
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// Sends the messages that are due, in order, until Kafka does not take one. Whether all were sent.
    pub fn tell(&self) -> bool {
        let mut client = lock(&self.client);
        loop {
            let Some((id, number)) = lock(&self.untold).front().copied() else { return true };
            let message = format!("{{\"serviceId\":\"productInfoService\",\"productId\":{id},\"shopId\":1}}");
            let partition = (id % PARTITIONS as u32) as i32;
            let sent = client
                .take()
                .map_or_else(|| KafkaClient::connect(self.kafka.address()), Ok)
                .and_then(|mut it| it.produce(self.topic, partition, b"", message.as_bytes()).map(|_| it));
            let Ok(sent) = sent else { return false };
            *client = Some(sent);
            self.note(id, number, |version| version.told = Some(Instant::now()));
            lock(&self.untold).pop_front();
        }
    }

    /// Waits until Kafka has taken all messages.
    pub fn tell_all(&self) {
        wait_for("Kafka takes all messages", || self.tell().then_some(()));
    }

    /// What a value says of a product that was asked for at that time. The error is what is wrong with it.
    pub fn judge(&self, id: u32, value: &[u8], asked: Instant) -> Result<Judged, String> {
        let shown = || String::from_utf8_lossy(value).into_owned();
        let json: serde_json::Value =
            serde_json::from_slice(value).map_err(|error| format!("{error}: {}", shown()))?;
        let number = json["version"].as_u64().unwrap_or(0);
        let truth = lock(&self.truth);
        let versions = &truth[&id];
        let at = versions.iter().position(|version| version.number == number);
        let at = at.filter(|_| json["id"] == id).ok_or_else(|| format!("no version of {id}: {}", shown()))?;
        if json["price"].as_f64() != Some(versions[at].price) {
            return Err(format!("not the price of version {number}: {}", shown()));
        }
        let since =
            |then: Option<Instant>| then.map_or(Duration::ZERO, |then| asked.saturating_duration_since(then));
        let newer = versions.get(at + 1);
        Ok(Judged {
            version: number,
            behind: newer.map_or(Duration::ZERO, |it| since(it.written)),
            behind_message: newer.map_or(Duration::ZERO, |it| since(it.told)),
        })
    }

    fn note(&self, id: u32, number: u64, note: impl FnOnce(&mut Version)) {
        let mut truth = lock(&self.truth);
        let versions = truth.get_mut(&id).expect("a product of this test");
        let version = versions.iter_mut().find(|version| version.number == number);
        note(version.expect("it was just made"));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
