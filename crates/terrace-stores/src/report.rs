//! Where a store tells what is wrong: a store has no logger of its own, so whoever opens it hands it a function.
//!
//! Invariant: a store tells at most [`LINES_PER_SECOND_MAX`] lines a second, whatever it finds; the rest is counted, and the count
//! is told with the next line.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

/// Told one line about something that a person should know: a value that cannot be read, a server that is away. Must not block.
pub type Report = Arc<dyn Fn(String) + Send + Sync>;

/// How many lines one store tells in a second.
pub const LINES_PER_SECOND_MAX: u32 = 10;

/// A [`Report`] that is not flooded.
pub(crate) struct Reporter {
    report: Report,
    window: Mutex<Window>,
}

struct Window {
    began: Instant,
    told: u32,
    held_back: u64,
}

impl Reporter {
    pub(crate) fn new(report: Report) -> Self {
        Self { report, window: Mutex::new(Window { began: Instant::now(), told: 0, held_back: 0 }) }
    }

    /// Tells a line, or counts it. The line is only made if it is told.
    pub(crate) fn tell(&self, line: impl FnOnce() -> String) {
        let held_back = {
            let mut window = self.window.lock();
            if window.began.elapsed().as_secs() >= 1 {
                window.began = Instant::now();
                window.told = 0;
            }
            if window.told >= LINES_PER_SECOND_MAX {
                window.held_back += 1;
                return;
            }
            window.told += 1;
            std::mem::take(&mut window.held_back)
        };
        let line = line();
        (self.report)(if held_back == 0 {
            line
        } else {
            format!("{line} ({held_back} more lines before this one)")
        });
    }
}

/// A key as it can stand in a log: printable bytes as they are, the others as `\xNN`, at most [`KEY_SHOWN_BYTES`] of them.
pub(crate) fn shown(key: &[u8]) -> String {
    let head = &key[..key.len().min(KEY_SHOWN_BYTES)];
    let dots = if head.len() < key.len() { "..." } else { "" };
    format!("\"{}{dots}\"", head.escape_ascii())
}

const KEY_SHOWN_BYTES: usize = 80;
