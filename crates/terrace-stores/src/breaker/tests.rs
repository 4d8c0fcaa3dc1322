//! Tests of the breaker: the state machine with the time as an argument, and around a source.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use terrace_cache::{BoxFuture, LoadError, LoadRequest, Loaded, Params, Source};

use super::*;

fn breaker(change: impl FnOnce(&mut BreakerOptions)) -> Breaker {
    let mut options = BreakerOptions { failures: 3, open_ms: 100, ..BreakerOptions::default() };
    change(&mut options);
    Breaker::new(options)
}

/// A load at `now_ms` that ends at once; false if it was refused.
fn load(breaker: &mut Breaker, outcome: Outcome, now_ms: u64) -> bool {
    match breaker.ask(now_ms) {
        Ok(pass) => {
            breaker.tell(pass, outcome, now_ms);
            true
        }
        Err(_) => false,
    }
}

#[test]
fn failures_one_after_the_other_open_it() {
    let mut it = breaker(|_| ());
    for outcome in [Outcome::Bad, Outcome::Bad, Outcome::Good, Outcome::Bad, Outcome::Unknown, Outcome::Bad] {
        assert!(load(&mut it, outcome, 1_000));
    }
    assert_eq!(it.stats(), BreakerStats { state: BreakerState::Closed, opened: 0, rejected: 0 });
    assert!(load(&mut it, Outcome::Bad, 1_000));
    assert_eq!(it.ask(1_001), Err(99));
    assert_eq!(it.ask(1_099), Err(1));
    assert_eq!(it.stats(), BreakerStats { state: BreakerState::Open, opened: 1, rejected: 2 });
}

#[test]
fn one_load_tries_and_its_outcome_decides() {
    let mut it = breaker(|options| options.failures = 1);
    assert!(load(&mut it, Outcome::Bad, 0));
    let probe = it.ask(100).expect("a try");
    assert_eq!(it.stats().state, BreakerState::HalfOpen);
    assert_eq!(it.ask(100), Err(0), "only one at a time");
    it.tell(probe, Outcome::Bad, 150);
    assert_eq!(it.ask(200), Err(50), "open again, from when the try failed");
    let probe = it.ask(250).expect("the next try");
    it.tell(probe, Outcome::Unknown, 260);
    let probe = it.ask(260).expect("another, since that one said nothing");
    it.tell(probe, Outcome::Good, 270);
    assert_eq!(it.stats(), BreakerStats { state: BreakerState::Closed, opened: 2, rejected: 2 });
    assert!(load(&mut it, Outcome::Good, 270) && load(&mut it, Outcome::Good, 270));
}

#[test]
fn what_began_before_it_opened_says_nothing_after() {
    let mut it = breaker(|options| options.failures = 1);
    let (slow, slower, failing) = (it.ask(0), it.ask(0), it.ask(0));
    it.tell(failing.expect("closed"), Outcome::Bad, 10);
    it.tell(slow.expect("closed"), Outcome::Good, 20);
    assert_eq!(it.stats().state, BreakerState::Open);
    let probe = it.ask(110).expect("a try");
    it.tell(slower.expect("closed"), Outcome::Bad, 115);
    assert_eq!(it.stats(), BreakerStats { state: BreakerState::HalfOpen, opened: 1, rejected: 0 });
    it.tell(probe, Outcome::Good, 120);
    assert_eq!(it.stats().state, BreakerState::Closed);
}

#[test]
fn a_share_of_failures_opens_it_too() {
    let share = |options: &mut BreakerOptions| {
        (options.failures, options.share_percent) = (1_000, Some(50));
        (options.window_ms, options.loads_min) = (1_000, 10);
    };
    let mut it = breaker(share);
    for n in 0..5 {
        assert!(load(&mut it, Outcome::Good, 10 * n));
        assert!(load(&mut it, Outcome::Bad, 10 * n + 5), "too few before the last");
    }
    assert_eq!(it.stats().state, BreakerState::Open, "half of ten");
    let mut it = breaker(share);
    for n in 0..9 {
        assert!(load(&mut it, Outcome::Bad, n));
    }
    // A window later those do not count, and new failures are too few.
    for n in 0..9 {
        assert!(load(&mut it, Outcome::Bad, 1_100 + n));
    }
    assert!(load(&mut it, Outcome::Bad, 1_900));
    assert_eq!(it.stats().state, BreakerState::Open);
}

