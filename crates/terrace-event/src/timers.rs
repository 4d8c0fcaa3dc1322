//! Times to wake tasks at, and what is made of them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::core::with_current;

/// When, and a number that tells those of the same time apart.
type TimerKey = (Instant, u64);

/// The loop's armed timers.
#[derive(Default)]
pub struct Timers {
    armed: RefCell<BTreeMap<TimerKey, Waker>>,
    last_number: Cell<u64>,
}

impl Timers {
    /// When the first is due.
    pub fn next(&self) -> Option<Instant> {
        self.armed.borrow().first_key_value().map(|((due, _), _)| *due)
    }

    /// Wakes those that are due.
    pub fn wake_due(&self, now: Instant) {
        loop {
            let mut armed = self.armed.borrow_mut();
            let waker = match armed.first_entry() {
                Some(first) if first.key().0 <= now => first.remove(),
                _ => return,
            };
            drop(armed);
            waker.wake();
        }
    }

    fn arm(&self, due: Instant, waker: Waker) -> TimerKey {
        let number = self.last_number.get() + 1;
        self.last_number.set(number);
        self.armed.borrow_mut().insert((due, number), waker);
        (due, number)
    }
}

/// Ready at a time. Nothing is armed before the first poll.
#[derive(Debug)]
pub struct Sleep {
    due: Instant,
    armed: Option<TimerKey>,
}

impl Sleep {
    /// Whether the time has come, as of the present turn of the event loop.
    pub fn is_elapsed(&self) -> bool {
        with_current(|core| core.now.get() >= self.due).unwrap_or(true)
    }

    /// Sleeps until another time.
    pub fn reset(&mut self, due: Instant) {
        self.disarm();
        self.due = due;
    }

    fn disarm(&mut self) {
        if let Some(key) = self.armed.take() {
            // Dropped behind the borrow: a waker may hold the last of a task.
            let waker = with_current(|core| core.timers.armed.borrow_mut().remove(&key));
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_elapsed() {
            return Poll::Ready(());
        }
        with_current(|core| {
            if let Some(key) = self.armed
                && let Some(waker) = core.timers.armed.borrow_mut().get_mut(&key)
            {
                waker.clone_from(cx.waker());
                return;
            }
            self.armed = Some(core.timers.arm(self.due, cx.waker().clone()));
        });
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

/// Ready after `duration`, and never where that is beyond what the clock can say.
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(after(duration))
}

/// Ready at `due`.
pub fn sleep_until(due: Instant) -> Sleep {
    Sleep { due, armed: None }
}

/// The time given to a future is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elapsed;

/// What `future` comes to within `limit`. One that is ready at once costs no timer.
///
/// # Errors
/// [`Elapsed`] when the time is over; `future` is dropped.
pub async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    timeout_at(after(limit), future).await
}

/// What `future` comes to until `due`. One that is ready at once costs no timer.
///
/// # Errors
/// [`Elapsed`] when the time is over; `future` is dropped.
pub async fn timeout_at<F: Future>(due: Instant, future: F) -> Result<F::Output, Elapsed> {
    let (mut future, mut over) = (pin!(future), pin!(sleep_until(due)));
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Ok(output)),
        Poll::Pending => over.as_mut().poll(cx).map(|()| Err(Elapsed)),
    })
    .await
}

/// The present time and `duration`.
fn after(duration: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);
    Instant::now() + duration.min(FAR)
}
