//! `tiered_cache_status`: what the caches did and hold, as JSON.

use std::fmt::Write;
use std::rc::Rc;

use bytes::Bytes;
use terrace_http::{Handler, Outcome, Request, Step};

use super::registry::{CacheEntry, Caches};

/// The handler.
pub(super) struct Status;

impl Handler for Status {
    fn handle(&self, r: &Rc<Request>) -> Step {
        if !matches!(&r.method()[..], b"GET" | b"HEAD") {
            return Outcome::Status(405).into();
        }
        let mut text = String::from("{");
        if let Some(caches) = r.generation().shared::<Caches>() {
            for entry in caches.iter() {
                text.push_str(if text.len() > 1 { ",\n " } else { "" });
                append(&mut text, entry);
            }
        }
        text.push_str("}\n");
        r.headers_out.status.set(200);
        r.headers_out.content_type.replace(Some(Bytes::from_static(b"application/json")));
        r.headers_out.set(&b"Cache-Control"[..], &b"no-store"[..]);
        r.respond(text.into()).map(|_| Outcome::Done)
    }
}

/// One member: the cache's name, and its counters by level.
fn append(text: &mut String, entry: &CacheEntry) {
    let s = entry.cache.stats();
    let source = entry.source_name.as_deref().map_or("null".to_owned(), |it| format!("\"{it}\""));
    // Names hold nothing that JSON escapes, and writing to a String does not fail.
    let _ = write!(
        text,
        "\"{}\":{{\"L1\":{{\"hits\":{},\"negative_hits\":{},\"stale_serves\":{},\"misses\":{},\"waits\":{},\
         \"evictions\":{},\"invalidations\":{},\"entries\":{},\"size_bytes\":{},\"size_bytes_max\":{}}},\
         \"source\":{{\"name\":{source},\"loads\":{},\"refreshes\":{},\"errors\":{},\"timeouts\":{},\"late\":{},\
         \"voided\":{},\"hand_overs\":{},\"running\":{}}},\
         \"refused\":{{\"waiters\":{},\"loads\":{}}}}}",
        entry.name,
        s.hits,
        s.negative_hits,
        s.stale_serves,
        s.misses,
        s.waits,
        s.evictions,
        s.invalidations,
        s.entries,
        s.size_bytes,
        entry.policy.size_bytes_max,
        s.loads,
        s.refreshes,
        s.load_errors,
        s.load_timeouts,
        s.late_loads,
        s.voided_loads,
        s.hand_overs,
        s.loads_running,
        s.waiters_refused,
        s.loads_refused,
    );
}
