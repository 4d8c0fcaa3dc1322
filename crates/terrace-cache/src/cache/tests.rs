//! Tests of the front: real threads, real runtimes, a clock and a source that the test holds.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use super::*;
use crate::{Bound, BoxFuture, Effect, Fault, Level, LoadRequest, Loaded, Param, Woken};

type Reply = oneshot::Sender<Result<Loaded, LoadError>>;

/// A source whose loads end when the test says so.
struct Held(mpsc::UnboundedSender<(LoadRequest, Reply)>);

impl Source for Held {
    fn load(&self, request: LoadRequest) -> BoxFuture<'_, Result<Loaded, LoadError>> {
        let (reply, result) = oneshot::channel();
        let sent = self.0.send((request, reply));
        Box::pin(async move {
            sent.map_err(|_| LoadError::Abandoned)?;
            result.await.unwrap_or(Err(LoadError::Abandoned))
        })
    }
}

struct Rig {
    cache: Cache,
    time: Arc<AtomicU64>,
    loads: AsyncMutex<mpsc::UnboundedReceiver<(LoadRequest, Reply)>>,
}

impl Rig {
    fn new(policy: Policy) -> Self {
        let (sender, loads) = mpsc::unbounded_channel();
        let time = Arc::new(AtomicU64::new(1_000));
        let clock: Clock = {
            let time = time.clone();
            Arc::new(move || time.load(Ordering::SeqCst))
        };
        let cache = Cache::new(policy, Some(Arc::new(Held(sender))), Handle::current(), clock, 1);
        Self { cache, time, loads: AsyncMutex::new(loads) }
    }

    fn now(&self) -> u64 {
        self.time.load(Ordering::SeqCst)
    }

    fn pass(&self, span_ms: u64) {
        self.time.fetch_add(span_ms, Ordering::SeqCst);
    }

    fn lookup(&self, key: &str) -> Lookup {
        self.cache
            .lookup(key.as_bytes(), self.now(), || [Param::new("id", key.to_owned())].into_iter().collect())
    }

    fn wait(&self, key: &str) -> Wait {
        match self.lookup(key) {
            Lookup::Wait(wait) => wait,
            other => panic!("expected a wait for {key}, got {other:?}"),
        }
    }

    fn hit(&self, key: &str) -> Answer {
        match self.lookup(key) {
            Lookup::Hit(answer) => answer,
            other => panic!("expected a hit for {key}, got {other:?}"),
        }
    }

    async fn next_load(&self) -> (LoadRequest, Reply) {
        self.loads.lock().await.recv().await.expect("the source is alive")
    }

    async fn fill(&self, key: &str, value: &'static str) {
        let wait = self.wait(key);
        self.next_load().await.1.send(Ok(Loaded::found(value))).expect("the load runs");
        wait.await.expect("the load succeeds");
    }

    fn token(&self, key: &str) -> LoadToken {
        match self.cache.begin(key.as_bytes(), self.now()) {
            Begin::Load(token) => token,
            other => panic!("expected a token for {key}, got {other:?}"),
        }
    }

    fn begin_wait(&self, key: &str) -> BeginWait {
        match self.cache.begin(key.as_bytes(), self.now()) {
            Begin::Wait(wait) => wait,
            other => panic!("expected a wait for {key}, got {other:?}"),
        }
    }
}

/// What a change of a cache without an L2 gives.
fn now<T>(effect: Effect<T>) -> T {
    match effect {
        Effect::Now(outcome) => outcome,
        Effect::Later(_) => panic!("there is no L2 to wait for"),
    }
}

fn steady() -> Policy {
    Policy { jitter_percent: 0, ..Policy::default() }
}

fn text(answer: &Answer) -> &str {
    answer.value.as_deref().map_or("", |value| std::str::from_utf8(value).expect("test values are text"))
}

