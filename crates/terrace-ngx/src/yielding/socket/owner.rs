//! Whose a socket is: the request that connected it, at whose end it is closed.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::{Rc, Weak};

use smallvec::SmallVec;
use terrace_http::Request;

/// What a request owns and closes.
pub trait Owned {
    /// Closes it and forgets the owner.
    fn release(&self);
}

/// A socket's owner: the request's address, for comparison alone. The request's end takes it away, so that no other
/// request is ever found there. A weak reference would keep the request's memory until the socket is collected.
#[derive(Default)]
pub struct Owner(Cell<Option<NonNull<Request>>>);

impl Owner {
    /// Whether it is this request.
    pub fn is(&self, r: &Rc<Request>) -> bool {
        self.0.get() == Some(NonNull::from(&**r))
    }

    /// Makes this request the owner of `socket`, whose owner this is.
    pub fn claim(&self, r: &Rc<Request>, socket: Weak<dyn Owned>) {
        self.0.set(Some(NonNull::from(&**r)));
        let sockets = r.state::<RequestSockets>().unwrap_or_else(|| {
            let made = Rc::new(RequestSockets::default());
            r.put_state(Rc::clone(&made));
            made
        });
        sockets.0.borrow_mut().push(socket);
    }

    /// Forgets the owner.
    pub fn clear(&self) {
        self.0.set(None);
    }
}

/// The sockets that a request has connected.
#[derive(Default)]
struct RequestSockets(RefCell<SmallVec<[Weak<dyn Owned>; 2]>>);

impl Drop for RequestSockets {
    fn drop(&mut self) {
        for socket in self.0.take().iter().filter_map(Weak::upgrade) {
            socket.release();
        }
    }
}
