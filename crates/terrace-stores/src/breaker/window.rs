//! How many loads there were of late, and how many of them failed: a ring of parts of the window.
//!
//! Invariant: what is older than the window does not count; what is older than nine tenths of it may not.

/// The parts of a window.
const PARTS: usize = 10;

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    loads: u64,
    failed: u64,
}

/// The counters of one window.
#[derive(Debug, Default)]
pub(super) struct Window {
    parts: [Part; PARTS],
    /// The number of the present part since the clock's beginning.
    present: u64,
}

impl Window {
    /// Counts one load in a window of `window_ms`, at least [`PARTS`].
    pub(super) fn count(&mut self, now_ms: u64, window_ms: u64, is_failed: bool) {
        // A clock seen by another thread may lag a little.
        let present = (now_ms / (window_ms / PARTS as u64)).max(self.present);
        // After a whole window the ring has been around once: clearing goes no further.
        for number in (self.present + 1..=present).take(PARTS) {
            self.parts[(number % PARTS as u64) as usize] = Part::default();
        }
        self.present = present;
        let part = &mut self.parts[(present % PARTS as u64) as usize];
        part.loads += 1;
        part.failed += u64::from(is_failed);
    }

    /// Loads, and those of them that failed.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.parts.iter().fold((0, 0), |(loads, failed), part| (loads + part.loads, failed + part.failed))
    }
}
