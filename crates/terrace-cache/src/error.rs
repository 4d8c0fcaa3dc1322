//! Errors of a lookup: who is at fault, and whether asking again may help.
//!
//! A miss and a negative entry are values, not errors. Errors are cheap to clone, because one failed load is
//! told to every waiter of its key.

use std::sync::Arc;

/// Who has to act for the error to go away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request: asked again unchanged, it fails again.
    Caller,
    /// The source behind the cache: down, slow or broken.
    Source,
    /// The configuration: a wrong query, a missing source.
    Configuration,
    /// This process: a bound was hit, or it is shutting down.
    Process,
}

/// Why a load gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The request cannot be turned into a load (a missing parameter, text that is not UTF-8).
    #[error("the request cannot be loaded: {0}")]
    Request(Arc<str>),
    /// The source cannot be reached or refuses work.
    #[error("the source is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// The source answered, but not with something that can be cached, or does not understand the query.
    #[error("the source's answer cannot be used: {0}")]
    Invalid(Arc<str>),
    /// The load took longer than the policy's `load_timeout_ms`.
    #[error("the load took longer than {0} ms")]
    Timeout(u64),
    /// The load ended without a result: its loader was dropped, panicked, or the process is shutting down.
    #[error("the load was abandoned")]
    Abandoned,
}

impl LoadError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Request(_) => Fault::Caller,
            Self::Unavailable(_) | Self::Timeout(_) => Fault::Source,
            Self::Invalid(_) => Fault::Configuration,
            Self::Abandoned => Fault::Process,
        }
    }

    /// Whether the same lookup may succeed a little later.
    pub fn retry_may_help(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout(_) | Self::Abandoned)
    }
}

/// The bound that refused a lookup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `max_waiters_per_key` lookups already wait for this key.
    Waiters,
    /// `max_loads` loads are already running.
    Loads,
    /// `max_lookups` keys are already on their way.
    Lookups,
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Waiters => "too many lookups wait for this key",
            Self::Loads => "too many loads are running",
            Self::Lookups => "too many keys are on their way",
        })
    }
}

/// Why a lookup has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheError {
    /// The load failed and no value inside a stale window could stand in.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A bound was hit and no value inside a stale window could stand in.
    #[error("{0}")]
    Busy(Bound),
    /// The cache has no source, and the lookup brought no loader.
    #[error("the cache has no source")]
    NoSource,
}

impl CacheError {
    /// Whose fault it is.
    pub fn fault(&self) -> Fault {
        match self {
            Self::Load(error) => error.fault(),
            Self::Busy(_) => Fault::Process,
            Self::NoSource => Fault::Configuration,
        }
    }

    /// Whether the same lookup may succeed a little later.
    pub fn retry_may_help(&self) -> bool {
        match self {
            Self::Load(error) => error.retry_may_help(),
            Self::Busy(_) => true,
            Self::NoSource => false,
        }
    }
}
