//! L1 alone beside moka and quick_cache (which L1 is built on), on the same seeded traces: throughput with one and two
//! threads, hit ratio, and the bytes that an entry really takes.
//!
//! An access looks a key up; on a miss it makes the value and stores it. A value counts as key, value and what L1 adds
//! for its own bookkeeping, for all three, so that a bound means the same to each and memory says what that
//! bookkeeping is in truth. All hash with ahash and use the server's allocator. Only L1 keeps lives, versions,
//! marks and counters, and it checks them at each lookup. Rates are rough where other programs run.
//!
//! `--quick` takes shorter traces, and only two of them.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use mimalloc::MiMalloc;
use quick_cache::Weighter;
use quick_cache::sync::DefaultLifecycle;
use terrace_cache::{Cache, ENTRY_OVERHEAD_BYTES, Lookup, Params, Policy};
use tokio::runtime::Handle;

const KEYS: u32 = 1_000_000;
const VALUE_BYTES_MIN: u64 = 100;
const VALUE_BYTES_MAX: u64 = 2_000;
const SEED: u64 = 42;
/// All accesses fall into one millisecond: nothing expires.
const NOW_MS: u64 = 1;
/// What part of the working set a cache may hold, in percent.
const SHARES_PERCENT: [u64; 2] = [1, 10];
const ROUNDS: usize = 3;
/// The trace with scans: so many accesses as they come, then so many keys in a row.
const BETWEEN_SCANS: usize = 20_000;
const SCAN: usize = 5_000;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (traces, accesses) = if quick { (&TRACES[2..], 300_000) } else { (&TRACES[..], 2_000_000) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let working_set_bytes: u64 = (0..KEYS).map(weight_of).sum();
    println!(
        "L1 alone: {KEYS} keys, values of {VALUE_BYTES_MIN} to {VALUE_BYTES_MAX} bytes, {accesses} accesses, half of \
         them to warm up\n"
    );
    for spec in traces {
        let trace = spec.draw(accesses);
        for percent in SHARES_PERCENT {
            let setup = Setup {
                trace: &trace,
                bound_bytes: working_set_bytes / 100 * percent,
                runtime: runtime.handle(),
            };
            let mut results = [Measured::default(), Measured::default(), Measured::default()];
            let measures = [measure::<Terrace>, measure::<Moka>, measure::<QuickCache>];
            // Who is first in a round finds the memory cold.
            for turn in 0..ROUNDS * measures.len() {
                let subject = (turn + turn / measures.len()) % measures.len();
                results[subject].0.push(measures[subject](&setup));
            }
            print_table(&format!("{}, {percent} %", spec.name), &results);
        }
    }
}

// ---- Traces --------------------------------------------------------------------------------------------------------

struct Spec {
    name: &'static str,
    exponent: f64,
    scans: bool,
}

const TRACES: [Spec; 4] = [
    Spec { name: "Zipf 0.7", exponent: 0.7, scans: false },
    Spec { name: "Zipf 1.1", exponent: 1.1, scans: false },
    Spec { name: "Zipf 0.9", exponent: 0.9, scans: false },
    Spec { name: "Zipf 0.9 with scans", exponent: 0.9, scans: true },
];

