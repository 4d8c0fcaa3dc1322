//! The kernel's part: which descriptors have become ready. Edge triggered, so a descriptor is registered once.

use std::cell::RefCell;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use slotmap::{DefaultKey, Key, KeyData, SlotMap};

use crate::source::Readiness;

/// Events taken at a time.
const EVENTS_MAX: usize = 512;
/// The name of the descriptor by which other threads end a wait; no registration has it.
const BELL: u64 = u64::MAX;

/// The loop's descriptors.
pub struct Poller {
    epoll: OwnedFd,
    sources: RefCell<SlotMap<DefaultKey, Rc<Readiness>>>,
    events: RefCell<Vec<Event>>,
}

impl Poller {
    pub fn new() -> io::Result<Poller> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Poller {
            epoll,
            sources: RefCell::default(),
            events: RefCell::new(Vec::with_capacity(EVENTS_MAX)),
        })
    }

    /// A descriptor to which other threads write to end a wait.
    pub fn bell(&self) -> io::Result<OwnedFd> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        // Each write is an edge: nobody need read.
        epoll::add(&self.epoll, &bell, EventData::new_u64(BELL), EventFlags::IN | EventFlags::ET)?;
        Ok(bell)
    }

    /// Registers a descriptor for both directions.
    pub fn add(&self, fd: BorrowedFd<'_>, readiness: &Rc<Readiness>) -> io::Result<DefaultKey> {
        let key = self.sources.borrow_mut().insert(Rc::clone(readiness));
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let added = epoll::add(&self.epoll, fd, EventData::new_u64(key.data().as_ffi()), flags);
        if let Err(e) = added {
            self.forget(key);
            return Err(e.into());
        }
        Ok(key)
    }

    /// The registration's events concern nobody any more. The kernel forgets a descriptor that is closed by itself.
    pub fn forget(&self, key: DefaultKey) {
        self.sources.borrow_mut().remove(key);
    }

    /// Takes the descriptor off: it stays open, here or elsewhere.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Waits for events, at most for `limit`. Whether another thread has called.
    pub fn wait(&self, limit: Option<Duration>) -> bool {
        let mut events = self.events.borrow_mut();
        events.clear();
        let limit = limit.map(whole_ms);
        match epoll::wait(&self.epoll, spare_capacity(&mut events), limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => unreachable!("an epoll descriptor of the loop's own: {e}"),
        }
        events.iter().any(|e| e.data.u64() == BELL)
    }

    /// Wakes those whose descriptors became ready.
    pub fn wake_ready(&self) {
        let (events, sources) = (self.events.borrow(), self.sources.borrow());
        for event in events.iter() {
            // Those of a registration that has ended meanwhile are nobody's.
            if let Some(readiness) = sources.get(KeyData::from_ffi(event.data.u64()).into()) {
                readiness.take(event.flags);
            }
        }
    }
}

/// The time in whole milliseconds, which is what the kernel takes, and not less.
fn whole_ms(limit: Duration) -> Timespec {
    let ms = limit.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i64;
    Timespec { tv_sec: ms / 1000, tv_nsec: ms % 1000 * 1_000_000 }
}