#[tokio::test]
async fn a_miss_loads_once_and_the_next_lookup_hits() {
    let rig = Rig::new(steady());
    let (first, second) = (rig.wait("a"), rig.wait("a"));
    let (request, reply) = rig.next_load().await;
    assert_eq!(request.key, "a");
    assert_eq!(request.params[0], Param::new("id", "a"));
    reply.send(Ok(Loaded::found("one"))).expect("the load runs");
    for wait in [first, second] {
        let answer = wait.await.expect("loaded");
        assert_eq!((text(&answer), answer.level, answer.ttl_ms), ("one", Level::Source, 600_000));
    }
    rig.pass(250);
    let answer = rig.hit("a");
    assert_eq!((text(&answer), answer.level), ("one", Level::L1));
    assert_eq!((answer.age_ms, answer.ttl_ms), (250, 599_750));
    let stats = rig.cache.stats();
    assert_eq!((stats.hits, stats.misses, stats.waits, stats.loads), (1, 2, 1, 1));
    assert_eq!((stats.entries, stats.loads_running), (1, 0));
}

#[tokio::test]
async fn not_found_is_a_negative_entry_with_its_own_life() {
    let rig = Rig::new(steady());
    let wait = rig.wait("a");
    rig.next_load().await.1.send(Ok(Loaded::not_found())).expect("the load runs");
    assert_eq!(wait.await.expect("an answer").value, None);
    rig.pass(4_999);
    assert_eq!(rig.hit("a").value, None);
    assert_eq!(rig.cache.stats().negative_hits, 1);
    rig.pass(1);
    rig.fill("a", "now").await;
}

#[tokio::test]
async fn the_loader_may_set_the_life_and_zero_stores_nothing() {
    let rig = Rig::new(steady());
    for (ttl_ms, kept) in [(Some(50), true), (Some(0), false)] {
        let wait = rig.wait("a");
        let found = Loaded::versioned("v", ttl_ms, 0);
        rig.next_load().await.1.send(Ok(found)).expect("the load runs");
        assert_eq!(wait.await.expect("loaded").ttl_ms, ttl_ms.unwrap_or(1));
        assert_eq!(rig.cache.peek(b"a", rig.now()).is_some(), kept);
        now(rig.cache.delete(b"a"));
    }
}

#[tokio::test]
async fn past_its_life_a_value_is_served_and_refreshed_once() {
    let rig = Rig::new(steady());
    rig.fill("a", "old").await;
    rig.pass(600_000);
    for _ in 0..3 {
        let answer = rig.hit("a");
        assert_eq!((text(&answer), answer.level, answer.ttl_ms), ("old", Level::Stale, 0));
    }
    rig.next_load().await.1.send(Ok(Loaded::found("new"))).expect("the load runs");
    while rig.cache.stats().loads_running > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(text(&rig.hit("a")), "new");
    let stats = rig.cache.stats();
    assert_eq!((stats.stale_serves, stats.refreshes, stats.loads), (3, 1, 2));
}

#[tokio::test]
async fn a_failed_load_serves_the_old_value_and_rests_before_the_next_attempt() {
    let rig = Rig::new(steady());
    rig.fill("a", "old").await;
    rig.pass(600_000 + 60_000);
    let wait = rig.wait("a");
    let error = LoadError::Unavailable("gone".into());
    rig.next_load().await.1.send(Err(error.clone())).expect("the load runs");
    let answer = wait.await.expect("the old value stands in");
    assert_eq!((text(&answer), answer.level), ("old", Level::Stale));
    rig.pass(999);
    assert_eq!(rig.hit("a").level, Level::Stale);
    rig.pass(1);
    let wait = rig.wait("a");
    rig.pass(3_600_000);
    rig.next_load().await.1.send(Err(error.clone())).expect("the load runs");
    let failed = wait.await.expect_err("the window is over");
    assert_eq!(failed, CacheError::Load(error));
    assert_eq!((failed.fault(), failed.retry_may_help()), (Fault::Source, true));
}

#[tokio::test]
async fn a_load_from_before_an_invalidation_neither_populates_nor_answers_later_lookups() {
    let rig = Rig::new(steady());
    let early = rig.wait("a");
    let (_, old_load) = rig.next_load().await;
    now(rig.cache.delete(b"a"));
    let late = rig.wait("a");
    old_load.send(Ok(Loaded::found("old"))).expect("the load runs");
    let answer = early.await.expect("asked before the invalidation");
    assert_eq!((text(&answer), answer.ttl_ms), ("old", 0));
    assert_eq!(rig.cache.peek(b"a", rig.now()), None);
    rig.next_load().await.1.send(Ok(Loaded::found("new"))).expect("the load runs");
    assert_eq!(text(&late.await.expect("loaded again")), "new");
    assert_eq!(text(&rig.hit("a")), "new");
    assert_eq!(rig.cache.stats().voided_loads, 1);
}