impl Spec {
    /// The keys of the accesses: a key's number is its rank, 0 being the most popular.
    fn draw(&self, accesses: usize) -> Vec<u32> {
        let mut sum = 0.0;
        let cumulative: Vec<f64> = (1..=KEYS)
            .map(|rank| {
                sum += f64::from(rank).powf(-self.exponent);
                sum
            })
            .collect();
        let mut random = SEED;
        let mut scanned = 0;
        (0..accesses)
            .map(|i| {
                if self.scans && i % (BETWEEN_SCANS + SCAN) >= BETWEEN_SCANS {
                    scanned = (scanned + 1) % KEYS;
                    return scanned;
                }
                random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let at = (mix(random) >> 11) as f64 / (1u64 << 53) as f64 * sum;
                cumulative.partition_point(|&upto| upto <= at).min(KEYS as usize - 1) as u32
            })
            .collect()
    }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

fn key_of(number: u32) -> [u8; 16] {
    let mut key = *b"product:00000000";
    let mut rest = number;
    for digit in key[8..].iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    key
}

fn value_bytes_of(number: u32) -> u64 {
    VALUE_BYTES_MIN + mix(u64::from(number) + SEED) % (VALUE_BYTES_MAX - VALUE_BYTES_MIN + 1)
}

fn value_of(number: u32) -> Bytes {
    static TEXT: [u8; VALUE_BYTES_MAX as usize] = [b'v'; VALUE_BYTES_MAX as usize];
    Bytes::copy_from_slice(&TEXT[..value_bytes_of(number) as usize])
}

fn weight_of(number: u32) -> u64 {
    key_of(number).len() as u64 + value_bytes_of(number) + ENTRY_OVERHEAD_BYTES
}

// ---- The caches ----------------------------------------------------------------------------------------------------

trait Subject: Sync {
    fn new(setup: &Setup) -> Self;
    fn get(&self, key: &[u8]) -> Option<Bytes>;
    fn put(&self, key: &[u8], value: Bytes);
    /// Its entries and their weights together, when all that was put off is done.
    fn holds(&self) -> (u64, u64);
}

struct Terrace(Cache);

impl Subject for Terrace {
    fn new(setup: &Setup) -> Self {
        let policy = Policy { size_bytes_max: setup.bound_bytes, ..Policy::default() };
        Self(Cache::new(policy, None, setup.runtime.clone(), Arc::new(|| NOW_MS), SEED))
    }

    // Not `peek`, which does not count the entry as used.
    fn get(&self, key: &[u8]) -> Option<Bytes> {
        match self.0.lookup(key, NOW_MS, Params::new) {
            Lookup::Hit(answer) => answer.value,
            Lookup::Wait(_) | Lookup::Failed(_) => None,
        }
    }

    fn put(&self, key: &[u8], value: Bytes) {
        // Without an L2 it is done when it returns.
        drop(self.0.set(key, Some(value), None, NOW_MS));
    }

    fn holds(&self) -> (u64, u64) {
        let stats = self.0.stats();
        (stats.entries, stats.size_bytes)
    }
}

struct Moka(moka::sync::Cache<Bytes, Bytes, ahash::RandomState>);

impl Subject for Moka {
    fn new(setup: &Setup) -> Self {
        let builder = moka::sync::Cache::builder()
            .max_capacity(setup.bound_bytes)
            .weigher(|key: &Bytes, value: &Bytes| ByBytes.weight(key, value) as u32);
        Self(builder.build_with_hasher(hasher()))
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key)
    }

    fn put(&self, key: &[u8], value: Bytes) {
        self.0.insert(Bytes::copy_from_slice(key), value);
    }

    fn holds(&self) -> (u64, u64) {
        self.0.run_pending_tasks();
        (self.0.entry_count(), self.0.weighted_size())
    }
}

struct QuickCache(quick_cache::sync::Cache<Bytes, Bytes, ByBytes, ahash::RandomState>);

impl Subject for QuickCache {
    fn new(setup: &Setup) -> Self {
        let entries = setup.bound_bytes / ((VALUE_BYTES_MIN + VALUE_BYTES_MAX) / 2 + ENTRY_OVERHEAD_BYTES);
        let bound_bytes = setup.bound_bytes;
        let lifecycle = DefaultLifecycle::default();
        Self(quick_cache::sync::Cache::with(entries as usize, bound_bytes, ByBytes, hasher(), lifecycle))
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        self.0.get(key)
    }

    fn put(&self, key: &[u8], value: Bytes) {
        self.0.insert(Bytes::copy_from_slice(key), value);
    }

    fn holds(&self) -> (u64, u64) {
        (self.0.len() as u64, self.0.weight())
    }
}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Bytes, Bytes> for ByBytes {
    fn weight(&self, key: &Bytes, value: &Bytes) -> u64 {
        (key.len() + value.len()) as u64 + ENTRY_OVERHEAD_BYTES
    }
}

fn hasher() -> ahash::RandomState {
    ahash::RandomState::with_seeds(SEED, !SEED, SEED.rotate_left(32), 1)
}

// ---- Measuring -----------------------------------------------------------------------------------------------------

struct Setup<'a> {
    trace: &'a [u32],
    bound_bytes: u64,
    runtime: &'a Handle,
}

