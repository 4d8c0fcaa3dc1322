//! A pipe to or from another process, read and written as a socket is. It belongs to no request.

use std::borrow::Cow;
use std::ffi::c_int;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use terrace_event::Source;
use terrace_http::Request;

use super::input::Want;
use super::tcp::{Begun, Refusal, Tcp, Use};
use super::transport::Transport;
use super::{REACHED, show, show_failure};
use crate::ffi::{DONE, FAILED, Text};
use crate::host::current;

/// A pipe.
pub struct Stream(Rc<Tcp>);

/// How a call began.
pub enum Ready<T> {
    /// It is done.
    Done(T),
    /// It waits.
    Waits(terrace_lua::Operation),
}

/// Why a call could not be made.
pub enum Failed {
    /// Nothing more can be read, or written.
    Closed,
    /// Another light thread is at it.
    Busy,
    /// There is no code of a request.
    NoRequest,
    /// It failed.
    Text(String),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Failed {
        if refusal == Refusal::Closed { Failed::Closed } else { Failed::Busy }
    }
}

impl Stream {
    /// An end of a pipe.
    pub fn of_pipe(end: OwnedFd) -> io::Result<Stream> {
        rustix::io::ioctl_fionbio(&end, true)?;
        Ok(Stream(Tcp::unowned(Transport::Pipe(Source::new(end)?))))
    }

    /// How long a call may wait.
    pub fn set_timeout_ms(&self, ms: u64) {
        self.0.read_timeout_ms.set(Some(ms));
        self.0.send_timeout_ms.set(Some(ms));
    }

    /// Closes the pipe.
    pub fn close(&self) {
        drop(self.0.close());
    }

    /// Reads. What is done at once is left in `out`, as `tcp_receive` leaves it.
    ///
    /// # Safety
    /// `out` must point at two texts of the caller.
    pub unsafe fn receive(&self, want: Want<'_>, out: *mut Text) -> Result<Ready<c_int>, Failed> {
        let r = request()?;
        let conn = self.0.usable(&r, Use::Read)?;
        let begun = self.0.receive(&r, conn, want, |result| match result {
            Ok((data, reached)) => {
                // SAFETY: the caller's promise.
                unsafe { show(out, data) };
                if reached { REACHED } else { DONE }
            }
            Err((failure, partial)) => {
                // SAFETY: as above.
                unsafe { show_failure(out, &failure, &partial) };
                FAILED
            }
        });
        Ok(match begun {
            Ok(code) => Ready::Done(if code == REACHED { DONE } else { code }),
            Err(operation) => Ready::Waits(operation),
        })
    }

    /// Writes; answers how many bytes.
    pub fn send(&self, data: &[u8]) -> Result<Ready<usize>, Failed> {
        let r = request()?;
        let conn = self.0.usable(&r, Use::Write)?;
        match self.0.send(&r, conn, Cow::Borrowed(data)) {
            Begun::Done(sent) => Ok(Ready::Done(sent)),
            Begun::Failed(failure) => Err(Failed::Text(failure.to_string())),
            Begun::Waits(operation) => Ok(Ready::Waits(operation)),
        }
    }
}

fn request() -> Result<Rc<Request>, Failed> {
    current(|h| Rc::clone(&h.request)).ok_or(Failed::NoRequest)
}
