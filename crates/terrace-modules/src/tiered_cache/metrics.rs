//! `tiered_cache_metrics`: what the caches, their stores and the consumers of changes did, as Prometheus reads it.
//!
//! The text format is version 0.0.4 of <https://prometheus.io/docs/instrumenting/exposition_formats/>. Every counter of the
//! engine is in [`COUNTERS`], so that one which is added there cannot be forgotten here: a test compares the two.

use std::fmt::Write;
use std::rc::Rc;

use bytes::Bytes;
use terrace_cache::{LATENCY_BOUNDS_US, Latencies, Stats};
use terrace_http::{Handler, Outcome, Request, Step};
use terrace_kafka::ConsumerStats;
use terrace_stores::redis::RedisStats;
use terrace_stores::{BreakerState, BreakerStats};

use super::registry::{CacheEntry, Caches};

/// A metric of caches: its name without `terrace_cache_` and `_total`, its help, and its samples: the value of the label
/// `level` or `bound` with that label's name, and the counter of [`Stats`].
struct Counter {
    name: &'static str,
    help: &'static str,
    samples: &'static [(&'static str, &'static str, &'static str)],
}

const fn counter(
    name: &'static str,
    help: &'static str,
    samples: &'static [(&'static str, &'static str, &'static str)],
) -> Counter {
    Counter { name, help, samples }
}

#[rustfmt::skip]
const COUNTERS: &[Counter] = &[
    counter("hits", "Lookups that a level answered with a fresh value.", &[("level", "L1", "hits"), ("level", "L2", "l2_hits")]),
    counter("negative_hits", "Lookups answered by a remembered absence.", &[("level", "L1", "negative_hits")]),
    counter("filter_negatives", "Lookups answered as absent by the filter of existing keys.", &[("level", "L1", "filter_negatives")]),
    counter("misses", "Lookups that a level could not answer.", &[("level", "L1", "misses"), ("level", "L2", "l2_misses")]),
    counter("waits", "Lookups that waited: for a key on its way in this process (L1), for the load of another node (L2).", &[("level", "L1", "waits"), ("level", "L2", "held_waits")]),
    counter("stale_serves", "Lookups answered by a value past its life.", &[("level", "L1", "stale_serves")]),
    counter("evictions", "Entries dropped for room.", &[("level", "L1", "evictions")]),
    counter("invalidations", "Invalidations of keys, prefixes and tags.", &[("level", "L1", "invalidations")]),
    counter("loads", "Loads begun, refreshes included.", &[("level", "source", "loads")]),
    counter("refreshes", "Loads begun in the background for a value past its life.", &[("level", "source", "refreshes")]),
    counter("refreshes_ahead", "Loads begun in the background for a value near the end of its life.", &[("level", "source", "refreshes_ahead")]),
    counter("errors", "Calls that failed; timeouts of the source are among its errors.", &[("level", "L2", "l2_errors"), ("level", "source", "load_errors")]),
    counter("timeouts", "Calls that took too long.", &[("level", "L2", "l2_timeouts"), ("level", "source", "load_timeouts")]),
    counter("late_loads", "Results that came after their load had timed out.", &[("level", "source", "late_loads")]),
    counter("voided", "Results that were not kept because their key had changed meanwhile.", &[("level", "L1", "voided_loads"), ("level", "L2", "l2_fills_voided")]),
    counter("older", "Results that were not kept because a newer version was there.", &[("level", "L1", "older_loads"), ("level", "L2", "l2_fills_older")]),
    counter("hand_overs", "Loads that a waiter took over.", &[("level", "source", "hand_overs")]),
    counter("refused", "Lookups that a bound refused.", &[("bound", "waiters", "waiters_refused"), ("bound", "loads", "loads_refused"), ("bound", "lookups", "lookups_refused")]),
    counter("fills", "Values that L2 took.", &[("level", "L2", "l2_fills")]),
    counter("leases_held", "Lookups that L2 answered with the word that another node loads.", &[("level", "L2", "leases_held")]),
    counter("fallbacks", "Waits for another node that ended without its value.", &[("level", "L2", "fallbacks")]),
    counter("outages", "Times that L2 was found to be away.", &[("level", "L2", "l2_outages")]),
    counter("bypasses", "Lookups that went past L2 while it was away.", &[("level", "L2", "l2_bypasses")]),
    counter("repairs", "Times that L2 had an older version than L1 and was told so.", &[("level", "L2", "repairs")]),
    counter("locks_missed", "Loads that went on without the fleet's lock.", &[("level", "L2", "locks_missed")]),
    counter("notices", "Notices of L2 that were heard.", &[("level", "L2", "notices")]),
    counter("gaps", "Gaps in the notices of L2.", &[("level", "L2", "gaps")]),
];

