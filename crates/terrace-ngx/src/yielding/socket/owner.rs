//! Whose a socket is: the request that connected it, at whose end it is closed.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use smallvec::SmallVec;
use terrace_http::Request;

/// What a request owns and closes.
pub trait Owned {
    /// Closes it and forgets the owner.
    fn release(&self);
}

/// A socket's owner.
#[derive(Default)]
pub struct Owner(RefCell<Weak<Request>>);

impl Owner {
    /// Whether it is this request.
    pub fn is(&self, r: &Rc<Request>) -> bool {
        std::ptr::eq(self.0.borrow().as_ptr(), Rc::as_ptr(r))
    }

    /// Makes this request the owner of `socket`, whose owner this is.
    pub fn claim(&self, r: &Rc<Request>, socket: Weak<dyn Owned>) {
        self.0.replace(Rc::downgrade(r));
        let sockets = r.state::<RequestSockets>().unwrap_or_else(|| {
            let made = Rc::new(RequestSockets::default());
            r.put_state(Rc::clone(&made));
            made
        });
        sockets.0.borrow_mut().push(socket);
    }

    /// Forgets the owner.
    pub fn clear(&self) {
        self.0.replace(Weak::new());
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
