//! A log that says the same kind of thing once, then at most once in a while with the number of those left out: a broker
//! that is away for a day is a line each half minute, not one each reconnection.

use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use terrace_base::log::{ErrorLog, Level};

/// Least time between two lines of one kind.
const INTERVAL: Duration = Duration::from_secs(30);

/// A rate-limited log.
#[derive(Debug)]
pub(crate) struct Noise {
    log: ErrorLog,
    /// By kind: when it was last said, and how often it was not since. Kinds are few and known when compiling.
    said: Mutex<Vec<(&'static str, Instant, u64)>>,
}

impl Noise {
    pub fn new(log: ErrorLog) -> Self {
        Self { log, said: Mutex::new(Vec::new()) }
    }

    /// Writes a line unless one of its kind was written a short while ago.
    pub fn say(&self, level: Level, kind: &'static str, message: fmt::Arguments<'_>) {
        let now = Instant::now();
        let left_out = {
            let mut said = self.said.lock();
            match said.iter_mut().find(|(known, ..)| *known == kind) {
                Some((_, last, left_out)) if now.duration_since(*last) < INTERVAL => {
                    *left_out += 1;
                    return;
                }
                Some((_, last, left_out)) => {
                    *last = now;
                    std::mem::take(left_out)
                }
                None => {
                    said.push((kind, now, 0));
                    0
                }
            }
        };
        match left_out {
            0 => self.log.print(level, None, format_args!("kafka: {message}")),
            _ => self.log.print(level, None, format_args!("kafka: {message} ({left_out} alike left out)")),
        }
    }

    /// Writes a line always: what happens rarely by its nature.
    pub fn note(&self, level: Level, message: fmt::Arguments<'_>) {
        self.log.print(level, None, format_args!("kafka: {message}"));
    }
}
