//! Where a store tells what is wrong: a store has no logger of its own, so whoever opens it hands it a function.
//!
//! Invariant: a store tells at most [`LINES_PER_SECOND_MAX`] lines a second, whatever it finds; the rest is counted, and the count
//! is told with the next line.

use std::sync::Arc;
use std::time::{Duration, Instant};

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

/// When to tell of something that stays wrong: at once, then after a second and after twice as long each time, up to
/// [`REMINDER_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Lasting(Option<(Instant, Duration)>);

/// The longest time between two lines about what stays wrong.
const REMINDER_MAX: Duration = Duration::from_secs(60);

impl Lasting {
    /// It is wrong, still or again. Whether that is to be told now.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let pause = match self.0 {
            None => Duration::from_secs(1),
            Some((told, pause)) if now.saturating_duration_since(told) >= pause => {
                (pause * 2).min(REMINDER_MAX)
            }
            Some(_) => return false,
        };
        self.0 = Some((now, pause));
        true
    }

    /// It is over. Whether it had been told of.
    pub(crate) fn is_over(&mut self) -> bool {
        self.0.take().is_some()
    }
}

/// A key as it can stand in a log: printable bytes as they are, the others as `\xNN`, at most [`KEY_SHOWN_BYTES`] of them.
pub(crate) fn shown(key: &[u8]) -> String {
    let head = &key[..key.len().min(KEY_SHOWN_BYTES)];
    let dots = if head.len() < key.len() { "..." } else { "" };
    format!("\"{}{dots}\"", head.escape_ascii())
}

const KEY_SHOWN_BYTES: usize = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_wrong_is_told_less_and_less_often() {
        let (began, mut wrong) = (Instant::now(), Lasting::default());
        assert!(!wrong.is_over());
        let mut told_s = |tenths: std::ops::Range<u64>| -> Vec<u64> {
            let due = |tenth: &u64| wrong.is_due(began + Duration::from_millis(100 * tenth));
            tenths.filter(due).map(|tenth| tenth / 10).collect()
        };
        assert_eq!(told_s(0..2500), [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert!(wrong.is_over() && !wrong.is_over());
        assert!(wrong.is_due(began + Duration::from_secs(250)));
    }
}
