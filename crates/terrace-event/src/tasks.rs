//! The loop's tasks, and their wakers, which are all that other threads may have of them.
//!
//! Futures stay with their thread. A waker has a task's key only, so it may outlive the task and go anywhere: on the loop's own
//! thread it puts the key into the loop's queue, on others into the loop's letter box.

use std::cell::RefCell;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use slotmap::{DefaultKey, Key, SlotMap};

use crate::core::{Core, current, with_current};

/// Names a task of a loop.
pub type TaskKey = DefaultKey;

/// The loop's tasks.
#[derive(Default)]
pub struct Tasks(SlotMap<TaskKey, Rc<Task>>);

struct Task {
    future: RefCell<Pin<Box<dyn Future<Output = ()>>>>,
    letter: Arc<Letter>,
    waker: Waker,
}

/// Where other threads leave tasks to wake.
pub struct Home {
    /// None once the loop has ended.
    letters: Mutex<Option<Vec<Arc<Letter>>>>,
    bell: OwnedFd,
}

impl Home {
    pub fn new(bell: OwnedFd) -> Home {
        Home { letters: Mutex::new(Some(Vec::new())), bell }
    }

    fn receive(&self, letter: &Arc<Letter>) {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(letters) = &mut *letters else { return };
        letters.push(Arc::clone(letter));
        if letters.len() == 1 {
            // Fails only where the count is full, and then the bell has rung.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }
}

/// What a waker is.
struct Letter {
    key: TaskKey,
    /// The loop that the key is of.
    loop_id: u64,
    home: Arc<Home>,
    /// Whether the key is in the loop's queue. Only the loop's thread looks.
    is_queued: AtomicBool,
    /// Whether the letter is in the box.
    is_posted: AtomicBool,
}

impl Letter {
    fn new(core: &Core, key: TaskKey) -> Arc<Letter> {
        let (is_queued, is_posted) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Letter { key, loop_id: core.id, home: Arc::clone(&core.home), is_queued, is_posted })
    }

    /// Queues the task. On the loop's thread only.
    fn queue(&self, core: &Core) {
        if !self.is_queued.load(Ordering::Relaxed) {
            self.is_queued.store(true, Ordering::Relaxed);
            core.ready.borrow_mut().push_back(self.key);
        }
    }
}

impl Wake for Letter {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let is_here = with_current(|core| {
            let is_here = core.id == self.loop_id;
            if is_here {
                self.queue(core);
            }
            is_here
        });
        if is_here != Some(true) && !self.is_posted.swap(true, Ordering::AcqRel) {
            self.home.receive(self);
        }
    }
}

/// Wakes the tasks that other threads have called for.
pub fn wake_called(core: &Core) {
    let mut letters = core.home.letters.lock().unwrap_or_else(PoisonError::into_inner);
    let called = letters.as_mut().map(std::mem::take).unwrap_or_default();
    drop(letters);
    for letter in called {
        // A call that found it posted is answered here: what its thread wrote before must be seen.
        letter.is_posted.swap(false, Ordering::AcqRel);
        letter.queue(core);
    }
}

/// A task of a loop.
#[derive(Debug, Clone)]
pub struct TaskHandle {
    core: Weak<Core>,
    key: TaskKey,
}

impl TaskHandle {
    /// Ends the task, at its next wait if it is the one that runs.
    pub fn abort(&self) {
        if let Some(core) = self.core.upgrade() {
            remove(&core, self.key);
        }
    }
}

/// Starts a task on the thread's event loop. It is polled for the first time when the present one waits; a panic ends it
/// and nothing else.
///
/// # Panics
/// When the thread has no event loop.
pub fn spawn(future: impl Future<Output = ()> + 'static) -> TaskHandle {
    let Some(core) = current() else { panic!("a task needs an event loop on its thread") };
    let future: Pin<Box<dyn Future<Output = ()>>> = Box::pin(future);
    let key = core.tasks.borrow_mut().0.insert_with_key(|key| {
        let letter = Letter::new(&core, key);
        letter.queue(&core);
        let waker = Waker::from(Arc::clone(&letter));
        Rc::new(Task { future: RefCell::new(future), letter, waker })
    });
    TaskHandle { core: Rc::downgrade(&core), key }
}

/// Lets the other tasks run, and looks for events, before it goes on.
pub async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        if with_current(|core| core.deferred.borrow_mut().push(cx.waker().clone())).is_none() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

/// Polls a task that was queued.
pub fn poll(core: &Core, key: TaskKey) {
    let Some(task) = core.tasks.borrow().0.get(key).map(Rc::clone) else { return };
    task.letter.is_queued.store(false, Ordering::Relaxed);
    core.renew_budget();
    let polled = catch_unwind(AssertUnwindSafe(|| {
        task.future.borrow_mut().as_mut().poll(&mut Context::from_waker(&task.waker))
    }));
    if !matches!(polled, Ok(Poll::Pending)) {
        remove(core, key);
        drop_quietly(task);
    }
}

fn remove(core: &Core, key: TaskKey) {
    let task = core.tasks.borrow_mut().0.remove(key);
    if let Some(task) = task {
        drop_quietly(task);
    }
}

/// A future that panics while it is dropped ends nothing else.
fn drop_quietly(task: Rc<Task>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(task)));
}

/// Drops all tasks, also those that are started meanwhile, and lets nobody wake one any more.
pub fn drop_all(core: &Core) {
    loop {
        let tasks: Vec<_> = core.tasks.borrow_mut().0.drain().map(|(_, task)| task).collect();
        if tasks.is_empty() {
            break;
        }
        tasks.into_iter().for_each(drop_quietly);
    }
    core.ready.take();
    core.deferred.take();
    *core.home.letters.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

/// The future that the loop is run for: it has no place among the tasks, and so the key of none.
pub struct Main {
    letter: Arc<Letter>,
    waker: Waker,
}

impl Main {
    /// Queued for its first poll.
    pub fn new(core: &Core) -> Main {
        let letter = Letter::new(core, TaskKey::null());
        letter.queue(core);
        Main { waker: Waker::from(Arc::clone(&letter)), letter }
    }

    /// Polls it.
    pub fn poll<F: Future>(&self, core: &Core, future: Pin<&mut F>) -> Poll<F::Output> {
        self.letter.is_queued.store(false, Ordering::Relaxed);
        core.renew_budget();
        future.poll(&mut Context::from_waker(&self.waker))
    }
}