#[tokio::test]
async fn purge_all_voids_loads_and_empties_l1() {
    let rig = Rig::new(steady());
    rig.fill("a", "one").await;
    let wait = rig.wait("b");
    let (_, load) = rig.next_load().await;
    now(rig.cache.purge_all());
    load.send(Ok(Loaded::found("two"))).expect("the load runs");
    assert_eq!(text(&wait.await.expect("asked before the purge")), "two");
    assert_eq!((rig.cache.peek(b"a", rig.now()), rig.cache.peek(b"b", rig.now())), (None, None));
    assert_eq!(rig.cache.stats().size_bytes, 0);
}

#[tokio::test]
async fn a_set_answers_those_who_wait_and_outlives_the_load() {
    let rig = Rig::new(steady());
    let wait = rig.wait("a");
    let (_, load) = rig.next_load().await;
    now(rig.cache.set(b"a", Some("set".into()), Some(5_000), rig.now()));
    assert_eq!(text(&wait.await.expect("the set value")), "set");
    load.send(Ok(Loaded::found("old"))).expect("the load runs");
    while rig.cache.stats().loads_running > 0 {
        tokio::task::yield_now().await;
    }
    let answer = rig.hit("a");
    assert_eq!((text(&answer), answer.ttl_ms), ("set", 5_000));
}

