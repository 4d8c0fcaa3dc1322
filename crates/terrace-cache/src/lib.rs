//! The multi-level cache engine: policy as a sans-io state machine; knows no wire client.
#![forbid(unsafe_code)]
