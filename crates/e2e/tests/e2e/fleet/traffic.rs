//! Readers who ask for products all the while, and somebody who changes them. Every response is judged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use e2e::http::{Client, Response};
use e2e::wait_for;

use super::shop::Shop;

/// Readers; each stays with one node.
const READERS: usize = 4;

/// How long a reader, and who changes products, pauses after each time. A pace, so that the machine has room for the
/// servers; nothing waits for it.
const READER_PACE: Duration = Duration::from_millis(2);
const CHANGE_PACE: Duration = Duration::from_millis(25);

/// How many wrong responses are kept.
const WRONG_MAX: usize = 20;

/// How old what a response shows may be. All are bounds that the configuration states.
#[derive(Clone, Copy)]
pub struct Rules {
    /// A value that the node calls fresh: its life, and a load.
    pub fresh_max: Duration,
    /// A value that the node calls stale: its life, its longer window, and a load.
    pub stale_max: Duration,
    /// Since its message is in Kafka, a change takes at most this long to show.
    pub message_max: Duration,
    /// Whether a reader, who stays with a node, may see an older version after a newer one.
    pub may_go_back: bool,
}

/// A message is on its way for milliseconds; a loaded machine makes that more. Far below the lives of values in tests that
/// use it, so what does not arrive is found.
pub const MESSAGE_MAX: Duration = Duration::from_secs(15);

/// What the readers see.
#[derive(Default)]
pub struct Traffic {
    ended: AtomicBool,
    frozen: AtomicBool,
    /// Whether nobody is in the middle of a change.
    at_rest: AtomicBool,
    responses: AtomicU64,
    stale: AtomicU64,
    wrong: Mutex<Vec<String>>,
    /// The longest that a version was shown after a newer one was in the database, in milliseconds.
    behind_max_ms: AtomicU64,
}

/// Readers of the products of `shop` at these ports, while `scenario` runs. Panics if a response was wrong: no 200, no
/// version that there ever was, or older than the rules allow.
pub fn during(shop: &Shop<'_>, ports: &[u16], rules: Rules, scenario: impl FnOnce(&Traffic)) {
    let traffic = Traffic::default();
    std::thread::scope(|scope| {
        let traffic = &traffic;
        for reader in 0..READERS {
            let port = ports[reader % ports.len()];
            scope.spawn(move || traffic.read(shop, port, rules, reader as u64));
        }
        scope.spawn(move || traffic.change(shop));
        let _end = End(&traffic.ended);
        scenario(traffic);
    });
    let (responses, stale) = (traffic.responses(), traffic.stale());
    let behind_ms = traffic.behind_max_ms.load(Ordering::Relaxed);
    let changes = shop.changes();
    println!(
        "{responses} responses, {stale} of them stale, at most {behind_ms} ms behind; {changes} changes"
    );
    let wrong = traffic.wrong.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(wrong.is_empty(), "wrong responses:\n{}", wrong.join("\n"));
}

/// Ends the traffic, also when a scenario panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Traffic {
    /// How many responses there were.
    pub fn responses(&self) -> u64 {
        self.responses.load(Ordering::Relaxed)
    }

    /// How many of them were stale.
    pub fn stale(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    /// Waits for so many more responses.
    pub fn wait_for_responses(&self, more: u64) {
        let enough = self.responses() + more;
        wait_for("more responses", || (self.responses() >= enough).then_some(()));
    }

    /// Waits for so many more changes.
    pub fn wait_for_changes(&self, shop: &Shop<'_>, more: u64) {
        let enough = shop.changes() + more;
        wait_for("more changes", || (shop.changes() >= enough).then_some(()));
    }

    /// Nothing changes from now on; what did is in Kafka.
    pub fn freeze(&self, shop: &Shop<'_>) {
        self.rest();
        shop.tell_all();
    }

    /// Nothing changes from now on; Kafka may not have heard of all that did.
    pub fn rest(&self) {
        self.at_rest.store(false, Ordering::Relaxed);
        self.frozen.store(true, Ordering::Relaxed);
        wait_for("the last change is done", || self.at_rest.load(Ordering::Relaxed).then_some(()));
    }

    /// Ends [`Traffic::freeze`].
    pub fn thaw(&self) {
        self.frozen.store(false, Ordering::Relaxed);
    }

    fn change(&self, shop: &Shop<'_>) {
        let mut dice = Dice(99);
        while !self.ended.load(Ordering::Relaxed) {
            match self.frozen.load(Ordering::Relaxed) {
                true => self.at_rest.store(true, Ordering::Relaxed),
                false => shop.change(dice.product(shop)),
            }
            std::thread::sleep(CHANGE_PACE);
        }
    }

    fn read(&self, shop: &Shop<'_>, port: u16, rules: Rules, seed: u64) {
        let mut dice = Dice(seed + 1);
        let mut client = None;
        let mut newest = BTreeMap::new();
        while !self.ended.load(Ordering::Relaxed) {
            let id = dice.product(shop);
            let asked = Instant::now();
            let got = client.take().map_or_else(|| Client::connect(port), Ok).and_then(|mut it: Client| {
                it.get(&format!("/getProductInfo?productId={id}")).map(|response| (it, response))
            });
            let seen = match got {
                Ok((it, response)) => {
                    let ends = response.header("Connection").is_some_and(|c| c.eq_ignore_ascii_case("close"));
                    client = (!ends).then_some(it);
                    self.judge(shop, id, &response, asked, rules)
                }
                Err(error) => Err(format!("{error}")),
            };
            let seen = seen.and_then(|version| match newest.insert(id, version) {
                Some(before) if before > version && !rules.may_go_back => {
                    Err(format!("version {version} after {before}"))
                }
                _ => Ok(()),
            });
            self.responses.fetch_add(1, Ordering::Relaxed);
            if let Err(what) = seen {
                let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
                if wrong.len() < WRONG_MAX {
                    wrong.push(format!("response {} (product {id} at {port}): {what}", self.responses()));
                }
            }
            std::thread::sleep(READER_PACE);
        }
    }

    fn judge(
        &self,
        shop: &Shop<'_>,
        id: u32,
        response: &Response,
        asked: Instant,
        rules: Rules,
    ) -> Result<u64, String> {
        let level = response.header("X-Cache-Level").unwrap_or_default();
        if response.status != 200 {
            return Err(format!("{} {level}: {}", response.status, response.text()));
        }
        let judged = shop.judge(id, &response.body, asked)?;
        let is_stale = level == "stale";
        self.stale.fetch_add(u64::from(is_stale), Ordering::Relaxed);
        self.behind_max_ms.fetch_max(judged.behind.as_millis() as u64, Ordering::Relaxed);
        let behind_max = if is_stale { rules.stale_max } else { rules.fresh_max };
        if judged.behind > behind_max || judged.behind_message > rules.message_max {
            return Err(format!(
                "version {} from {level}, {:?} after the next was written, {:?} after its message",
                judged.version, judged.behind, judged.behind_message
            ));
        }
        Ok(judged.version)
    }
}

/// Numbers that are the same in each run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn product(&mut self, shop: &Shop<'_>) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let products = shop.products();
        products.start + ((mixed >> 33) % u64::from(products.end - products.start)) as u32
    }
}
