//! A timer for deadlines that are nearly always moved before they pass: moving one later costs nothing.
//!
//! A connection moves its deadline with every request. The timer behind it stays armed for the first deadline
//! and, when it fires early, is armed again for the present one.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use terrace_base::clock;
use terrace_event::Sleep;

/// One lazily armed timer. Deadlines are monotonic milliseconds of [`clock::monotonic_ms`].
#[derive(Debug, Default)]
pub struct Timer {
    sleep: Option<Sleep>,
    armed_ms: u64,
    /// Whom the armed timer wakes.
    waker: Option<Waker>,
}

impl Timer {
    /// A timer that is not armed.
    pub const fn new() -> Timer {
        Timer { sleep: None, armed_ms: 0, waker: None }
    }

    /// Ready once `deadline_ms` has passed; otherwise the task is woken then.
    pub fn poll_expired(&mut self, cx: &mut Context<'_>, deadline_ms: u64) -> Poll<()> {
        loop {
            match &mut self.sleep {
                None => self.sleep = Some(terrace_event::sleep_until(instant(deadline_ms))),
                // It fired: for this deadline, or for one that has been moved since.
                Some(s) if s.is_elapsed() => {
                    clock::update();
                    if clock::monotonic_ms() >= deadline_ms {
                        return Poll::Ready(());
                    }
                    s.reset(instant(deadline_ms));
                }
                Some(s) if deadline_ms < self.armed_ms => s.reset(instant(deadline_ms)),
                // Armed for this task already.
                Some(_) if self.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) => {
                    return Poll::Pending;
                }
                Some(s) => {
                    if Pin::new(s).poll(cx).is_pending() {
                        self.waker = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                    // It has elapsed now.
                    continue;
                }
            }
            self.armed_ms = deadline_ms;
            self.waker = None;
        }
    }
}

fn instant(deadline_ms: u64) -> Instant {
    Instant::now() + Duration::from_millis(deadline_ms.saturating_sub(clock::monotonic_ms()).max(1))
}
