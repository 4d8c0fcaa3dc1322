//! Shared dictionaries: what `ngx.shared.DICT` keeps for the scripts of all worker threads.
//!
//! A [`Dict`] is a map from byte strings to booleans, numbers, strings and lists, bounded by bytes, with
//! least-recently-used eviction and per-entry expiry. It follows the semantics and the error texts of
//! lua-nginx-module's `ngx.shared.DICT`, without its slab fragmentation: "no memory" is answered only when a
//! single value cannot fit, or by the operations that promise never to evict a valid entry.
//!
//! The crate holds no clock and no random source: `now_ms` (milliseconds, any epoch that never goes back to 0)
//! and the hash seed are arguments.
//!
//! Invariants: the bytes charged to live entries plus the bytes reserved by writers in flight never exceed the
//! capacity; no operation ever holds two shard locks.
#![forbid(unsafe_code)]

mod budget;
mod dict;
mod list;
mod shard;
#[cfg(test)]
mod tests;
mod write;

pub use budget::Stats;
pub use dict::{Dict, Fetched, FetchedValue, KEYS_DEFAULT_MAX};
pub use list::Popped;
pub use shard::{ENTRY_OVERHEAD_BYTES, LIST_ITEM_OVERHEAD_BYTES, SCALAR_BYTES};
pub use write::{Incremented, Operation, Stored};

/// The longest key, in bytes; OpenResty keeps the length in 16 bits.
pub const KEY_BYTES_MAX: usize = 65_535;

/// A value as it is written, or read in place under the lock.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// A Lua boolean.
    Boolean(bool),
    /// A Lua number.
    Number(f64),
    /// A Lua string.
    String(&'a [u8]),
}

/// An entry as a reader sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Item<'a> {
    /// The value, borrowed from the dictionary.
    pub value: Value<'a>,
    /// The user flags given when it was stored (default 0).
    pub flags: u32,
    /// Whether it had expired; only a stale read can see `true`.
    pub stale: bool,
}

/// Why an operation did nothing. The texts are those that scripts compare with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key has no bytes.
    #[error("empty key")]
    EmptyKey,
    /// The key is longer than [`KEY_BYTES_MAX`].
    #[error("key too long")]
    KeyTooLong,
    /// The value cannot fit, or not without evicting what the operation must not evict.
    #[error("no memory")]
    NoMemory,
    /// `add` met a live entry.
    #[error("exists")]
    Exists,
    /// The operation needs a live entry.
    #[error("not found")]
    NotFound,
    /// `incr` met something else than a number.
    #[error("not a number")]
    NotANumber,
    /// A list operation met a plain value.
    #[error("value not a list")]
    ValueNotAList,
    /// A read met a list.
    #[error("value is a list")]
    ValueIsAList,
    /// The value's type cannot be pushed to a list.
    #[error("bad value type")]
    BadValueType,
    /// `add` and `replace` take no nil.
    #[error("attempt to add or replace nil values")]
    NilValue,
}

fn check_key(key: &[u8]) -> Result<(), Error> {
    match key.len() {
        0 => Err(Error::EmptyKey),
        1..=KEY_BYTES_MAX => Ok(()),
        _ => Err(Error::KeyTooLong),
    }
}
