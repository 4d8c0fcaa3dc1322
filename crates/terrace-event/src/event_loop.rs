//! The loop itself: polls tasks that were woken, waits for events, wakes whom they concern.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use slotmap::Key;

use crate::core::Core;
use crate::tasks::{self, Main};

/// How many tasks are polled before events are looked for.
const POLLS_A_TURN_MAX: usize = 256;

/// The event loop of a thread.
///
/// Dropping it drops its tasks. It belongs to the thread that made it.
pub struct EventLoop {
    core: Rc<Core>,
    on_wake: fn(Instant),
}

impl EventLoop {
    /// The event loop of this thread. `on_wake` is called each time the loop has waited for events, with the present
    /// time, before anything else is done.
    ///
    /// # Errors
    /// When the system has no descriptor for it, or the thread has an event loop.
    pub fn new(on_wake: fn(Instant)) -> io::Result<EventLoop> {
        Ok(EventLoop { core: Core::install()?, on_wake })
    }

    /// Runs `future`, and beside it the loop's tasks, until it is done. Tasks that are left stay until the next call.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let main = Main::new(&self.core);
        loop {
            for _ in 0..POLLS_A_TURN_MAX {
                let next = self.core.ready.borrow_mut().pop_front();
                let Some(key) = next else { break };
                if !key.is_null() {
                    tasks::poll(&self.core, key);
                } else if let Poll::Ready(output) = main.poll(&self.core, future.as_mut()) {
                    return output;
                }
            }
            self.wait();
        }
    }

    /// Waits for events, not at all where there is work, and wakes whom they concern.
    fn wait(&self) {
        let core = &self.core;
        let deferred = core.deferred.take();
        let limit = if deferred.is_empty() && core.ready.borrow().is_empty() {
            core.timers.next().map(|due| due.saturating_duration_since(core.now.get()))
        } else {
            Some(Duration::ZERO)
        };
        let is_called = core.poller.wait(limit);
        let now = Instant::now();
        core.now.set(now);
        (self.on_wake)(now);
        core.poller.wake_ready();
        if is_called {
            tasks::wake_called(core);
        }
        core.timers.wake_due(now);
        for waker in deferred {
            waker.wake();
        }
    }
}

impl Drop for EventLoop {
    fn drop(&mut self) {
        tasks::drop_all(&self.core);
        Core::uninstall();
    }
}
