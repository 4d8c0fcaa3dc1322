//! `cache_source`, `tiered_cache`, `tiered_cache_pass`: the tiered cache as directives.
//!
//! ```text
//! cache_source products { driver sqlite; database data/shop.db; query "SELECT … WHERE id = :id"; }
//! tiered_cache product_info { memory 64m; ttl 10m; source products; }
//! location = /product { tiered_cache_pass product_info; tiered_cache_key $arg_id; tiered_cache_param id $arg_id; }
//! ```
//!
//! Caches belong to the process: a reload finds them by their names and keeps what they hold. A generation's
//! settings reach them only when its first worker starts, so a configuration that turns out wrong changes nothing.
//! Scripts find the same caches through [`Caches`], which each generation shares.

mod cache_block;
mod numbers;
mod pass;
mod registry;
mod source_block;
mod status;
#[cfg(test)]
mod tests;

use std::rc::Rc;

use terrace_conf::{Arity, ConfError, Contexts, Directive};
use terrace_http::conf::table::{HSL, block, simple};
use terrace_http::{Builder, LocalFuture, LocationBuilder, Module, Worker};

pub use registry::{CacheEntry, Caches};

use Arity::{AtLeast, Exactly};

/// The module.
pub struct TieredCache;

/// In a `cache_source` block.
const IN_SOURCE: Contexts = Contexts::from_bits_retain(1 << Contexts::USER_BIT_FIRST);
/// In a `tiered_cache` block.
const IN_CACHE: Contexts = Contexts::from_bits_retain(2 << Contexts::USER_BIT_FIRST);
const PASS: Contexts = Contexts::LOCATION.union(Contexts::LOCATION_IF);

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    block("cache_source", Contexts::HTTP, Exactly(1), "How the values of a tiered cache are loaded.", source_block::set),
    simple("driver", IN_SOURCE, Exactly(1), "", "The kind of the source: sqlite.", source_block::set_driver),
    simple("database", IN_SOURCE, Exactly(1), "", "The database's file. It is opened for reading only.", source_block::set_database),
    simple("init_script", IN_SOURCE, Exactly(1), "", "The SQL script that makes the database if its file does not exist.", source_block::set_init_script),
    simple("query", IN_SOURCE, Exactly(1), "", "The query. Its parameters are written :name and are bound, never pasted.", source_block::set_query),
    simple("result", IN_SOURCE, Exactly(1), "row", "What the rows become: one object (row), an array of objects (rows), or the JSON text in the first column (column).", source_block::set_result),
    simple("integer_params", IN_SOURCE, AtLeast(1), "", "The parameters that must be integers; anything else is not found, without a query.", source_block::set_integers),
    simple("max_connections", IN_SOURCE, Exactly(1), "4", "How many connections may be open at once.", source_block::set_max_connections),
    simple("connection_timeout", IN_SOURCE, Exactly(1), "1s", "How long a load waits for a free connection.", source_block::set_connection_timeout),
    simple("query_timeout", IN_SOURCE, Exactly(1), "2s", "How long the query may take.", source_block::set_query_timeout),

    block("tiered_cache", Contexts::HTTP, Exactly(1), "A cache in memory, shared by all workers, over a source.", cache_block::set),
    simple("memory", IN_CACHE, Exactly(1), "64m", "The bound of the memory level in bytes: keys, values and 192 for each entry.", cache_block::set_memory),
    simple("ttl", IN_CACHE, Exactly(1), "10m", "How long a value is fresh.", cache_block::set_ttl),
    simple("jitter", IN_CACHE, Exactly(1), "10%", "By which share of itself ttl is shortened at most, at random.", cache_block::set_jitter),
    simple("negative_ttl", IN_CACHE, Exactly(1), "5s", "How long an absence is remembered; 0 does not remember it.", cache_block::set_negative_ttl),
    simple("stale_while_revalidate", IN_CACHE, Exactly(1), "1m", "How long after its ttl a value is served while one load renews it.", cache_block::set_stale_while_revalidate),
    simple("stale_if_error", IN_CACHE, Exactly(1), "1h", "How long after its ttl a value stands in for a load that failed.", cache_block::set_stale_if_error),
    simple("error_retry", IN_CACHE, Exactly(1), "1s", "How long after a failed load stale values are served without another.", cache_block::set_error_retry),
    simple("load_timeout", IN_CACHE, Exactly(1), "5s", "A load that takes longer has failed.", cache_block::set_load_timeout),
    simple("max_waiters", IN_CACHE, Exactly(1), "4096", "How many lookups may wait for one key.", cache_block::set_max_waiters),
    simple("max_loads", IN_CACHE, Exactly(1), "256", "How many loads may run at once.", cache_block::set_max_loads),
    simple("source", IN_CACHE, Exactly(1), "", "The cache_source that misses are loaded from; without one only scripts load.", cache_block::set_source),

    simple("tiered_cache_pass", PASS, Exactly(1), "", "Answers from this tiered cache.", pass::set_pass),
    simple("tiered_cache_key", HSL, Exactly(1), "", "The key to look up.", pass::set_key),
    simple("tiered_cache_param", HSL, Exactly(2), "", "A parameter of the source's query. Inherited where a block has none.", pass::set_param),
    simple("tiered_cache_type", HSL, Exactly(1), "application/json", "The media type of values.", pass::set_type),
    simple("tiered_cache_status", PASS, Exactly(0), "", "Answers with the counters of all tiered caches, as JSON.", pass::set_status),
];

impl Module for TieredCache {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn contexts(&self) -> &'static [(Contexts, &'static str)] {
        &[(IN_SOURCE, "cache_source"), (IN_CACHE, "tiered_cache")]
    }

    fn variables(&self, builder: &mut Builder) {
        builder.vars.define("tiered_cache_level", |r, out| pass::told(r, pass::LEVEL, out));
        builder.vars.define("tiered_cache_time", |r, out| pass::told(r, pass::TIME_US, out));
    }

    fn location(&self, builder: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        pass::add_handler(builder, location)
    }

    fn finish(&self, builder: &mut Builder) -> Result<(), ConfError> {
        let caches = registry::prepare(builder)?;
        source_block::init_databases(builder)?;
        builder.share(caches);
        Ok(())
    }

    fn worker_start(&self, worker: &Rc<Worker>) -> Option<LocalFuture<Result<(), String>>> {
        if let Some(caches) = worker.generation.shared::<Caches>() {
            caches.activate();
        }
        None
    }
}

/// Whether a name can stand in logs and JSON as it is.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}
