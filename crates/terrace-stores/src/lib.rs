//! Stores and sources behind the traits of the cache engine.
#![forbid(unsafe_code)]
