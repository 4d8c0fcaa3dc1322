//! Composes the server: generations, workers, reload, drain, signals.
#![forbid(unsafe_code)]
