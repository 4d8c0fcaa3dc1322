//! Writing for a response that may leave only so fast: see [`crate::pace`].

use std::cell::Ref;
use std::io;
use std::task::{Context, Poll};

use terrace_base::clock;

use super::Client;
use crate::pace::Pace;

impl Client {
    /// As [`Client::write_pending`], no faster than the response may leave.
    #[cold]
    pub(super) fn write_paced(&self) -> bool {
        let mut pace = self.pace.borrow_mut();
        let Some(pace) = pace.as_deref_mut().filter(|pace| pace.request == self.requests.get()) else {
            // It was the request's before this one.
            self.is_paced.set(false);
            return self.write_pending();
        };
        let mut out = self.out.borrow_mut();
        let now_ms = clock::monotonic_ms();
        while self.written.get() < out.len() && !self.gone.get() {
            let unsent = &out[self.written.get()..];
            let moved = self.sent_bytes.get().saturating_sub(pace.sent_before);
            // What is of the responses before leaves at once.
            let allowed = match pace.sent_before.saturating_sub(self.sent_bytes.get()) {
                0 => pace.rate.allows(moved, now_ms),
                before => usize::try_from(before).unwrap_or(usize::MAX),
            };
            let allowed = allowed.min(unsent.len());
            if allowed == 0 {
                return false;
            }
            match self.stream.try_write(&unsent[..allowed]) {
                Ok(n) => {
                    self.written.set(self.written.get() + n);
                    self.sent_bytes.set(self.sent_bytes.get() + n as u64);
                    if self.sent_bytes.get() > pace.sent_before {
                        pace.rate.used(n as u64, moved + n as u64, now_ms);
                    }
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return false,
                Err(_) => self.gone.set(true),
            }
        }
        *out = Vec::new();
        self.written.set(0);
        true
    }

    /// Ready when a limited response may go on leaving, or has nobody to go to any more.
    pub(super) fn poll_pace(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pace = self.pace.borrow_mut();
        let Some(pace) = pace.as_deref_mut() else { return Poll::Ready(()) };
        let resumes_ms = pace.rate.resumes_ms();
        if clock::monotonic_ms() >= resumes_ms {
            return Poll::Ready(());
        }
        // No write shows for now that the client has left.
        if self.stream.poll_read_ready(cx).is_ready() && self.has_left() {
            self.gone.set(true);
            return Poll::Ready(());
        }
        pace.timer.poll_expired(cx, resumes_ms)
    }

    /// Whether the response waits for its time to leave.
    pub(super) fn is_delayed(&self) -> bool {
        let is_later = |pace: &Pace| pace.rate.resumes_ms() > clock::monotonic_ms();
        self.is_paced.get() && self.pace.borrow().as_deref().is_some_and(is_later)
    }

    /// Whether the present response may be limited.
    pub(crate) fn is_paced(&self) -> bool {
        self.is_paced.get()
    }

    /// The pace of the present response, if it has one.
    pub(crate) fn pace(&self) -> Ref<'_, Option<Box<Pace>>> {
        let mut pace = self.pace.borrow_mut();
        if pace.as_ref().is_some_and(|pace| pace.request != self.requests.get()) {
            *pace = None;
        }
        drop(pace);
        self.pace.borrow()
    }

    /// Changes the pace of the present response, which `make` makes where it has none, for the request of that number.
    pub(crate) fn set_pace(&self, make: impl FnOnce(u32) -> Pace, change: impl FnOnce(&mut Pace)) {
        let number = self.requests.get();
        let mut pace = self.pace.borrow_mut();
        let present = pace.take().filter(|pace| pace.request == number);
        change(pace.insert(present.unwrap_or_else(|| Box::new(make(number)))));
        self.is_paced.set(true);
    }

    /// Lets what comes leave as fast as it can.
    pub(super) fn unpace(&self) {
        self.is_paced.set(false);
        self.pace.take();
    }
}
