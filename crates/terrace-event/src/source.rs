//! A descriptor of which the event loop says when it is ready.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use rustix::event::epoll::EventFlags;
use slotmap::DefaultKey;

use crate::core::{Core, current};

const READ: u8 = 1;
const WRITE: u8 = 2;
/// The peer sends no more: reading never waits again.
const READ_ENDED: u8 = 4;
/// The peer takes no more: writing never waits again.
const WRITE_ENDED: u8 = 8;

/// A descriptor that is registered with the thread's event loop. It must not block.
///
/// One task at a time may wait for each direction. Readiness is what is known: a call that would block makes it unknown
/// ([`Source::clear_read`], [`Source::clear_write`]), after which the kernel tells when it changes.
pub struct Source<T> {
    registration: Registration,
    io: T,
}

struct Registration {
    core: Rc<Core>,
    key: DefaultKey,
    readiness: Rc<Readiness>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.core.poller.forget(self.key);
    }
}

/// What is known of a descriptor.
#[derive(Default)]
pub struct Readiness {
    known: Cell<u8>,
    /// The directions somebody waits for.
    awaited: Cell<u8>,
    /// Who waited last; kept, because it is mostly who waits next.
    reader: RefCell<Option<Waker>>,
    writer: RefCell<Option<Waker>>,
}

impl Readiness {
    /// Takes note of an event and wakes whom it concerns.
    pub fn take(&self, event: EventFlags) {
        let mut known = self.known.get();
        if event.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR) {
            known |= READ;
        }
        if event.intersects(EventFlags::OUT | EventFlags::HUP | EventFlags::ERR) {
            known |= WRITE;
        }
        if event.intersects(EventFlags::RDHUP | EventFlags::HUP) {
            known |= READ_ENDED;
        }
        if event.contains(EventFlags::HUP) {
            known |= WRITE_ENDED;
        }
        self.known.set(known);
        let concerned = self.awaited.get() & known;
        if concerned == 0 {
            return;
        }
        self.awaited.set(self.awaited.get() & !concerned);
        if concerned & READ != 0 {
            wake(&self.reader);
        }
        if concerned & WRITE != 0 {
            wake(&self.writer);
        }
    }

    fn is(&self, any: u8) -> bool {
        self.known.get() & any != 0
    }

    fn clear(&self, direction: u8) {
        self.known.set(self.known.get() & !direction);
    }

    fn await_by(&self, direction: u8, place: &RefCell<Option<Waker>>, cx: &Context<'_>) {
        self.awaited.set(self.awaited.get() | direction);
        let mut waker = place.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }
}

fn wake(place: &RefCell<Option<Waker>>) {
    if let Some(waker) = &*place.borrow() {
        waker.wake_by_ref();
    }
}

impl<T: AsFd> Source<T> {
    /// Registers a descriptor, of which nothing is known at first.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`; also when the thread has no event loop.
    pub fn new(io: T) -> io::Result<Source<T>> {
        let core = current().ok_or_else(|| io::Error::other("the thread has no event loop"))?;
        let readiness = Rc::new(Readiness::default());
        let key = core.poller.add(io.as_fd(), &readiness)?;
        Ok(Source { registration: Registration { core, key, readiness }, io })
    }

    /// The descriptor.
    pub fn io(&self) -> &T {
        &self.io
    }

    /// Whether a read is worth a call.
    pub fn may_read(&self) -> bool {
        self.registration.readiness.is(READ | READ_ENDED)
    }

    /// Whether a write is worth a call.
    pub fn may_write(&self) -> bool {
        self.registration.readiness.is(WRITE | WRITE_ENDED)
    }

    /// A read has shown that nothing is there.
    pub fn clear_read(&self) {
        self.registration.readiness.clear(READ);
    }

    /// A write has shown that there is no room.
    pub fn clear_write(&self) {
        self.registration.readiness.clear(WRITE);
    }

    /// Ready once a read is worth a call; otherwise the task is woken then.
    pub fn poll_read_ready(&self, cx: &Context<'_>) -> Poll<()> {
        if self.may_read() {
            return self.registration.core.poll_budget(cx);
        }
        let readiness = &self.registration.readiness;
        readiness.await_by(READ, &readiness.reader, cx);
        Poll::Pending
    }

    /// Ready once a write is worth a call; otherwise the task is woken then.
    pub fn poll_write_ready(&self, cx: &Context<'_>) -> Poll<()> {
        if self.may_write() {
            return self.registration.core.poll_budget(cx);
        }
        let readiness = &self.registration.readiness;
        readiness.await_by(WRITE, &readiness.writer, cx);
        Poll::Pending
    }

    /// A call that reads; the one that would block makes it unknown whether anything is there.
    ///
    /// # Errors
    /// Those of `call`; [`io::ErrorKind::WouldBlock`] also without a call where nothing can be there.
    pub fn try_read<R>(&self, call: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        if !self.may_read() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = call(&self.io);
        if matches!(&result, Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
            self.clear_read();
        }
        result
    }

    /// A call that writes; the one that would block makes it unknown whether there is room.
    ///
    /// # Errors
    /// Those of `call`; [`io::ErrorKind::WouldBlock`] also without a call where there can be no room.
    pub fn try_write<R>(&self, call: impl FnOnce(&T) -> io::Result<R>) -> io::Result<R> {
        if !self.may_write() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = call(&self.io);
        if matches!(&result, Err(e) if e.kind() == io::ErrorKind::WouldBlock) {
            self.clear_write();
        }
        result
    }

    /// Takes the descriptor off the event loop.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn into_inner(self) -> io::Result<T> {
        self.unregister()?;
        Ok(self.io)
    }

    /// Ends the kernel's watch of a descriptor that stays open elsewhere. Whoever waits for it waits for ever.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn unregister(&self) -> io::Result<()> {
        self.registration.core.poller.remove(self.io.as_fd())
    }
}

impl<T: fmt::Debug> fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.io).finish()
    }
}