#[tokio::test]
async fn a_client_that_leaves_does_not_stop_the_load() {
    let rig = Rig::new(steady());
    drop(rig.wait("a"));
    rig.next_load().await.1.send(Ok(Loaded::found("kept"))).expect("the load runs");
    while rig.cache.stats().loads_running > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(text(&rig.hit("a")), "kept");
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_is_cut_off_at_the_timeout() {
    let rig = Rig::new(steady());
    let wait = rig.wait("a");
    let held = rig.next_load().await;
    assert_eq!(wait.await, Err(LoadError::Timeout(5_000).into()));
    assert!(held.1.is_closed(), "the load was cancelled");
    let stats = rig.cache.stats();
    assert_eq!((stats.load_timeouts, stats.load_errors, stats.loads_running), (1, 1, 0));
}

#[tokio::test]
async fn bounds_refuse_and_are_counted() {
    let rig = Rig::new(Policy { waiters_per_key_max: 2, loads_max: 1, ..steady() });
    let _waits = (rig.wait("a"), rig.wait("a"));
    assert!(matches!(rig.lookup("a"), Lookup::Failed(CacheError::Busy(Bound::Waiters))));
    assert!(matches!(rig.lookup("b"), Lookup::Failed(CacheError::Busy(Bound::Loads))));
    let stats = rig.cache.stats();
    assert_eq!((stats.waiters_refused, stats.loads_refused), (1, 1));
}

#[tokio::test]
async fn waiters_that_left_make_room_for_others() {
    let rig = Rig::new(Policy { waiters_per_key_max: 1, ..steady() });
    drop(rig.wait("a"));
    rig.wait("a").now_or_never_is_pending().await;
}

impl Wait {
    /// Polls once; the wait must not be over.
    async fn now_or_never_is_pending(mut self) {
        std::future::poll_fn(|context| {
            assert!(std::pin::Pin::new(&mut self).poll(context).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_panicking_source_fails_the_load() {
    struct Panics;
    impl Source for Panics {
        fn load(&self, _request: LoadRequest) -> BoxFuture<'_, Result<Loaded, LoadError>> {
            Box::pin(async { panic!("a defect in a source") })
        }
    }
    let rig = Rig::new(steady());
    rig.cache.reconfigure(steady(), Some(Arc::new(Panics)));
    assert_eq!(rig.wait("a").await, Err(LoadError::Abandoned.into()));
    assert_eq!(rig.cache.stats().loads_running, 0);
}

#[tokio::test]
async fn without_a_source_only_callers_load() {
    let rig = Rig::new(steady());
    rig.cache.reconfigure(steady(), None);
    assert!(matches!(rig.lookup("a"), Lookup::Failed(CacheError::NoSource)));
    let answer = rig.token("a").complete(Loaded::found("mine"));
    assert_eq!((text(&answer), answer.level.hit_level()), ("mine", 3));
    assert_eq!(rig.hit("a").level.hit_level(), 1);
}

#[tokio::test]
async fn callers_share_one_token_and_a_failure_is_told_to_all() {
    let rig = Rig::new(steady());
    let token = rig.token("a");
    let (first, second) = (rig.begin_wait("a"), rig.begin_wait("a"));
    let answer = token.complete(Loaded::found("lua"));
    for wait in [first, second] {
        assert!(matches!(wait.await, Woken::Answer(told) if told == answer));
    }
    let token = rig.token("b");
    let wait = rig.begin_wait("b");
    assert!(token.fail(LoadError::Invalid("nil".into())).is_err());
    assert!(matches!(wait.await, Woken::Failed(CacheError::Load(LoadError::Invalid(_)))));
}

#[tokio::test]
async fn a_dropped_token_makes_a_living_waiter_the_loader() {
    let rig = Rig::new(steady());
    let token = rig.token("a");
    let gone = rig.begin_wait("a");
    let (second, third) = (rig.begin_wait("a"), rig.begin_wait("a"));
    drop(gone);
    drop(token);
    let Woken::Load(token) = second.await else { panic!("the second caller becomes the loader") };
    token.complete(Loaded::found("second"));
    assert!(matches!(third.await, Woken::Answer(answer) if text(&answer) == "second"));
}

#[tokio::test]
async fn a_dropped_token_that_nobody_waits_for_leaves_the_key_free() {
    let rig = Rig::new(steady());
    drop(rig.token("a"));
    drop(rig.token("a"));
    assert_eq!(rig.cache.stats().loads_running, 0);
}

#[tokio::test]
async fn ten_thousand_waiters_that_leave_at_once_do_not_nest() {
    let rig = Rig::new(Policy { waiters_per_key_max: 20_000, ..steady() });
    let token = rig.token("a");
    let waits: Vec<BeginWait> = (0..10_000).map(|_| rig.begin_wait("a")).collect();
    drop(token);
    drop(waits);
    assert_eq!(rig.cache.stats().loads_running, 0);
}

#[tokio::test(start_paused = true)]
async fn a_loader_that_hangs_loses_its_token_at_the_timeout() {
    let rig = Rig::new(steady());
    let token = rig.token("a");
    let wait = rig.begin_wait("a");
    assert!(matches!(wait.await, Woken::Failed(CacheError::Load(LoadError::Timeout(5_000)))));
    let answer = token.complete(Loaded::found("late"));
    assert_eq!((text(&answer), answer.ttl_ms), ("late", 0));
    assert_eq!(rig.cache.peek(b"a", rig.now()), None);
    assert_eq!(rig.cache.stats().late_loads, 1);
}

#[tokio::test]
async fn a_stale_value_comes_to_a_caller_with_the_token_of_its_refresh() {
    let rig = Rig::new(steady());
    rig.token("a").complete(Loaded::found("old"));
    rig.pass(600_000);
    let Begin::Refresh(answer, wait) = rig.cache.begin(b"a", rig.now()) else { panic!("a refresh is due") };
    let Woken::Load(token) = wait.await else { panic!("the caller refreshes") };
    assert_eq!(answer.level.hit_level(), 4);
    assert!(matches!(rig.cache.begin(b"a", rig.now()), Begin::Hit(_)));
    token.complete(Loaded::found("new"));
    assert_eq!(text(&rig.hit("a")), "new");
}

#[tokio::test]
async fn a_value_too_large_to_keep_is_served_and_replaces_what_was_there() {
    let rig = Rig::new(Policy { size_bytes_max: 4096, ..steady() });
    now(rig.cache.set(b"a", Some("small".into()), None, rig.now()));
    now(rig.cache.set(b"a", Some(vec![b'x'; 8192].into()), None, rig.now()));
    assert_eq!(rig.cache.peek(b"a", rig.now()), None);
    let answer = rig.token("a").complete(Loaded::found(vec![b'y'; 8192]));
    assert_eq!(answer.value.map(|value| value.len()), Some(8192));
    assert!(rig.cache.stats().size_bytes <= 4096);
}

#[tokio::test]
async fn the_bound_holds_for_any_number_of_keys_and_can_shrink() {
    let rig = Rig::new(Policy { size_bytes_max: 64 * 1024, ..steady() });
    for value in ["old", "new"] {
        now(rig.cache.set(b"a", Some(value.into()), None, rig.now()));
    }
    assert_eq!(rig.cache.stats().evictions, 0, "a newer value is no eviction");
    for key in 0..5_000u32 {
        now(rig.cache.set(&key.to_le_bytes(), Some(vec![0; (key % 700) as usize].into()), None, rig.now()));
        assert!(rig.cache.stats().size_bytes <= 64 * 1024);
    }
    assert!(rig.cache.stats().evictions > 4_000);
    rig.cache.reconfigure(Policy { size_bytes_max: 8 * 1024, ..steady() }, None);
    assert!(rig.cache.stats().size_bytes <= 8 * 1024);
}

/// Workers as in the server: single-threaded runtimes on threads of their own, loads on a background runtime.
/// The source counts how many of its loads of one key overlap, and reads a truth that invalidations advance.
#[test]
fn threads_never_overlap_loads_of_a_key_nor_see_a_value_from_before_an_invalidation() {
    struct Truth {
        versions: [AtomicU64; 4],
        running: [AtomicUsize; 4],
    }
    struct Reader(Arc<Truth>);
    impl Source for Reader {
        fn load(&self, request: LoadRequest) -> BoxFuture<'_, Result<Loaded, LoadError>> {
            Box::pin(async move {
                let key = usize::from(request.key[0]);
                assert_eq!(self.0.running[key].fetch_add(1, Ordering::SeqCst), 0, "two loads of one key");
                let version = self.0.versions[key].load(Ordering::SeqCst);
                tokio::task::yield_now().await;
                self.0.running[key].fetch_sub(1, Ordering::SeqCst);
                if version % 5 == 4 {
                    return Err(LoadError::Unavailable("now and then".into()));
                }
                Ok(Loaded::found(version.to_le_bytes().to_vec()))
            })
        }
    }
    let truth = Arc::new(Truth { versions: Default::default(), running: Default::default() });
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let source = Arc::new(Reader(truth.clone()));
    let cache = Cache::new(steady(), Some(source), background.handle().clone(), Arc::new(|| 1_000), 3);
    let worker = |index: u64| {
        let (cache, truth) = (cache.clone(), truth.clone());
        move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut draw = crate::policy::Jitter::new(index);
                for _ in 0..5_000 {
                    let key = (draw.draw() % 4) as usize;
                    if draw.draw().is_multiple_of(8) {
                        truth.versions[key].fetch_add(1, Ordering::SeqCst);
                        now(cache.delete(&[key as u8]));
                        continue;
                    }
                    let floor = truth.versions[key].load(Ordering::SeqCst);
                    let outcome = match cache.lookup(&[key as u8], 1_000, Params::new) {
                        Lookup::Hit(answer) => Ok(answer),
                        Lookup::Wait(wait) => wait.await,
                        Lookup::Failed(error) => Err(error),
                    };
                    let Ok(answer) = outcome else { continue };
                    let value = answer.value.expect("the source has every key");
                    let version = u64::from_le_bytes(value[..].try_into().expect("eight bytes"));
                    // The version moves before its invalidation does, so one may be on its way for each thread.
                    assert!(version + 4 >= floor, "version {version} after {floor} was invalidated");
                }
            });
        }
    };
    let threads: Vec<_> = (0..4).map(|index| std::thread::spawn(worker(index))).collect();
    threads.into_iter().for_each(|thread| thread.join().expect("no worker failed"));
    let stats = cache.stats();
    assert_eq!(stats.loads_running, 0);
    assert!(stats.loads > 0 && stats.waits > 0 && stats.hits > 0, "{stats:?}");
}
