//! A connection of a socket: its stream, what was read from it, its timers. It moves between sockets and their pool.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};

use terrace_base::clock;
use terrace_net::Timer;
use terrace_net::tls::Session;

use super::input::{Found, Input, Want};
use super::pool::Lease;
use super::transport::Transport;

/// One connection.
pub struct Conn {
    /// Where its bytes come from and go to.
    pub stream: Transport,
    /// What Lua has not taken yet.
    pub input: RefCell<Input>,
    /// Its place in a pool.
    pub lease: RefCell<Option<Lease>>,
    /// Its TLS session, where a script may take it up again.
    pub session: RefCell<Option<Session>>,
    /// How often it came out of a pool.
    pub reused: Cell<u32>,
    /// Nothing more is read: the peer ended, or reading failed.
    pub read_closed: Cell<bool>,
    /// Nothing more is written.
    pub write_closed: Cell<bool>,
    read_timer: RefCell<Timer>,
    write_timer: RefCell<Timer>,
}

/// Why an operation failed.
#[derive(Debug)]
pub enum Failure {
    /// Its time ran out.
    Timeout,
    /// The peer ended the stream.
    Closed,
    /// The client left before the end of its request's body.
    Aborted,
    /// The system says so.
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Timeout => f.write_str("timeout"),
            Failure::Closed => f.write_str("closed"),
            Failure::Aborted => f.write_str("client aborted"),
            Failure::Io(e) => f.write_str(&reason(e)),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Failure {
        if e.kind() == io::ErrorKind::UnexpectedEof { Failure::Aborted } else { Failure::Io(e) }
    }
}

/// The system's words for an error in lower case, as LuaSocket has them: `connection refused`.
pub fn reason(e: &io::Error) -> String {
    let mut text = e.to_string();
    if let Some(at) = text.rfind(" (os error") {
        text.truncate(at);
    }
    text.make_ascii_lowercase();
    text
}

/// When an operation has waited too long; moved with every progress.
#[derive(Debug)]
pub struct Deadline {
    at_ms: u64,
    timeout_ms: u64,
}

impl Deadline {
    /// So long from now.
    pub fn after(timeout_ms: u64) -> Deadline {
        Deadline { at_ms: clock::monotonic_ms().saturating_add(timeout_ms), timeout_ms }
    }

    fn renew(&mut self) {
        *self = Deadline::after(self.timeout_ms);
    }
}

impl Conn {
    /// A fresh connection.
    pub fn new(stream: Transport, lease: Option<Lease>) -> Conn {
        Conn {
            stream,
            input: RefCell::new(Input::new()),
            lease: RefCell::new(lease),
            session: RefCell::default(),
            reused: Cell::new(0),
            read_closed: Cell::new(false),
            write_closed: Cell::new(false),
            read_timer: RefCell::default(),
            write_timer: RefCell::default(),
        }
    }

    /// Whether the event loop has seen bytes or an end on an idle connection. Makes no system call when it has not.
    pub fn has_news(&self) -> bool {
        !matches!(self.stream.try_read(&mut [0]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Ready once the input satisfies `want`, or the call has failed.
    pub fn poll_receive(
        &self,
        cx: &mut Context<'_>,
        want: &Want<'_>,
        scanned: &mut usize,
        deadline: &mut Deadline,
        buffer_bytes: usize,
    ) -> Poll<Result<Found, Failure>> {
        let mut input = self.input.borrow_mut();
        loop {
            if let Some(found) = input.find(want, scanned) {
                return Poll::Ready(Ok(found));
            }
            if self.stream.poll_read_ready(cx).map_err(Failure::from)?.is_pending() {
                ready!(self.read_timer.borrow_mut().poll_expired(cx, deadline.at_ms));
                return Poll::Ready(Err(Failure::Timeout));
            }
            match input.fill(&self.stream, buffer_bytes) {
                Ok(0) => return Poll::Ready(Err(Failure::Closed)),
                Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(e.into())),
                Err(_) => {}
                Ok(_) => deadline.renew(),
            }
        }
    }

    /// Writes on from `sent`; ready once all of `data` is written, or writing has failed.
    pub fn poll_send(
        &self,
        cx: &mut Context<'_>,
        data: &[u8],
        sent: &mut usize,
        deadline: &mut Deadline,
    ) -> Poll<Result<(), Failure>> {
        while let Some(rest) = data.get(*sent..).filter(|d| !d.is_empty()) {
            match self.stream.poll_write(cx, rest) {
                Poll::Ready(n) => {
                    *sent += n.map_err(Failure::from)?;
                    deadline.renew();
                }
                Poll::Pending => {
                    ready!(self.write_timer.borrow_mut().poll_expired(cx, deadline.at_ms));
                    return Poll::Ready(Err(Failure::Timeout));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
