//! A TCP or Unix stream socket as scripts hold it: `ngx.socket.tcp()`.
//!
//! A socket belongs to the request that connected it and is closed at that request's end. One light thread may read
//! while another writes.

use std::borrow::Cow;
use std::cell::{Cell, LazyCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use smallvec::smallvec;
use terrace_base::log::Level;
use terrace_http::Request;
use terrace_lua::{Value, Values};

use super::conn::{Conn, Deadline, Failure};
use super::input::Want;
use super::owner::{Owned, Owner};
use super::transport::Transport;
use crate::settings::LuaLocation;

/// Reads that are made without waiting before other tasks of the worker get their turn.
const READS_AT_ONCE_MAX: usize = 16;
/// A buffer for a message made of pieces that grew beyond this is not kept.
const OUTPUT_KEPT_BYTES_MAX: usize = 64 * 1024;

/// A socket.
#[derive(Default)]
pub struct Tcp {
    conn: RefCell<Option<Rc<Conn>>>,
    owner: Owner,
    /// The key of its pool.
    pub key: RefCell<Vec<u8>>,
    /// A message that is put together of pieces.
    pub output: RefCell<Vec<u8>>,
    /// Times of the script's; where none is set, the location's.
    pub connect_timeout_ms: Cell<Option<u64>>,
    /// As above.
    pub send_timeout_ms: Cell<Option<u64>>,
    /// As above.
    pub read_timeout_ms: Cell<Option<u64>>,
    /// Where connections come from.
    pub local: Cell<Option<SocketAddr>>,
    /// Whether it belongs to no request.
    is_unowned: bool,
    connecting: Cell<bool>,
    reading: Cell<bool>,
    writing: Cell<bool>,
}

/// Why a call cannot begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no connection, or this direction of it has ended.
    Closed,
    /// Another light thread connects.
    Connecting,
    /// Another light thread reads.
    Reading,
    /// Another light thread writes.
    Writing,
    /// Another light thread uses the socket.
    Busy,
    /// The socket is another request's.
    Foreign,
}

/// What a call is about to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Receive.
    Read,
    /// Send.
    Write,
    /// Close, or put into a pool.
    Whole,
}

/// Which flag an operation holds.
#[derive(Clone, Copy)]
enum Flag {
    Connecting,
    Reading,
    Writing,
}

/// Holds a flag of a socket while an operation waits.
pub struct Busy(Rc<Tcp>, Flag);

impl Busy {
    /// The socket.
    pub fn socket(&self) -> &Rc<Tcp> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.flag(self.1).set(false);
    }
}

/// How a call that may wait began.
pub enum Begun<T> {
    /// It is done.
    Done(T),
    /// It failed.
    Failed(Failure),
    /// It waits: this is the rest of it.
    Waits(terrace_lua::Operation),
}

impl Tcp {
    fn flag(&self, flag: Flag) -> &Cell<bool> {
        match flag {
            Flag::Connecting => &self.connecting,
            Flag::Reading => &self.reading,
            Flag::Writing => &self.writing,
        }
    }

    fn hold(self: &Rc<Self>, flag: Flag) -> Busy {
        self.flag(flag).set(true);
        Busy(Rc::clone(self), flag)
    }

    /// Marks the socket as connecting.
    pub fn hold_connecting(self: &Rc<Self>) -> Busy {
        self.hold(Flag::Connecting)
    }

    fn check_busy(&self, wanted: Use) -> Result<(), Refusal> {
        if self.connecting.get() {
            return Err(Refusal::Connecting);
        }
        if wanted != Use::Write && self.reading.get() {
            return Err(Refusal::Reading);
        }
        if wanted != Use::Read && self.writing.get() {
            return Err(Refusal::Writing);
        }
        Ok(())
    }

    fn is_foreign(&self, r: &Rc<Request>) -> bool {
        !self.is_unowned && !self.owner.is(r)
    }

