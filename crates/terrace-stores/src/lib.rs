//! Stores and sources behind the traits of the cache engine.
//!
//! - [`SqlSource`]: one SQL query as a source. A lookup's parameters fill the query's named parameters; its rows
//!   become JSON. SQLite is built in; MySQL, MariaDB and PostgreSQL are asked over the network.
//! - [`HttpSource`]: an HTTP server as a source; a lookup's parameters fill places of a URL.
//! - [`Guarded`]: a circuit breaker around any source.
//! - [`RedisL2`]: Redis as the level that a fleet shares; single, under sentinels, or a cluster.
//! - [`ZooKeeperLock`]: locks of ZooKeeper, for fleets that have it.
//! - [`MemcachedL2`]: memcached as that level, with less; see there.
//! - [`codec`]: the envelope in which values lie there.
//! - [`init`]: makes a database that does not exist yet from an SQL script.
//!
//! # Named parameters
//!
//! A query names its parameters as `:name` (letters, digits and `_`, not starting with a digit):
//!
//! ```sql
//! SELECT id, name, price FROM products WHERE id = :product_id
//! ```
//!
//! When the source is opened, each name becomes a placeholder of the database, and the text is never touched again:
//! values are bound, not pasted, so `1 OR 1=1` is a text of eight characters to the database. A colon inside a string, a
//! quoted identifier or a comment is no parameter, and neither is `::`. Placeholders without a name (`?`, `$1`, `@x`)
//! and a second statement are refused; PostgreSQL's operators with `?` and `@` are not.
//!
//! At each load the parameter `:name` takes the lookup's parameter of the same name; one that is missing, or is
//! not UTF-8, fails the load as the caller's fault. It is bound as text. SQLite compares a text with an INTEGER column as
//! a number if it looks like one, and as different from every number if it does not; MySQL takes the number that a text
//! begins with (`1x` is 1); PostgreSQL refuses the query until it has a cast (`:id::uuid`). A name listed in
//! [`SqlOptions::integers`] is strict: a decimal 64-bit integer (`-` allowed; no `+`, spaces, leading zeros,
//! fraction or exponent) is bound as an integer, and anything else is "not found" without asking the database.
#![forbid(unsafe_code)]

mod breaker;
pub mod codec;
mod http;
pub mod memcached;
mod pool;
pub mod redis;
mod report;
mod sql;
mod zookeeper;

pub use breaker::{Breaker, BreakerOptions, BreakerState, BreakerStats, Guarded, Outcome, Pass};
pub use http::{BODY_BYTES_MAX_DEFAULT, HttpError, HttpOptions, HttpSource};
pub use memcached::{MemcachedL2, MemcachedOptions};
pub use redis::{RedisL2, RedisMode, RedisOptions};
pub use report::{LINES_PER_SECOND_MAX, Report};
pub use sql::{
    Columns, Database, DatabaseServer, InitError, MYSQL_PORT, POSTGRES_PORT, Password, ROWS_MAX, RowShape,
    SCRIPT_BYTES_MAX, ServerAddress, SqlError, SqlOptions, SqlSource, VALUE_BYTES_MAX, init,
};
pub use zookeeper::{ZooKeeperLock, ZooKeeperOptions};
