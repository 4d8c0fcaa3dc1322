//! What the parts of a thread's event loop share, and how they find it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::poller::Poller;
use crate::tasks::{Home, TaskKey, Tasks};
use crate::timers::Timers;

/// How often a task may find a descriptor ready before the others get their turn.
const READY_A_POLL_MAX: u32 = 128;

thread_local! {
    /// The thread's event loop, which takes itself out: a value without a destructor is found faster.
    static CURRENT: ManuallyDrop<RefCell<Option<Rc<Core>>>> = const { ManuallyDrop::new(RefCell::new(None)) };
}

/// A thread's event loop.
pub struct Core {
    /// A number that no other event loop of the process has.
    pub id: u64,
    /// Where other threads leave tasks to wake.
    pub home: Arc<Home>,
    pub tasks: RefCell<Tasks>,
    /// Tasks to poll, each at most once.
    pub ready: RefCell<VecDeque<TaskKey>>,
    /// Whom the next turn wakes.
    pub deferred: RefCell<Vec<Waker>>,
    pub poller: Poller,
    pub timers: Timers,
    /// When the last wait for events ended.
    pub now: Cell<Instant>,
    budget: Cell<u32>,
}

impl Core {
    /// A loop that becomes the thread's; an error if the thread has one.
    pub fn install() -> io::Result<Rc<Core>> {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        if current().is_some() {
            return Err(io::Error::other("the thread has an event loop"));
        }
        let poller = Poller::new()?;
        let id = LAST_ID.fetch_add(1, Ordering::Relaxed) + 1;
        let home = Arc::new(Home::new(poller.bell()?));
        let core = Rc::new(Core {
            id,
            home,
            tasks: RefCell::default(),
            ready: RefCell::default(),
            deferred: RefCell::default(),
            poller,
            timers: Timers::default(),
            now: Cell::new(Instant::now()),
            budget: Cell::new(READY_A_POLL_MAX),
        });
        CURRENT.with(|c| c.replace(Some(Rc::clone(&core))));
        Ok(core)
    }

    /// The thread has none any more.
    pub fn uninstall() {
        CURRENT.with(|c| c.take());
    }

    /// A task is about to be polled.
    pub fn renew_budget(&self) {
        self.budget.set(READY_A_POLL_MAX);
    }

    /// Ready while the task has found less ready than it may; then the task is woken to go on in its next turn.
    pub fn poll_budget(&self, cx: &Context<'_>) -> Poll<()> {
        match self.budget.get().checked_sub(1) {
            Some(left) => {
                self.budget.set(left);
                Poll::Ready(())
            }
            None => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// The thread's event loop.
pub fn current() -> Option<Rc<Core>> {
    with_current(Rc::clone)
}

/// Does something with the thread's event loop, if it has one.
pub fn with_current<T>(work: impl FnOnce(&Rc<Core>) -> T) -> Option<T> {
    CURRENT.with(|c| c.borrow().as_ref().map(work))
}
