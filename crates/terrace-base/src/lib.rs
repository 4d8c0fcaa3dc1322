//! Units, clock and logs: what every other crate of Terrace stands on.
#![forbid(unsafe_code)]