/// The handler.
pub(super) struct Metrics;

impl Handler for Metrics {
    fn handle(&self, r: &Rc<Request>) -> Step {
        if !matches!(&r.method()[..], b"GET" | b"HEAD") {
            return Outcome::Status(405).into();
        }
        let text = r.generation().shared::<Caches>().map_or_else(String::new, |it| exposition(&it));
        r.headers_out.status.set(200);
        let media_type = Bytes::from_static(b"text/plain; version=0.0.4; charset=utf-8");
        r.headers_out.content_type.replace(Some(media_type));
        r.headers_out.set(&b"Cache-Control"[..], &b"no-store"[..]);
        r.respond(text.into()).map(|_| Outcome::Done)
    }
}

fn exposition(caches: &Caches) -> String {
    let mut page = Page::default();
    let all: Vec<(&CacheEntry, Stats)> = caches.iter().map(|it| (it, it.cache.stats())).collect();
    for counter in COUNTERS {
        page.head(counter.name, "_total", counter.help, "counter");
        for (entry, stats) in &all {
            for (label, value, field) in counter.samples {
                if *value == "L2" && entry.store_name.is_none() {
                    continue;
                }
                let count = stats.counters().find(|(name, _)| name == field).map_or(0, |(_, count)| count);
                page.sample(&[("cache", &entry.name), (label, value)], count);
            }
        }
    }
    page.caches_now(&all);
    page.latencies(&all);
    page.stores(caches);
    page.breakers(caches);
    page.consumers(caches);
    page.text
}

/// The text, and the name of the metric that its samples belong to.
#[derive(Default)]
struct Page {
    text: String,
    name: String,
}

/// Writing to a String does not fail.
macro_rules! put {
    ($page:expr, $($arg:tt)*) => { let _ = writeln!($page.text, $($arg)*); };
}

impl Page {
    fn head(&mut self, name: &str, suffix: &str, help: &str, kind: &str) {
        self.name = format!("terrace_cache_{name}{suffix}");
        put!(self, "# HELP {} {help}\n# TYPE {} {kind}", self.name, self.name);
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: u64) {
        let labels = list(labels);
        put!(self, "{}{{{labels}}} {value}", self.name);
    }

    fn caches_now(&mut self, all: &[(&CacheEntry, Stats)]) {
        type Read = fn(&CacheEntry, &Stats) -> u64;
        #[rustfmt::skip]
        let gauges: [(&str, &str, &str, Read); 6] = [
            ("entries", "L1", "Entries that the level holds.", |_, s| s.entries),
            ("size_bytes", "L1", "Bytes that the level holds.", |_, s| s.size_bytes),
            ("size_limit_bytes", "L1", "The bound of the bytes that the level holds.", |it, _| it.policy.size_bytes_max),
            ("loads_running", "source", "Loads running.", |_, s| s.loads_running),
            ("lookups_running", "L2", "Keys on their way, in L2 or at the source.", |_, s| s.lookups_running),
            ("up", "L2", "Whether the level is asked: 0 while it is away.", |_, s| u64::from(s.l2_up)),
        ];
        for (name, level, help, read) in gauges {
            self.head(name, "", help, "gauge");
            for (entry, stats) in all.iter().filter(|(it, _)| level != "L2" || it.store_name.is_some()) {
                self.sample(&[("cache", &entry.name), ("level", level)], read(entry, stats));
            }
        }
    }

