//! The seam to the source of truth: what a load is asked, and what it may answer.
//!
//! The engine owns this trait; the stores depend on the engine, never the other way round.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::error::LoadError;
use crate::l2::Version;

/// A boxed future that may move between the threads of the background runtime.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// One named parameter of a load. The value is what the client sent: untrusted bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// The name, as the configuration spells it.
    pub name: Arc<str>,
    /// The value, as it came with the request.
    pub value: Bytes,
}

impl Param {
    /// A parameter of the given name and value.
    pub fn new(name: impl Into<Arc<str>>, value: impl Into<Bytes>) -> Self {
        Self { name: name.into(), value: value.into() }
    }
}

/// The parameters of a load; few, so usually without an allocation of their own.
pub type Params = SmallVec<[Param; 2]>;

/// What a source is asked to load.
#[derive(Clone, Debug)]
pub struct LoadRequest {
    /// The cache key that the result will be stored under.
    pub key: Bytes,
    /// The parameters that the lookup which began the load gave.
    pub params: Params,
}

/// What a load found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// A value.
    Found {
        /// The value as it will be served.
        value: Bytes,
        /// Its life in milliseconds before jitter; the policy's `ttl_ms` when absent. Zero: tell the waiters, store
        /// nothing.
        ttl_ms: Option<u64>,
        /// The version that the source gives it; zero if it names none.
        version: Version,
        /// Tags under which it can be invalidated; beyond [`crate::TAGS_MAX`] they are ignored.
        tags: Vec<Arc<str>>,
    },
    /// The source is sure that there is no such thing; stored as a negative entry.
    NotFound {
        /// The life of the negative entry; the policy's `negative_ttl_ms` when absent. Zero: store nothing.
        ttl_ms: Option<u64>,
    },
}

impl Loaded {
    /// A value with the policy's life, no version and no tags.
    pub fn found(value: impl Into<Bytes>) -> Self {
        Self::versioned(value, None, 0)
    }

    /// A value with a life (the policy's if `None`) and a version (zero: none), without tags.
    pub fn versioned(value: impl Into<Bytes>, ttl_ms: Option<u64>, version: Version) -> Self {
        Self::Found { value: value.into(), ttl_ms, version, tags: Vec::new() }
    }

    /// The certainty that there is nothing, with the policy's negative life.
    pub fn not_found() -> Self {
        Self::NotFound { ttl_ms: None }
    }
}

/// Where values come from when no level has them.
///
/// `load` runs on the background runtime. The cache cancels it (drops the future) after the policy's
/// `load_timeout_ms`; a panic in it counts as a failed load.
pub trait Source: Send + Sync {
    /// Loads one key.
    fn load(&self, request: LoadRequest) -> BoxFuture<'_, Result<Loaded, LoadError>>;
}
