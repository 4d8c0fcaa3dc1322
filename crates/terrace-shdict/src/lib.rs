//! Shared dictionaries: sharded, bounded by bytes, LRU, expiry, lists and counters.
#![forbid(unsafe_code)]