#[test]
fn the_window_forgets_part_by_part() {
    let mut window = Window::default();
    for n in 0..30 {
        window.count(n * 100, 1_000, n % 2 == 0);
        let seen = (n + 1).min(10);
        assert_eq!(window.totals().0, seen);
    }
    window.count(1_000_000, 1_000, true);
    assert_eq!(window.totals(), (1, 1));
    window.count(999_000, 1_000, true);
    assert_eq!(window.totals(), (2, 2), "a clock that lags does no harm");
}

/// Follows a random walk, and checks what holds at every step.
#[test]
fn whatever_happens_it_recovers() {
    let mut seed = 7_u64;
    let mut draw = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let mut it = breaker(|options| options.share_percent = Some(30));
    let (mut held, mut now_ms) = (Vec::new(), 0);
    for _ in 0..100_000 {
        now_ms += draw(20);
        if draw(2) == 0 {
            let was_closed = it.stats().state == BreakerState::Closed;
            match it.ask(now_ms) {
                Ok(pass) => held.push(pass),
                Err(remaining_ms) => assert!(!was_closed && remaining_ms <= 100),
            }
        } else if !held.is_empty() {
            let pass = held.swap_remove(draw(held.len() as u64) as usize);
            let outcome = [Outcome::Good, Outcome::Bad, Outcome::Unknown][draw(3) as usize];
            it.tell(pass, outcome, now_ms);
        }
    }
    for pass in held {
        it.tell(pass, Outcome::Unknown, now_ms);
    }
    assert!(it.stats().opened > 100, "{:?}", it.stats());
    assert!(load(&mut it, Outcome::Good, now_ms + 100));
    assert_eq!(it.stats().state, BreakerState::Closed);
}

/// Answers the n-th load with the n-th word of a script.
struct Scripted {
    words: &'static [&'static str],
    asked: AtomicU32,
}

impl Source for Scripted {
    fn load(&self, _: LoadRequest) -> BoxFuture<'_, Result<Loaded, LoadError>> {
        let word = self.words[self.asked.fetch_add(1, Ordering::Relaxed) as usize];
        Box::pin(async move {
            match word {
                "found" => Ok(Loaded::found("1")),
                "away" => Err(LoadError::Unavailable("away".into())),
                "invalid" => Err(LoadError::Invalid("no JSON".into())),
                "request" => Err(LoadError::Request("no id".into())),
                _ => std::future::pending().await,
            }
        })
    }
}

fn guarded(words: &'static [&'static str], open_ms: u64) -> (Guarded, Arc<Scripted>) {
    let source = Arc::new(Scripted { words, asked: AtomicU32::new(0) });
    let options = BreakerOptions { failures: 2, open_ms, ..BreakerOptions::default() };
    (Guarded::new(source.clone(), options), source)
}

fn request() -> LoadRequest {
    LoadRequest { key: Bytes::new(), params: Params::new() }
}

#[test]
fn around_a_source_it_fails_loads_at_once() {
    let words = &["away", "found", "invalid", "away", "request", "hangs"];
    let (it, source) = guarded(words, 3_600_000);
    for _ in 0..5 {
        assert!(it.load(request()).now_or_never().is_some());
    }
    assert!(it.load(request()).now_or_never().is_none(), "given up, which counts as a failure");
    match it.load(request()).now_or_never() {
        Some(Err(LoadError::Unavailable(text))) => assert!(text.starts_with("circuit open"), "{text}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(source.asked.load(Ordering::Relaxed), 6);
    assert_eq!(it.stats(), BreakerStats { state: BreakerState::Open, opened: 1, rejected: 1 });
}

#[test]
fn around_a_source_it_closes_again() {
    let (it, _) = guarded(&["away", "away", "found", "found"], 0);
    for _ in 0..2 {
        assert!(matches!(it.load(request()).now_or_never(), Some(Err(LoadError::Unavailable(_)))));
    }
    for _ in 0..2 {
        assert_eq!(it.load(request()).now_or_never(), Some(Ok(Loaded::found("1"))));
    }
    assert_eq!(it.stats(), BreakerStats { state: BreakerState::Closed, opened: 1, rejected: 0 });
}
