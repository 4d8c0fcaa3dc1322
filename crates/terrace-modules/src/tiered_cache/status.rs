//! `tiered_cache_status`: what the caches did and hold, as JSON.

use std::rc::Rc;

use serde_json::{Map, Value as Json, json};
use terrace_cache::Latencies;
use terrace_http::{Handler, Outcome, Request, Step};

use super::purge::respond;
use super::registry::{CacheEntry, Caches};

/// The handler.
pub(super) struct Status;

impl Handler for Status {
    fn handle(&self, r: &Rc<Request>) -> Step {
        if !matches!(&r.method()[..], b"GET" | b"HEAD") {
            return Outcome::Status(405).into();
        }
        let caches = r.generation().shared::<Caches>();
        respond(r, 200, &caches.map_or_else(|| json!({}), |it| all(&it)))
    }
}

/// An object with a member for each cache.
pub(super) fn all(caches: &Caches) -> Json {
    caches.iter().map(|it| (it.name.to_string(), of(it))).collect::<Map<_, _>>().into()
}

/// A cache's counters by level.
pub(super) fn of(entry: &CacheEntry) -> Json {
    let s = entry.cache.stats();
    let l2 = entry.store_name.as_deref().map(|name| {
        json!({
            "name": name, "up": s.l2_up, "hits": s.l2_hits, "misses": s.l2_misses, "errors": s.l2_errors,
            "timeouts": s.l2_timeouts, "outages": s.l2_outages, "bypasses": s.l2_bypasses, "fills": s.l2_fills,
            "fills_voided": s.l2_fills_voided, "fills_older": s.l2_fills_older, "repairs": s.repairs,
            "leases_held": s.leases_held, "held_waits": s.held_waits, "fallbacks": s.fallbacks,
            "locks_missed": s.locks_missed, "notices": s.notices, "gaps": s.gaps,
            "latency": latency(&s.l2_latency),
        })
    });
    json!({
        "L1": {
            "hits": s.hits, "negative_hits": s.negative_hits, "filter_negatives": s.filter_negatives,
            "stale_serves": s.stale_serves, "misses": s.misses, "waits": s.waits, "evictions": s.evictions,
            "invalidations": s.invalidations, "entries": s.entries, "size_bytes": s.size_bytes,
            "size_bytes_max": entry.policy.size_bytes_max,
        },
        "L2": l2,
        "source": {
            "name": entry.source_name.as_deref(), "loads": s.loads, "refreshes": s.refreshes,
            "refreshes_ahead": s.refreshes_ahead, "errors": s.load_errors, "timeouts": s.load_timeouts,
            "late": s.late_loads, "voided": s.voided_loads, "older": s.older_loads, "hand_overs": s.hand_overs,
            "running": s.loads_running, "latency": latency(&s.source_latency),
        },
        "refused": {
            "waiters": s.waiters_refused, "loads": s.loads_refused, "lookups": s.lookups_refused,
        },
    })
}

fn latency(latencies: &Latencies) -> Json {
    json!({ "count": latencies.count(), "sum_us": latencies.sum_us })
}