    /// The connection, for a call that is about to use it.
    pub fn usable(&self, r: &Rc<Request>, wanted: Use) -> Result<Rc<Conn>, Refusal> {
        if self.connecting.get() && !self.is_foreign(r) {
            return Err(Refusal::Connecting);
        }
        let conn = self.conn.borrow().as_ref().map(Rc::clone).ok_or(Refusal::Closed)?;
        let is_closed = match wanted {
            Use::Read => conn.read_closed.get(),
            Use::Write => conn.write_closed.get(),
            Use::Whole => conn.read_closed.get() && conn.write_closed.get(),
        };
        if is_closed {
            return Err(Refusal::Closed);
        }
        if self.is_foreign(r) {
            return Err(Refusal::Foreign);
        }
        self.check_busy(wanted)?;
        Ok(conn)
    }

    /// The connection, whoever asks.
    pub fn conn(&self) -> Option<Rc<Conn>> {
        self.conn.borrow().as_ref().map(Rc::clone)
    }

    /// Prepares to connect for a request: closes an earlier connection and makes the request the owner.
    pub fn adopt(self: &Rc<Self>, r: &Rc<Request>) -> Result<(), Refusal> {
        let is_mine = !self.is_foreign(r);
        if !is_mine && self.conn.borrow().is_some() {
            return Err(Refusal::Foreign);
        }
        self.check_busy(Use::Whole)?;
        self.close();
        if !is_mine {
            let socket: Rc<dyn Owned> = Rc::clone(self) as Rc<dyn Owned>;
            self.owner.claim(r, Rc::downgrade(&socket));
        }
        Ok(())
    }

    /// A socket on a connection that is there already, for a request.
    pub fn on(r: &Rc<Request>, stream: Transport) -> Rc<Tcp> {
        let socket = Rc::new(Tcp::default());
        socket.open(Rc::new(Conn::new(stream, None)));
        let owned: Rc<dyn Owned> = Rc::clone(&socket) as Rc<dyn Owned>;
        socket.owner.claim(r, Rc::downgrade(&owned));
        socket
    }

    /// A socket that any request may use.
    pub fn unowned(stream: Transport) -> Rc<Tcp> {
        let socket = Tcp { is_unowned: true, ..Tcp::default() };
        socket.open(Rc::new(Conn::new(stream, None)));
        Rc::new(socket)
    }

    /// Takes a connection into use.
    pub fn open(&self, conn: Rc<Conn>) {
        self.conn.replace(Some(conn));
    }

    /// Gives the connection up; the last holder closes it.
    pub fn close(&self) -> Option<Rc<Conn>> {
        self.conn.borrow_mut().take()
    }

    fn end_reading(&self, conn: &Conn) {
        conn.read_closed.set(true);
        if conn.write_closed.get() {
            drop(self.close());
        }
    }

    fn end_writing(&self, conn: &Conn) {
        conn.write_closed.set(true);
        if conn.read_closed.get() {
            drop(self.close());
        }
    }

    /// Receives what is there without waiting, or begins to wait. `done` gets the bytes and whether a pattern was
    /// reached; `failed` what was received before.
    pub fn receive<T>(
        self: &Rc<Self>,
        r: &Rc<Request>,
        conn: Rc<Conn>,
        want: Want<'_>,
        done: impl FnOnce(Result<(Cow<'_, [u8]>, bool), (Failure, Cow<'_, [u8]>)>) -> T,
    ) -> Result<T, terrace_lua::Operation> {
        let buffer_bytes = LazyCell::new(|| buffer_bytes(r));
        let mut scanned = 0;
        for _ in 0..READS_AT_ONCE_MAX {
            let mut input = conn.input.borrow_mut();
            if let Some(found) = input.find(&want, &mut scanned) {
                return Ok(done(Ok((input.take(&want, found), found.reached))));
            }
            let failure = match input.fill(&conn.stream, *buffer_bytes) {
                Ok(0) => Failure::Closed,
                Ok(_) => continue,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => Failure::from(e),
            };
            self.end_reading(&conn);
            let bytes = input.take_partial(&want, true);
            if matches!((&failure, &want), (Failure::Closed, Want::All)) {
                return Ok(done(Ok((bytes, true))));
            }
            return Ok(done(Err((failure, bytes))));
        }
        let timeout_ms =
            self.read_timeout_ms.get().unwrap_or_else(|| setting(r, |s| s.socket_read_timeout(), 60_000));
        let buffer_bytes = *buffer_bytes;
        let busy = self.hold(Flag::Reading);
        let (want, r) = (want.into_owned(), Rc::clone(r));
        Err(Box::pin(async move {
            let socket = busy.socket();
            let _reading = conn.stream.reading();
            let mut deadline = Deadline::after(timeout_ms);
            let ended =
                poll_fn(|cx| conn.poll_receive(cx, &want, &mut scanned, &mut deadline, buffer_bytes)).await;
            socket.received(&r, &conn, &want, ended)
        }))
    }