    fn latencies(&mut self, all: &[(&CacheEntry, Stats)]) {
        self.head(
            "latency",
            "_seconds",
            "How long questions to L2 and loads by the source took.",
            "histogram",
        );
        for (entry, stats) in all {
            if entry.store_name.is_some() {
                self.histogram(&[("cache", &entry.name), ("level", "L2")], &stats.l2_latency);
            }
            if entry.source_name.is_some() {
                self.histogram(&[("cache", &entry.name), ("level", "source")], &stats.source_latency);
            }
        }
    }

    fn histogram(&mut self, labels: &[(&str, &str)], latencies: &Latencies) {
        let labels = list(labels);
        let mut count = 0;
        let bounds = LATENCY_BOUNDS_US.iter().map(|us| seconds(*us)).chain(["+Inf".to_owned()]);
        for (bound, bucket) in bounds.zip(latencies.buckets) {
            count += bucket;
            put!(self, "{}_bucket{{{labels},le=\"{bound}\"}} {count}", self.name);
        }
        put!(self, "{}_sum{{{labels}}} {}", self.name, seconds(latencies.sum_us));
        put!(self, "{}_count{{{labels}}} {count}", self.name);
    }

    fn stores(&mut self, caches: &Caches) {
        type Read = fn(&RedisStats) -> u64;
        #[rustfmt::skip]
        let counters: [(&str, &str, Read); 7] = [
            ("store_retries", "Commands sent to Redis again.", |s| s.retries),
            ("store_redirections", "MOVED and ASK followed.", |s| s.redirections),
            ("store_failovers", "Masters found to have lost their place.", |s| s.failovers),
            ("store_subscriptions_lost", "Subscriptions to notices that could not be made or were lost.", |s| s.subscriptions_lost),
            ("store_replica_hits", "Fresh values that a replica gave.", |s| s.replica_hits),
            ("store_replica_misses", "Lookups that a replica did not answer.", |s| s.replica_misses),
            ("store_unreadable", "Values that could not be read.", |s| s.unreadable),
        ];
        let stats = |it: &CacheEntry| Some((it.name.clone(), it.store_name.clone()?, it.redis_stats()?));
        let all: Vec<_> = caches.iter().filter_map(stats).collect();
        for (name, help, read) in counters.iter().filter(|_| !all.is_empty()) {
            self.head(name, "_total", help, "counter");
            for (cache, store, stats) in &all {
                self.sample(&[("cache", cache), ("store", store)], read(stats));
            }
        }
    }

    fn breakers(&mut self, caches: &Caches) {
        type Read = fn(&BreakerStats) -> u64;
        let metrics: [(&str, &str, &str, &str, Read); 3] = [
            ("breaker_open", "", "Whether the breaker lets no load through.", "gauge", |s| {
                u64::from(s.state != BreakerState::Closed)
            }),
            ("breaker_opened", "_total", "Times that the breaker opened.", "counter", |s| s.opened),
            ("breaker_rejected", "_total", "Loads that the breaker refused.", "counter", |s| s.rejected),
        ];
        let all: Vec<_> = caches.breakers().collect();
        for (name, suffix, help, kind, read) in metrics.iter().filter(|_| !all.is_empty()) {
            self.head(name, suffix, help, kind);
            for (source, stats) in &all {
                self.sample(&[("source", source)], read(stats));
            }
        }
    }

