//! `limit_rate`: how fast a response may leave.
//!
//! The arithmetic is nginx's, with milliseconds in place of seconds: a second's worth may leave at once, and after each
//! write the next one waits for as long as its bytes take at the rate. A pace is made only for a request that is
//! limited; without one, a connection's writes look at a single flag.

use terrace_net::Timer;

use crate::Request;

/// A rate, and how much of it has been used.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rate {
    /// Bytes a second; 0 is no limit.
    pub bytes_per_s: u64,
    /// This many bytes are free.
    pub after_bytes: u64,
    /// When counting began, ms.
    started_ms: u64,
    /// Nothing may move before this time, ms.
    resumes_ms: u64,
}

impl Rate {
    /// A rate that counts from `started_ms` on.
    pub fn new(bytes_per_s: u64, started_ms: u64) -> Rate {
        Rate { bytes_per_s, after_bytes: 0, started_ms, resumes_ms: 0 }
    }

    /// Nothing may move before this time, ms.
    pub fn resumes_ms(&self) -> u64 {
        self.resumes_ms
    }

    /// How many bytes may move now, `moved` having done so. With 0, [`Rate::resumes_ms`] says when to ask again.
    pub fn allows(&mut self, moved: u64, now_ms: u64) -> usize {
        if self.bytes_per_s == 0 {
            return usize::MAX;
        }
        if now_ms < self.resumes_ms {
            return 0;
        }
        let elapsed_ms = u128::from(now_ms.saturating_sub(self.started_ms)) + 1000;
        let earned =
            u128::from(self.bytes_per_s).saturating_mul(elapsed_ms) / 1000 + u128::from(self.after_bytes);
        match earned.checked_sub(u128::from(moved)) {
            None | Some(0) => {
                let lacking_ms = self.time_of(moved.saturating_sub(clamped(earned)));
                self.resumes_ms = now_ms.saturating_add(lacking_ms).saturating_add(1);
                0
            }
            Some(left) => usize::try_from(left).unwrap_or(usize::MAX),
        }
    }

    /// `bytes` have moved, and `moved` with them.
    pub fn used(&mut self, bytes: u64, moved: u64, now_ms: u64) {
        let billed = bytes.min(moved.saturating_sub(self.after_bytes));
        self.resumes_ms = now_ms.saturating_add(self.time_of(billed));
    }

    /// How long so many bytes take, ms.
    fn time_of(&self, bytes: u64) -> u64 {
        let ms = (u128::from(bytes) * 1000).checked_div(u128::from(self.bytes_per_s));
        clamped(ms.unwrap_or(0))
    }
}

fn clamped(n: u128) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// The pace of one response.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Which of the connection's requests it is for.
    pub(crate) request: u32,
    /// How many bytes the connection had sent before that one's response.
    pub(crate) sent_before: u64,
    pub(crate) rate: Rate,
    /// Whether a rate was given; until then, only how much is free may be.
    has_rate: bool,
    pub(crate) timer: Timer,
}

impl Pace {
    pub(crate) fn new(request: u32, sent_before: u64, started_ms: u64) -> Pace {
        let rate = Rate::new(0, started_ms);
        Pace { request, sent_before, rate, has_rate: false, timer: Timer::new() }
    }
}

impl Request {
    /// Has the response leave no faster than this, in bytes a second; 0 is no limit. What has been sent of it counts. A
    /// subrequest's response does not leave by itself, so that there is nothing to limit.
    pub fn set_limit_rate(&self, bytes_per_s: u64) {
        self.with_pace(|pace| {
            pace.rate.bytes_per_s = bytes_per_s;
            pace.has_rate = true;
        });
    }

    /// How many bytes of the response leave before the limit holds.
    pub fn set_limit_rate_after(&self, bytes: u64) {
        self.with_pace(|pace| pace.rate.after_bytes = bytes);
    }

    /// What [`Request::set_limit_rate`] was given, if it was.
    pub fn limit_rate(&self) -> Option<u64> {
        let client = self.client.as_ref().filter(|_| !self.is_subrequest())?;
        client.pace().as_ref().filter(|pace| pace.has_rate).map(|pace| pace.rate.bytes_per_s)
    }

    /// Takes the limit off a response that has one.
    pub fn lift_limit_rate(&self) {
        if self.client.as_ref().is_some_and(|client| client.is_paced()) {
            self.set_limit_rate(0);
        }
    }

    fn with_pace(&self, change: impl FnOnce(&mut Pace)) {
        let Some(client) = self.client.as_ref().filter(|_| !self.is_subrequest()) else { return };
        let given = self.output.head_bytes() + self.output.body_bytes();
        let sent_before = (client.sent_bytes() + client.unsent() as u64).saturating_sub(given);
        client.set_pace(|request| Pace::new(request, sent_before, self.started_ms), change);
    }
}

#[cfg(test)]
mod tests {
    use super::Rate;

    /// Moves what is allowed, in pieces of at most `piece`, until `end_ms`: the bytes moved by then.
    fn moved_by(mut rate: Rate, piece: usize, end_ms: u64) -> u64 {
        let (mut moved, mut now_ms) = (0, 1000);
        while now_ms < end_ms {
            match rate.allows(moved, now_ms).min(piece) {
                0 => {
                    assert!(rate.resumes_ms() > now_ms, "time must pass");
                    now_ms = rate.resumes_ms();
                }
                n => {
                    moved += n as u64;
                    rate.used(n as u64, moved, now_ms);
                }
            }
        }
        moved
    }

    #[test]
    fn a_second_ahead_and_then_the_rate() {
        for piece in [1, 7, 100, 1000, usize::MAX] {
            let moved = moved_by(Rate::new(1000, 1000), piece, 11_000);
            assert!((9_000..=11_000).contains(&moved), "{piece}: {moved}");
        }
        let after = Rate { after_bytes: 5000, ..Rate::new(1000, 1000) };
        let moved = moved_by(after, usize::MAX, 11_000);
        assert!((14_000..=16_000).contains(&moved), "{moved}");
    }

    #[test]
    fn extremes() {
        assert_eq!(Rate::new(0, 0).allows(u64::MAX, 5), usize::MAX);
        let mut fast = Rate::new(u64::MAX, 0);
        assert_eq!(fast.allows(0, u64::MAX), usize::MAX);
        fast.used(u64::MAX, u64::MAX, u64::MAX);
        assert_eq!(fast.resumes_ms(), u64::MAX);
        // A rate that was lowered in the middle: what was sent too much is waited for.
        let mut slow = Rate::new(1, 0);
        assert_eq!(slow.allows(101, 0), 0);
        assert_eq!(slow.resumes_ms(), 100_001);
        assert_eq!(slow.allows(101, 100_000), 0);
        assert_eq!(slow.allows(101, 101_000), 1);
        assert_eq!(moved_by(Rate::new(1, 1000), 1, 5000), 4);
    }
}
