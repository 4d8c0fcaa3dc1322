//! What a socket's bytes come from and go to: a connection to a peer, the client's own connection, the request's body,
//! or a pipe to another process.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use terrace_event::Source;
use terrace_http::Request;
use terrace_http::connection::{Client, Reading};
use terrace_net::Stream;

/// Where bytes come from and go to.
pub enum Transport {
    /// A peer that the script connected to.
    Peer(Stream),
    /// The client's connection, which the script has taken over.
    Client(Rc<Client>),
    /// The request's body, decoded. Weak: the socket may live longer than its request.
    Body(Weak<Request>),
    /// What another process writes or reads.
    Pipe(Source<OwnedFd>),
}

fn unfit() -> io::Error {
    io::ErrorKind::Unsupported.into()
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl Transport {
    /// Reads what is there; 0 at the end, `WouldBlock` when nothing is there.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Transport::Peer(s) => s.try_read(buf),
            Transport::Client(c) => c.try_take(buf),
            Transport::Body(r) => r.upgrade().ok_or_else(gone)?.try_read_body(buf),
            Transport::Pipe(p) => p.try_read(|p| Ok(rustix::io::read(p, &mut *buf)?)),
        }
    }

    /// Ready once a read may make progress.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Transport::Peer(s) => s.poll_read_ready(cx),
            Transport::Client(c) => c.poll_take_ready(cx),
            Transport::Body(r) => match r.upgrade() {
                Some(r) => r.poll_body_ready(cx),
                None => Poll::Ready(Err(gone())),
            },
            Transport::Pipe(p) => p.poll_read_ready(cx).map(Ok),
        }
    }

    /// Writes what fits; `WouldBlock` when nothing does.
    pub fn try_write(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Transport::Peer(s) => s.try_write(data),
            Transport::Client(c) => c.try_put(data),
            Transport::Pipe(p) => p.try_write(|p| Ok(rustix::io::write(p, data)?)),
            Transport::Body(_) => Err(unfit()),
        }
    }

    /// Writes some of `data`, waiting for room.
    pub fn poll_write(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self {
                Transport::Peer(s) => return s.poll_write(cx, data),
                Transport::Client(c) => ready!(c.stream.poll_write_ready(cx))?,
                Transport::Pipe(p) => ready!(p.poll_write_ready(cx)),
                Transport::Body(_) => return Poll::Ready(Err(unfit())),
            }
            match self.try_write(data) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                ended => return Poll::Ready(ended),
            }
        }
    }

    /// Says, while it is kept, that the client's bytes are being read, so that nobody else looks for its leaving.
    pub fn reading(&self) -> Option<Reading> {
        match self {
            Transport::Client(c) => Some(c.reading()),
            Transport::Body(r) => r.upgrade()?.client.as_ref().map(|c| c.reading()),
            _ => None,
        }
    }

    /// The socket, for options.
    pub fn socket(&self) -> io::Result<SockRef<'_>> {
        match self {
            Transport::Peer(s) => Ok(s.socket()),
            Transport::Client(c) => Ok(c.stream.socket()),
            _ => Err(unfit()),
        }
    }
}