    fn consumers(&mut self, caches: &Caches) {
        type Read = fn(&ConsumerStats) -> u64;
        #[rustfmt::skip]
        let metrics: [(&str, &str, &str, &str, Read); 16] = [
            ("changes", "_total", "counter", "Messages heard, redelivered ones included.", |s| s.messages),
            ("changes_done", "_total", "counter", "Messages whose effects were all acknowledged.", |s| s.done),
            ("changes_effects", "_total", "counter", "Effects acknowledged.", |s| s.effects),
            ("changes_effect_failures", "_total", "counter", "Attempts of effects that failed.", |s| s.effect_failures),
            ("changes_unversioned", "_total", "counter", "Effects whose message did not tell its version.", |s| s.unversioned),
            ("changes_not_json", "_total", "counter", "Messages that were no JSON.", |s| s.not_json),
            ("changes_unmatched", "_total", "counter", "Messages that no rule meant.", |s| s.unmatched),
            ("changes_unmappable", "_total", "counter", "Messages whose fields gave no key.", |s| s.unmappable),
            ("changes_too_large", "_total", "counter", "Messages above the size that is taken.", |s| s.too_large),
            ("changes_client_errors", "_total", "counter", "Errors of the Kafka client.", |s| s.client_errors),
            ("changes_rebalances", "_total", "counter", "Changes of the partitions that the consumer has.", |s| s.rebalances),
            ("changes_commit_failures", "_total", "counter", "Commits that failed.", |s| s.commit_failures),
            ("changes_partitions", "", "gauge", "Partitions that the consumer has.", |s| s.partitions),
            ("changes_waiting", "", "gauge", "Messages that wait for their effects.", |s| s.waiting),
            ("changes_lag", "", "gauge", "Messages in the topics that are not done.", |s| s.lag),
            ("changes_brokers_up", "", "gauge", "Brokers to which there is a connection.", |s| s.brokers_up),
        ];
        let all = caches.consumers();
        for (name, suffix, kind, help, read) in metrics.iter().filter(|_| !all.is_empty()) {
            self.head(name, suffix, help, kind);
            for (invalidation, part, stats) in &all {
                self.sample(&[("invalidation", invalidation), ("part", part)], read(stats));
            }
        }
    }
}

/// Labels as they stand between the braces.
fn list(labels: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (name, value) in labels {
        text.push_str(if text.is_empty() { "" } else { "," });
        text.push_str(name);
        text.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text
}

/// Microseconds as seconds, without zeros at the end.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_the_engine_is_told_once() {
        let mut told: Vec<&str> =
            COUNTERS.iter().flat_map(|it| it.samples).map(|(.., field)| *field).collect();
        let mut known: Vec<&str> = Stats::default().counters().map(|(name, _)| name).collect();
        told.sort_unstable();
        known.sort_unstable();
        assert_eq!(told, known);
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(list(&[("a", "x\\y\"z\n"), ("b", "ü")]), "a=\"x\\\\y\\\"z\\n\",b=\"ü\"");
    }

    #[test]
    fn seconds_are_exact() {
        assert_eq!(
            [0, 100, 1_000_000, 2_500_000, 10_000_202].map(seconds),
            ["0", "0.0001", "1", "2.5", "10.000202"]
        );
    }

    #[test]
    fn buckets_add_up() {
        let mut latencies = Latencies { sum_us: 7, ..Latencies::default() };
        (latencies.buckets[0], latencies.buckets[15]) = (2, 1);
        let mut page = Page::default();
        page.head("latency", "_seconds", "h", "histogram");
        page.histogram(&[("cache", "c")], &latencies);
        let lines: Vec<&str> = page.text.lines().collect();
        assert_eq!(
            lines[..2],
            ["# HELP terrace_cache_latency_seconds h", "# TYPE terrace_cache_latency_seconds histogram"]
        );
        assert_eq!(lines[2], "terrace_cache_latency_seconds_bucket{cache=\"c\",le=\"0.0001\"} 2");
        assert_eq!(
            lines[17..],
            [
                "terrace_cache_latency_seconds_bucket{cache=\"c\",le=\"+Inf\"} 3",
                "terrace_cache_latency_seconds_sum{cache=\"c\"} 0.000007",
                "terrace_cache_latency_seconds_count{cache=\"c\"} 3",
            ]
        );
    }
}
