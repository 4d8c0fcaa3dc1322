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

mod api;
mod cache_block;
mod changes;
mod chores;
mod invalidation_block;
mod lock_block;
mod metrics;
mod numbers;
mod pass;
mod purge;
mod query;
mod registry;
mod source_block;
mod status;
mod store_block;
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
/// In a `cache_store` block.
const IN_STORE: Contexts = Contexts::from_bits_retain(4 << Contexts::USER_BIT_FIRST);
/// In a `cache_lock` block.
const IN_LOCK: Contexts = Contexts::from_bits_retain(8 << Contexts::USER_BIT_FIRST);
/// In a `cache_invalidation` block.
const IN_INVALIDATION: Contexts = Contexts::from_bits_retain(16 << Contexts::USER_BIT_FIRST);
/// In an `on` block of a `cache_invalidation`.
const IN_ON: Contexts = Contexts::from_bits_retain(32 << Contexts::USER_BIT_FIRST);
const PASS: Contexts = Contexts::LOCATION.union(Contexts::LOCATION_IF);

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    block("cache_source", Contexts::HTTP, Exactly(1), "How the values of a tiered cache are loaded.", source_block::set),
    simple("driver", IN_SOURCE, Exactly(1), "", "The kind of the source: sqlite, mysql (also MariaDB), postgres or http.", source_block::set_driver),
    simple("database", IN_SOURCE, Exactly(1), "", "The database: its file for sqlite, its name else. It is only read.", source_block::set_database),
    simple("init_script", IN_SOURCE, Exactly(1), "", "sqlite: the SQL script that makes the database if its file does not exist.", source_block::set_init_script),
    simple("server", IN_SOURCE, Exactly(1), "", "mysql, postgres: the server, as host, host:port or unix:path.", source_block::set_server),
    simple("user", IN_SOURCE, Exactly(1), "", "mysql, postgres: the user.", source_block::set_user),
    simple("password", IN_SOURCE, Exactly(1), "", "mysql, postgres: the user's password.", source_block::set_password),
    simple("password_file", IN_SOURCE, Exactly(1), "", "mysql, postgres: the file whose first line is the password.", source_block::set_password_file),
    simple("query", IN_SOURCE, Exactly(1), "", "The query. Its parameters are written :name and are bound, never pasted.", source_block::set_query),
    simple("result", IN_SOURCE, Exactly(1), "row", "What the rows become: one object (row), an array of objects (rows), or the JSON text in the only column (column).", source_block::set_result),
    simple("version_column", IN_SOURCE, Exactly(1), "", "The column that has the value's version: a number or a time. Older values replace no newer ones.", source_block::set_version_column),
    simple("ttl_column", IN_SOURCE, Exactly(1), "", "The column that has the value's life in seconds.", source_block::set_ttl_column),
    simple("tags_column", IN_SOURCE, Exactly(1), "", "The column that has the value's tags: words with commas or blanks between them, or a JSON array.", source_block::set_tags_column),
    simple("hide_columns", IN_SOURCE, AtLeast(1), "", "Columns that are left out of the value.", source_block::set_hide_columns),
    simple("json_columns", IN_SOURCE, AtLeast(1), "", "Text columns that hold JSON, which becomes a part of the value as it is.", source_block::set_json_columns),
    simple("integer_params", IN_SOURCE, AtLeast(1), "", "The parameters that must be integers; anything else is not found, without a query.", source_block::set_integers),
    simple("max_connections", IN_SOURCE, Exactly(1), "4", "How many connections may be open at once.", source_block::set_max_connections),
    simple("connection_timeout", IN_SOURCE, Exactly(1), "1s", "How long a load waits for a free connection, and how long making one may take.", source_block::set_connection_timeout),
    simple("query_timeout", IN_SOURCE, Exactly(1), "2s", "How long the query, or the request with its answer, may take.", source_block::set_query_timeout),
    simple("url", IN_SOURCE, Exactly(1), "", "http: what is asked, as http://host:port/path or http://unix:socket:/path. :name stands for a parameter, escaped.", source_block::set_url),
    simple("header", IN_SOURCE, Exactly(2), "", "http: a header of each request.", source_block::set_header),
    simple("honor_cache_control", IN_SOURCE, Exactly(1), "off", "http: whether the answer's Cache-Control and Age say how long the value lives.", source_block::set_honor_cache_control),
    simple("version_header", IN_SOURCE, Exactly(1), "", "http: the answer's header that has the value's version: a number or a time.", source_block::set_version_header),
    simple("max_body", IN_SOURCE, Exactly(1), "16m", "http: how large an answer may be.", source_block::set_max_body),
    simple("breaker", IN_SOURCE, AtLeast(1), "off", "Leaves a failing source alone: failures=5 in a row, or share=50% of at least loads=20 in window=10s, fail all loads for open=2s; then one tries.", source_block::set_breaker),

    block("cache_store", Contexts::HTTP, Exactly(1), "The level of a tiered cache that a fleet shares (L2).", store_block::set),
    simple("driver", IN_STORE, Exactly(1), "", "The kind of the store: redis, redis_sentinel, redis_cluster or memcached.", store_block::set_driver),
    simple("server", IN_STORE, AtLeast(1), "", "Addresses of servers; of a Redis Cluster or Sentinel some are enough.", store_block::set_server),
    simple("master", IN_STORE, Exactly(1), "", "The name under which the sentinels watch the master.", store_block::set_master),
    simple("username", IN_STORE, Exactly(1), "", "The user at the servers.", store_block::set_username),
    simple("password", IN_STORE, Exactly(1), "", "The password at the servers.", store_block::set_password),
    simple("sentinel_username", IN_STORE, Exactly(1), "", "The user at the sentinels.", store_block::set_sentinel_username),
    simple("sentinel_password", IN_STORE, Exactly(1), "", "The password at the sentinels.", store_block::set_sentinel_password),
    simple("database", IN_STORE, Exactly(1), "0", "The number of the database.", store_block::set_database),
    simple("prefix", IN_STORE, Exactly(1), "terrace:", "What all keys begin with; the name of the cache follows it.", store_block::set_prefix),
    simple("timeout", IN_STORE, Exactly(1), "500ms", "How long a call may take, with its retries.", store_block::set_timeout),
    simple("connect_timeout", IN_STORE, Exactly(1), "300ms", "How long a connection may take to be made.", store_block::set_connect_timeout),
    simple("sweep_timeout", IN_STORE, Exactly(1), "60s", "How long an invalidation of a prefix or tag may take.", store_block::set_sweep_timeout),
    simple("replica_reads", IN_STORE, Exactly(1), "off", "Whether replicas are asked first.", store_block::set_replica_reads),
    simple("connections", IN_STORE, Exactly(1), "2", "How many connections to each server; 4 for memcached.", store_block::set_connections),
    simple("compress", IN_STORE, Exactly(1), "1k", "Values of at least this size are compressed; off: none.", store_block::set_compress),
    simple("dictionary", IN_STORE, Exactly(1), "", "A file with a zstd dictionary for values; the same on every node.", store_block::set_dictionary),

    block("cache_lock", Contexts::HTTP, Exactly(1), "A lock service that is asked around the loads of a tiered cache.", lock_block::set),
    simple("driver", IN_LOCK, Exactly(1), "", "The kind of the service: zookeeper.", lock_block::set_driver),
    simple("server", IN_LOCK, AtLeast(1), "", "Addresses of servers.", lock_block::set_server),
    simple("path", IN_LOCK, Exactly(1), "/terrace/locks", "The node below which the locks are.", lock_block::set_path),
    simple("session_timeout", IN_LOCK, Exactly(1), "10s", "How long after its last sign of life a node loses its locks.", lock_block::set_session_timeout),
    simple("timeout", IN_LOCK, Exactly(1), "2s", "How long the service's answers may take.", lock_block::set_timeout),

    block("cache_invalidation", Contexts::HTTP, Exactly(1), "Messages of Kafka that tell of changes.", invalidation_block::set),
    simple("brokers", IN_INVALIDATION, AtLeast(1), "", "Addresses of some brokers.", invalidation_block::set_brokers),
    simple("topic", IN_INVALIDATION, AtLeast(1), "", "The topics.", invalidation_block::set_topic),
    simple("group", IN_INVALIDATION, Exactly(1), "", "The consumer group of the nodes that have changes take effect on L2; without one a node cares for its own memory.", invalidation_block::set_group),
    simple("property", IN_INVALIDATION, Exactly(2), "", "A property of the client, by librdkafka's name.", invalidation_block::set_property),
    block("on", IN_INVALIDATION, AtLeast(0), "What a message with these fields and values means.", invalidation_block::set_on),
    simple("cache", IN_ON, Exactly(1), "", "The tiered cache that is meant.", invalidation_block::set_cache),
    simple("key", IN_ON, Exactly(1), "", "The key that is meant, made of the message's fields.", invalidation_block::set_key),
    simple("key_prefix", IN_ON, Exactly(1), "", "All keys that begin with this are meant.", invalidation_block::set_key_prefix),
    simple("tag", IN_ON, Exactly(1), "", "All values with this tag are meant.", invalidation_block::set_tag),
    simple("action", IN_ON, Exactly(1), "drop", "Whether values are dropped or refreshed.", invalidation_block::set_action),
    simple("version", IN_ON, Exactly(1), "", "The field with the version that the source has now; values of that version and newer stay.", invalidation_block::set_version),

    block("tiered_cache", Contexts::HTTP, Exactly(1), "A cache in memory, shared by all workers, over a store and a source.", cache_block::set),
    simple("memory", IN_CACHE, Exactly(1), "64m", "The bound of the memory level in bytes: keys, values and 352 for each entry.", cache_block::set_memory),
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

    simple("l2", IN_CACHE, Exactly(1), "", "The cache_store that the fleet shares.", cache_block::set_l2),
    simple("lock", IN_CACHE, Exactly(1), "", "The cache_lock that is asked around each load.", cache_block::set_lock),
    simple("l1_ttl", IN_CACHE, Exactly(1), "", "The longest time that a value of L2 is fresh in memory.", cache_block::set_l1_ttl),
    simple("l2_timeout", IN_CACHE, Exactly(1), "250ms", "How long a lookup waits for L2 before it goes on to the source.", cache_block::set_l2_timeout),
    simple("l2_retry", IN_CACHE, Exactly(1), "1s", "How long an L2 that is away is left alone before one lookup tries it.", cache_block::set_l2_retry),
    simple("l2_down_ttl", IN_CACHE, Exactly(1), "10s", "How long a value is fresh that was loaded past L2.", cache_block::set_l2_down_ttl),
    simple("lease", IN_CACHE, Exactly(1), "10s", "How long L2 keeps the right to load for one node.", cache_block::set_lease),
    simple("held_wait", IN_CACHE, Exactly(1), "1s", "How long a lookup waits for the load of another node.", cache_block::set_held_wait),
    simple("lock_wait", IN_CACHE, Exactly(1), "1s", "How long a load waits for the lock before it goes on without.", cache_block::set_lock_wait),
    simple("max_lookups", IN_CACHE, Exactly(1), "8192", "How many keys may be on their way at once.", cache_block::set_max_lookups),
    simple("refresh_ahead", IN_CACHE, Exactly(1), "0%", "In this last part of its life a value that is asked for is renewed.", cache_block::set_refresh_ahead),
    simple("on_change", IN_CACHE, Exactly(1), "drop", "What a change that another node tells of does to values in memory: drop or refresh.", cache_block::set_on_change),
    simple("refresh_rate", IN_CACHE, Exactly(1), "100r/s", "How many changed values are renewed at once; the others when they are asked for.", cache_block::set_refresh_rate),
    simple("snapshot", IN_CACHE, Arity::Between(1, 2), "", "A file that memory is written to now and then, and filled from at the start.", cache_block::set_snapshot),
    simple("existing_keys", IN_CACHE, Exactly(1), "", "A file with the keys that exist, one a line: others are absent without a question.", cache_block::set_existing_keys),

    simple("tiered_cache_pass", PASS, Exactly(1), "", "Answers from this tiered cache.", pass::set_pass),
    simple("tiered_cache_key", HSL, Exactly(1), "", "The key to look up.", pass::set_key),
    simple("tiered_cache_param", HSL, Exactly(2), "", "A parameter of the source's query. Inherited where a block has none.", pass::set_param),
    simple("tiered_cache_type", HSL, Exactly(1), "application/json", "The media type of values.", pass::set_type),
    simple("tiered_cache_headers", HSL, Exactly(1), "on", "Whether answers say how they came about (X-Cache-Level, X-Cache-Time-Us): on, off, or a text with variables that is neither empty, 0 nor off.", pass::set_headers),
    simple("tiered_cache_purge_method", HSL, Exactly(1), "off", "Whether the method PURGE drops the value that GET answers with.", pass::set_purge_method),
    simple("tiered_cache_purge", PASS, Exactly(1), "", "Drops values of this tiered cache: of key=, prefix=, tag= or all=1, else of tiered_cache_key.", pass::set_purge),
    simple("tiered_cache_status", PASS, Exactly(0), "", "Answers with the counters of all tiered caches, as JSON.", pass::set_status),
    simple("tiered_cache_metrics", PASS, Exactly(0), "", "Answers with what all tiered caches did, as Prometheus reads it.", pass::set_metrics),
    simple("tiered_cache_api", Contexts::LOCATION, Exactly(0), "", "Answers the command terrace cache.", pass::set_api),
];

impl Module for TieredCache {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn contexts(&self) -> &'static [(Contexts, &'static str)] {
        &[
            (IN_SOURCE, "cache_source"),
            (IN_CACHE, "tiered_cache"),
            (IN_STORE, "cache_store"),
            (IN_LOCK, "cache_lock"),
            (IN_INVALIDATION, "cache_invalidation"),
            (IN_ON, "on"),
        ]
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
            caches.activate(&worker.generation.log);
        }
        None
    }
}

/// Whether a name can stand in logs and JSON as it is.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
}