    /// The values of a receive that had to wait.
    fn received(
        &self,
        r: &Request,
        conn: &Conn,
        want: &Want<'_>,
        ended: Result<super::input::Found, Failure>,
    ) -> Values {
        let mut input = conn.input.borrow_mut();
        let failure = match ended {
            Ok(found) => {
                let bytes = Value::from(input.take(want, found).into_owned());
                return match want {
                    Want::Until(_) => smallvec![bytes, Value::Bool(found.reached)],
                    _ => smallvec![bytes],
                };
            }
            Err(failure) => failure,
        };
        let is_timeout = matches!(failure, Failure::Timeout);
        let bytes = Value::from(input.take_partial(want, !is_timeout).into_owned());
        drop(input);
        if !is_timeout {
            self.end_reading(conn);
        } else if !self.is_unowned {
            log_socket(r, format_args!("lua tcp socket read timed out"));
        }
        if matches!((&failure, want), (Failure::Closed, Want::All)) {
            return smallvec![bytes];
        }
        smallvec![Value::Nil, Value::from(failure.to_string()), bytes]
    }

    /// Sends what fits without waiting, or begins to wait for the rest.
    pub fn send(self: &Rc<Self>, r: &Rc<Request>, conn: Rc<Conn>, data: Cow<'_, [u8]>) -> Begun<usize> {
        let mut sent = 0;
        while let Some(rest) = data.get(sent..).filter(|d| !d.is_empty()) {
            match conn.stream.try_write(rest) {
                Ok(n) => sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    return Begun::Waits(self.send_rest(r, conn, data.into_owned(), sent));
                }
                Err(e) => {
                    self.end_writing(&conn);
                    return Begun::Failed(Failure::Io(e));
                }
            }
        }
        let all = data.len();
        if let Cow::Owned(buf) = data
            && buf.capacity() <= OUTPUT_KEPT_BYTES_MAX
        {
            self.output.replace(buf);
        }
        Begun::Done(all)
    }

    fn send_rest(
        self: &Rc<Self>,
        r: &Rc<Request>,
        conn: Rc<Conn>,
        data: Vec<u8>,
        mut sent: usize,
    ) -> terrace_lua::Operation {
        let timeout_ms =
            self.send_timeout_ms.get().unwrap_or_else(|| setting(r, |s| s.socket_send_timeout(), 60_000));
        let busy = self.hold(Flag::Writing);
        let r = Rc::clone(r);
        Box::pin(async move {
            let socket = busy.socket();
            let mut deadline = Deadline::after(timeout_ms);
            match poll_fn(|cx| conn.poll_send(cx, &data, &mut sent, &mut deadline)).await {
                Ok(()) => smallvec![Value::Number(data.len() as f64)],
                Err(failure) => {
                    if matches!(failure, Failure::Timeout) && !socket.is_unowned {
                        log_socket(&r, format_args!("lua tcp socket write timed out"));
                    }
                    socket.end_writing(&conn);
                    smallvec![Value::Nil, Value::from(failure.to_string())]
                }
            }
        })
    }
}

impl Owned for Tcp {
    fn release(&self) {
        drop(self.close());
        self.owner.clear();
    }
}

fn buffer_bytes(r: &Request) -> usize {
    let bytes = setting(r, |s| s.socket_buffer_size(), 4096);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A setting of the request's location.
pub fn setting<T>(r: &Request, read: impl FnOnce(&LuaLocation) -> T, default: T) -> T {
    r.settings::<LuaLocation>().map_or(default, read)
}

/// Logs a socket's error, unless `lua_socket_log_errors` is off.
pub fn log_socket(r: &Request, message: std::fmt::Arguments<'_>) {
    if setting(r, |s| s.socket_log_errors(), true) {
        r.log(Level::Error, message);
    }
}