/// What one round found.
struct Round {
    /// Million accesses a second, with one thread and with two.
    rates: [f64; 2],
    hits_percent: f64,
    /// Bytes that an entry takes, and those of them that are neither key nor value.
    entry_bytes: f64,
    extra_bytes: f64,
}

fn measure<S: Subject>(setup: &Setup) -> Round {
    let (warm_up, measured) = setup.trace.split_at(setup.trace.len() / 2);
    let held_before = held_bytes();
    let cache = S::new(setup);
    replay(&cache, warm_up);
    let begin = Instant::now();
    let hits = replay(&cache, measured);
    let alone_s = begin.elapsed().as_secs_f64();
    let (entries, weight) = cache.holds();
    let held = (held_bytes() - held_before) as f64;
    drop(cache);

    let cache = S::new(setup);
    together(&cache, warm_up);
    let begin = Instant::now();
    together(&cache, measured);
    let together_s = begin.elapsed().as_secs_f64();

    let content = (weight - entries * ENTRY_OVERHEAD_BYTES) as f64;
    let accesses = measured.len() as f64;
    Round {
        rates: [alone_s, together_s].map(|s| accesses / s / 1e6),
        hits_percent: hits as f64 / accesses * 100.0,
        entry_bytes: held / entries as f64,
        extra_bytes: (held - content) / entries as f64,
    }
}

/// Does the accesses of a trace; how many were hits.
fn replay(cache: &impl Subject, trace: &[u32]) -> u64 {
    let mut hits = 0;
    for &number in trace {
        let key = key_of(number);
        match cache.get(&key) {
            Some(value) => {
                assert_eq!(value.len() as u64, value_bytes_of(number), "another key's value");
                hits += 1;
            }
            None => cache.put(&key, value_of(number)),
        }
    }
    hits
}

/// The same with two threads, half of the trace each.
fn together(cache: &impl Subject, trace: &[u32]) {
    let (one, other) = trace.split_at(trace.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| replay(cache, one));
        scope.spawn(|| replay(cache, other));
    });
}

/// The rounds of one cache.
#[derive(Default)]
struct Measured(Vec<Round>);

impl Measured {
    /// The medians of what the table shows, column by column.
    fn columns(&self) -> [f64; 5] {
        let median = |column: fn(&Round) -> f64| {
            let mut values: Vec<f64> = self.0.iter().map(column).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        [
            median(|it| it.rates[0]),
            median(|it| it.rates[1]),
            median(|it| it.hits_percent),
            median(|it| it.entry_bytes),
            median(|it| it.extra_bytes),
        ]
    }
}

fn print_table(title: &str, results: &[Measured; 3]) {
    let [terrace, moka, quick] = [0, 1, 2].map(|i| results[i].columns());
    println!(
        "{title:<28} {:>12} {:>12} {:>8} {:>12} {:>12}",
        "M/s, 1 thr.", "M/s, 2 thr.", "hits %", "bytes/entry", "beyond k+v"
    );
    for (name, [one, two, hits, bytes, extra]) in
        [("terrace", terrace), ("moka", moka), ("quick_cache", quick)]
    {
        println!("  {name:<26} {one:>12.2} {two:>12.2} {hits:>8.2} {bytes:>12.0} {extra:>12.0}");
    }
    for (name, peer) in [("terrace/moka", moka), ("terrace/quick_cache", quick)] {
        let [one, two, hits, bytes, extra] = [0, 1, 2, 3, 4].map(|i| terrace[i] / peer[i]);
        println!("  {name:<26} {one:>12.2} {two:>12.2} {hits:>8.2} {bytes:>12.2} {extra:>12.2}");
    }
    println!();
}

// ---- Memory --------------------------------------------------------------------------------------------------------

/// The server's allocator, with a balance of the bytes that each thread asked for and gave back.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static HELD_BYTES: Cell<i64> = const { Cell::new(0) };
}

fn held_bytes() -> i64 {
    HELD_BYTES.get()
}

fn count(bytes: i64) {
    HELD_BYTES.set(HELD_BYTES.get() + bytes);
}

// SAFETY: every call goes to mimalloc as it is; counting touches a thread-local number without a destructor and so
// neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise is handed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promise is handed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as i64 - layout.size() as i64);
        // SAFETY: the caller's promise is handed on.
        unsafe { MiMalloc.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promise is handed on.
        unsafe { MiMalloc.dealloc(block, layout) }
    }
}
