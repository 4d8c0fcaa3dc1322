//! `ngx.semaphore`: lets light threads of one worker wait for each other.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use smallvec::smallvec;
use terrace_lua::{Value, pending};

use crate::ffi::{AWAIT, BAD_CONTEXT, DONE, NO_REQUEST, NOT_FOUND, functions};
use crate::host::current;
use crate::phase::LuaPhase;

functions! {
    "struct terrace_semaphore *(*semaphore_new)(double)" => semaphore_new,
    "void (*semaphore_free)(struct terrace_semaphore *)" => semaphore_free,
    "void (*semaphore_post)(struct terrace_semaphore *, double)" => semaphore_post,
    "double (*semaphore_count)(struct terrace_semaphore *)" => semaphore_count,
    "int (*semaphore_wait)(struct terrace_semaphore *, double)" => semaphore_wait,
}

/// The longest wait: a year.
const WAIT_MS_MAX: f64 = 366.0 * 86_400_000.0;

#[derive(Default)]
struct Semaphore {
    /// What may be taken.
    count: Cell<u64>,
    waiters: RefCell<VecDeque<Rc<Waiter>>>,
}

#[derive(Default)]
struct Waiter {
    is_granted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Semaphore {
    fn post(&self, n: u64) {
        self.count.set(self.count.get().saturating_add(n));
        while self.count.get() > 0 {
            let Some(waiter) = self.waiters.borrow_mut().pop_front() else { return };
            self.count.set(self.count.get() - 1);
            waiter.is_granted.set(true);
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }

    fn try_take(&self) -> bool {
        let has = self.count.get() > 0;
        if has {
            self.count.set(self.count.get() - 1);
        }
        has
    }
}

/// A place in the queue; what was granted to one that no longer waits goes back.
struct Place {
    semaphore: Rc<Semaphore>,
    waiter: Rc<Waiter>,
}

impl Place {
    fn new(semaphore: &Rc<Semaphore>) -> Place {
        let waiter = Rc::new(Waiter::default());
        semaphore.waiters.borrow_mut().push_back(Rc::clone(&waiter));
        Place { semaphore: Rc::clone(semaphore), waiter }
    }

    async fn granted(&self) {
        poll_fn(|cx| {
            if self.waiter.is_granted.replace(false) {
                return Poll::Ready(());
            }
            self.waiter.waker.replace(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.semaphore.waiters.borrow_mut().retain(|w| !Rc::ptr_eq(w, &self.waiter));
        if self.waiter.is_granted.get() {
            self.semaphore.post(1);
        }
    }
}

extern "C" fn semaphore_new(n: f64) -> *const Semaphore {
    let semaphore = Semaphore::default();
    semaphore.count.set(n as u64);
    Rc::into_raw(Rc::new(semaphore))
}

extern "C" fn semaphore_free(semaphore: *const Semaphore) {
    if !semaphore.is_null() {
        // SAFETY: a pointer that `semaphore_new` gave; Lua's collector passes it here once.
        drop(unsafe { Rc::from_raw(semaphore) });
    }
}

fn shared(semaphore: *const Semaphore) -> Option<Rc<Semaphore>> {
    if semaphore.is_null() {
        return None;
    }
    // SAFETY: LuaJIT lets only pointers of this type through, all of which `semaphore_new` made and the caller's
    // table keeps alive during the call; the count is raised before a second owner is made.
    unsafe {
        Rc::increment_strong_count(semaphore);
        Some(Rc::from_raw(semaphore))
    }
}

extern "C" fn semaphore_post(semaphore: *const Semaphore, n: f64) {
    if let Some(s) = shared(semaphore) {
        s.post(n as u64);
    }
}

/// What may be taken; below 0, how many wait.
extern "C" fn semaphore_count(semaphore: *const Semaphore) -> f64 {
    shared(semaphore).map_or(0.0, |s| s.count.get() as f64 - s.waiters.borrow().len() as f64)
}

/// Takes one, waiting for it; `NOT_FOUND` when there is none and no time to wait.
extern "C" fn semaphore_wait(semaphore: *const Semaphore, ms: f64) -> c_int {
    let Some(semaphore) = shared(semaphore) else { return NOT_FOUND };
    match current(|h| h.is_in(LuaPhase::Init as u32)) {
        None => return NO_REQUEST,
        Some(true) => return BAD_CONTEXT,
        Some(false) => {}
    }
    if semaphore.try_take() {
        return DONE;
    }
    if ms < 1.0 {
        return NOT_FOUND;
    }
    let place = Place::new(&semaphore);
    let limit = Duration::from_millis(ms.min(WAIT_MS_MAX) as u64);
    pending::set(Box::pin(async move {
        match terrace_event::timeout(limit, place.granted()).await {
            Ok(()) => smallvec![Value::Bool(true)],
            Err(_) => smallvec![Value::Nil, Value::from("timeout")],
        }
    }));
    AWAIT
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn is_granted(place: &Place) -> bool {
        let mut granted = Box::pin(place.granted());
        granted.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn waiters_are_served_in_order() {
        let semaphore = Rc::new(Semaphore::default());
        let (first, second) = (Place::new(&semaphore), Place::new(&semaphore));
        semaphore.post(1);
        assert!(is_granted(&first) && !is_granted(&second));
        semaphore.post(2);
        assert!(is_granted(&second));
        assert!(semaphore.try_take() && !semaphore.try_take());
    }

    #[test]
    fn what_was_granted_to_one_that_left_goes_to_the_next() {
        let semaphore = Rc::new(Semaphore::default());
        let (first, second, third) = (Place::new(&semaphore), Place::new(&semaphore), Place::new(&semaphore));
        drop(second);
        semaphore.post(1);
        drop(first);
        assert!(is_granted(&third));
        assert_eq!(semaphore.count.get(), 0);
    }
}
