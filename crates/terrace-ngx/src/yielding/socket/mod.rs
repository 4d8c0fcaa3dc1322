//! `ngx.socket`: the functions that Lua calls. A socket is behind a pointer that Lua's collector frees; each
//! operation that waits holds it too. Calls that can be answered from what has been read answer without waiting.

mod conn;
mod connect;
mod input;
mod options;
mod owner;
mod pool;
mod request;
mod stream;
mod tcp;
mod tls;
mod transport;
pub mod udp;

use std::borrow::Cow;
use std::ffi::c_int;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use terrace_http::Request;
use terrace_lua::pending;

use crate::ffi::{AWAIT, DONE, FAILED, NO_REQUEST, NOT_FOUND, Text, bytes, fail, functions, give};
use crate::host::current;
use conn::{Conn, Failure};
use connect::{Connecting, Target};
use input::Until;
pub use input::Want;
use pool::{Lease, Pools};
pub use stream::{Failed, Ready, Stream};
use tcp::{Begun, Refusal, Tcp, Use, log_socket, setting};
pub use tls::DECLARATION;
use transport::Transport;

functions! {
    "struct terrace_tcp *(*tcp_new)(void)" => tcp_new,
    "void (*tcp_free)(struct terrace_tcp *)" => tcp_free,
    "void (*tcp_timeouts)(struct terrace_tcp *, double, double, double)" => tcp_timeouts,
    "int (*tcp_bind)(struct terrace_tcp *, const char *, size_t, int)" => tcp_bind,
    "int (*tcp_connect)(struct terrace_tcp *, const char *, size_t, int, const char *, size_t, double, double, terrace_text *)" => tcp_connect,
    "int (*tcp_send)(struct terrace_tcp *, const char *, size_t, terrace_text *)" => tcp_send,
    "void (*tcp_piece)(struct terrace_tcp *, const char *, size_t, int)" => tcp_piece,
    "int (*tcp_send_pieces)(struct terrace_tcp *, terrace_text *)" => tcp_send_pieces,
    "int (*tcp_receive)(struct terrace_tcp *, int, double, terrace_text *)" => tcp_receive,
    "int (*tcp_until)(struct terrace_tcp *, const char *, size_t, int, double, terrace_text *)" => tcp_until,
    "int (*tcp_close)(struct terrace_tcp *)" => tcp_close,
    "int (*tcp_keepalive)(struct terrace_tcp *, double, double, terrace_text *)" => tcp_keepalive,
    "int (*tcp_reused)(struct terrace_tcp *)" => tcp_reused,
    "int (*tcp_option)(struct terrace_tcp *, int, int, int *, terrace_text *)" => options::tcp_option,
    "int (*tcp_fd)(struct terrace_tcp *)" => options::tcp_fd,
    "int (*tcp_handshake)(struct terrace_tcp *, const terrace_tls_wishes *, terrace_text *)" => tls::tcp_handshake,
    "struct terrace_session *(*tcp_session)(struct terrace_tcp *)" => tls::tcp_session,
    "int (*tcp_is_tls)(struct terrace_tcp *)" => tls::tcp_is_tls,
    "void (*tls_session_free)(struct terrace_session *)" => tls::tls_session_free,
    "struct terrace_tcp *(*tcp_request)(int, int *, terrace_text *)" => request::tcp_request,
}

/// A pattern was reached.
const REACHED: c_int = 2;
/// See [`Refusal`].
const CLOSED: c_int = -2;
const BUSY_CONNECTING: c_int = -3;
const BUSY_READING: c_int = -4;
const BUSY_WRITING: c_int = -5;
const BAD_REQUEST: c_int = -6;
const BUSY: c_int = -7;

impl From<Refusal> for c_int {
    fn from(refusal: Refusal) -> c_int {
        match refusal {
            Refusal::Closed => CLOSED,
            Refusal::Connecting => BUSY_CONNECTING,
            Refusal::Reading => BUSY_READING,
            Refusal::Writing => BUSY_WRITING,
            Refusal::Busy => BUSY,
            Refusal::Foreign => BAD_REQUEST,
        }
    }
}

extern "C" fn tcp_new() -> *const Tcp {
    Rc::into_raw(Rc::new(Tcp::default()))
}

extern "C" fn tcp_free(socket: *const Tcp) {
    if !socket.is_null() {
        // SAFETY: a pointer that `tcp_new` gave; Lua's collector passes it here once.
        drop(unsafe { Rc::from_raw(socket) });
    }
}

/// The socket behind a pointer of Lua's.
fn shared(socket: *const Tcp) -> Option<Rc<Tcp>> {
    if socket.is_null() {
        return None;
    }
    // SAFETY: LuaJIT lets only pointers of this type through, all of which `tcp_new` made; the caller's socket
    // table keeps it alive during the call, and the count is raised before a second owner is made.
    unsafe {
        Rc::increment_strong_count(socket);
        Some(Rc::from_raw(socket))
    }
}

/// Calls `f` with the socket and the request of the running code.
fn with(socket: *const Tcp, f: impl FnOnce(&Rc<Tcp>, &Rc<Request>) -> Result<c_int, Refusal>) -> c_int {
    let Some(socket) = shared(socket) else { return CLOSED };
    current(|h| f(&socket, &h.request).unwrap_or_else(c_int::from)).unwrap_or(NO_REQUEST)
}

/// A count or a time from Lua: rounded down, 0 for what is no number.
fn whole(n: f64) -> usize {
    n as usize
}

/// Milliseconds from Lua; 0 means the location's setting.
fn timeout(ms: f64) -> Option<u64> {
    let ms = ms as u64;
    (ms > 0).then_some(ms)
}

extern "C" fn tcp_timeouts(socket: *const Tcp, connect_ms: f64, send_ms: f64, read_ms: f64) {
    if let Some(s) = shared(socket) {
        s.connect_timeout_ms.set(timeout(connect_ms));
        s.send_timeout_ms.set(timeout(send_ms));
        s.read_timeout_ms.set(timeout(read_ms));
    }
}

/// Where later connections come from; `NOT_FOUND` for what is no address.
extern "C" fn tcp_bind(socket: *const Tcp, address: *const u8, len: usize, port: c_int) -> c_int {
    // SAFETY: a Lua string.
    let local = parse_local(unsafe { bytes(address, len) }, u16::try_from(port).unwrap_or(0));
    let (Some(local), Some(socket)) = (local, shared(socket)) else { return NOT_FOUND };
    socket.local.set(Some(local));
    DONE
}

/// An address of this host, an IPv6 one perhaps in brackets.
fn parse_local(text: &[u8], port: u16) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(text);
    Some(SocketAddr::new(bare.parse::<IpAddr>().ok()?, port))
}

/// Connects. A port below 0 means none; a pool size of 0 and a backlog below 0 mean none given.
#[allow(clippy::too_many_arguments, reason = "a C function for Lua: the options of one call")]
extern "C" fn tcp_connect(
    socket: *const Tcp,
    host: *const u8,
    host_len: usize,
    port: c_int,
    pool: *const u8,
    pool_len: usize,
    pool_size: f64,
    backlog: f64,
    out: *mut Text,
) -> c_int {
    // SAFETY: two Lua strings; the pool's may be null.
    let (host, pool) = unsafe { (bytes(host, host_len), bytes(pool, pool_len)) };
    with(socket, |s, r| {
        s.adopt(r)?;
        let target = Target {
            host,
            port: u16::try_from(port).unwrap_or(0),
            has_port: port >= 0,
            pool,
            pool_size: Some(whole(pool_size)).filter(|n| *n > 0),
            backlog: (backlog >= 0.0).then(|| whole(backlog)),
        };
        Ok(match connect::connect(s, r, &target) {
            Connecting::Done => DONE,
            // SAFETY: Lua passes texts of its own.
            Connecting::Failed(text) => unsafe { fail(out, text) },
            Connecting::Waits(operation) => {
                pending::set(operation);
                AWAIT
            }
        })
    })
}

/// The connection for a call; one without a connection is logged, as OpenResty does.
fn usable(s: &Rc<Tcp>, r: &Rc<Request>, wanted: Use) -> Result<Rc<Conn>, Refusal> {
    s.usable(r, wanted).inspect_err(|e| {
        let verb = match wanted {
            Use::Read => "receive",
            Use::Write => "send",
            Use::Whole => return,
        };
        if *e == Refusal::Closed {
            let conn = s.conn();
            let address = conn.as_ref().map_or(0, |c| Rc::as_ptr(c) as usize);
            let eof = u8::from(conn.is_some_and(|c| c.read_closed.get()));
            let socket = Rc::as_ptr(s) as usize;
            log_socket(
                r,
                format_args!(
                    "attempt to {verb} data on a closed socket: u:{socket:016X}, c:{address:016X}, ft:0 eof:{eof}"
                ),
            );
        }
    })
}

fn send(socket: *const Tcp, data: impl FnOnce(&Tcp) -> Cow<'static, [u8]>, out: *mut Text) -> c_int {
    with(socket, |s, r| {
        let conn = usable(s, r, Use::Write)?;
        Ok(match s.send(r, conn, data(s)) {
            Begun::Done(sent) => {
                // SAFETY: Lua passes a text of its own, whose length it takes for the count.
                unsafe { out.write(Text::of_len(sent)) };
                DONE
            }
            // SAFETY: as above.
            Begun::Failed(failure) => unsafe { fail(out, &failure.to_string()) },
            Begun::Waits(operation) => {
                pending::set(operation);
                AWAIT
            }
        })
    })
}

extern "C" fn tcp_send(socket: *const Tcp, data: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string, which lives longer than this call; `Tcp::send` copies what it keeps.
    let data: &'static [u8] = unsafe { bytes(data, len) };
    send(socket, |_| Cow::Borrowed(data), out)
}

/// Adds a piece to the message that `tcp_send_pieces` sends; the first begins a new one.
extern "C" fn tcp_piece(socket: *const Tcp, data: *const u8, len: usize, first: c_int) {
    let Some(socket) = shared(socket) else { return };
    let mut output = socket.output.borrow_mut();
    if first != 0 {
        output.clear();
    }
    // SAFETY: a Lua string.
    output.extend_from_slice(unsafe { bytes(data, len) });
}

extern "C" fn tcp_send_pieces(socket: *const Tcp, out: *mut Text) -> c_int {
    send(socket, |s| Cow::Owned(s.output.take()), out)
}

/// Receives: 0 a line, 1 so many bytes, 2 at most so many, 3 all. `out` is two texts: the bytes; of a failure its
/// text and the bytes received before.
extern "C" fn tcp_receive(socket: *const Tcp, kind: c_int, size: f64, out: *mut Text) -> c_int {
    let want = match kind {
        0 => Want::Line,
        1 => Want::Bytes(whole(size)),
        2 => Want::Any(whole(size)),
        _ => Want::All,
    };
    let code = receive(socket, want, out);
    if code == REACHED { DONE } else { code }
}

/// Receives up to a pattern, or a piece of at most `size` bytes before it. `REACHED` says that the pattern was.
extern "C" fn tcp_until(
    socket: *const Tcp,
    pattern: *const u8,
    len: usize,
    inclusive: c_int,
    size: f64,
    out: *mut Text,
) -> c_int {
    // SAFETY: a Lua string.
    let pattern = unsafe { bytes(pattern, len) };
    if pattern.is_empty() {
        return NOT_FOUND;
    }
    let until = Until { pattern: Cow::Borrowed(pattern), inclusive: inclusive != 0, piece: whole(size) };
    receive(socket, Want::Until(until), out)
}

fn receive(socket: *const Tcp, want: Want<'_>, out: *mut Text) -> c_int {
    with(socket, |s, r| {
        let conn = usable(s, r, Use::Read)?;
        let begun = s.receive(r, conn, want, |result| match result {
            Ok((data, reached)) => {
                // SAFETY: Lua passes two texts of its own.
                unsafe { show(out, data) };
                if reached { REACHED } else { DONE }
            }
            Err((failure, partial)) => {
                // SAFETY: as above.
                unsafe { show_failure(out, &failure, &partial) };
                FAILED
            }
        });
        Ok(begun.unwrap_or_else(|operation| {
            pending::set(operation);
            AWAIT
        }))
    })
}

/// Points at received bytes: where they lie in the socket's input, which nothing changes before Lua's next call.
///
/// # Safety
/// As [`give`]; borrowed bytes must be the input's.
unsafe fn show(out: *mut Text, data: Cow<'_, [u8]>) {
    match data {
        // SAFETY: the caller's promise.
        Cow::Borrowed(data) => unsafe { out.write(Text::of(data)) },
        // SAFETY: the caller's promise.
        Cow::Owned(data) => unsafe { give(out, |b| b.extend_from_slice(&data)) },
    }
}

/// Leaves a failure's text and what was received before it.
///
/// # Safety
/// `out` must point at two texts of the caller.
unsafe fn show_failure(out: *mut Text, failure: &Failure, partial: &[u8]) {
    let text = failure.to_string();
    // SAFETY: the caller's promise.
    unsafe {
        give(out, |b| {
            b.extend_from_slice(text.as_bytes());
            b.extend_from_slice(partial);
        });
        let (text, partial) = out.read().split_at(text.len());
        out.write(text);
        out.add(1).write(partial);
    }
}

extern "C" fn tcp_close(socket: *const Tcp) -> c_int {
    with(socket, |s, r| {
        s.usable(r, Use::Whole)?;
        drop(s.close());
        Ok(DONE)
    })
}

/// Puts the connection into its pool. A timeout below 0 and a size of 0 mean the location's settings.
extern "C" fn tcp_keepalive(socket: *const Tcp, timeout_ms: f64, size: f64, out: *mut Text) -> c_int {
    with(socket, |s, r| {
        let conn = s.usable(r, Use::Whole)?;
        if conn.read_closed.get() || conn.write_closed.get() {
            return Err(Refusal::Closed);
        }
        if !conn.input.borrow().is_empty() {
            // SAFETY: Lua passes texts of its own.
            return Ok(unsafe { fail(out, "unread data in buffer") });
        }
        if !matches!(conn.stream, Transport::Peer(_)) {
            return Err(Refusal::Closed);
        }
        match conn.stream.try_read(&mut [0]) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(1..) => {
                drop(s.close());
                // SAFETY: as above.
                return Ok(unsafe { fail(out, "connection in dubious state") });
            }
            Ok(0) | Err(_) => {
                drop(s.close());
                return Err(Refusal::Closed);
            }
        }
        drop(s.close());
        if r.worker.is_draining() {
            return Ok(DONE);
        }
        conn.input.borrow_mut().shrink();
        let timeout_ms = if timeout_ms < 0.0 {
            setting(r, |s| s.socket_keepalive_timeout(), 60_000)
        } else {
            timeout_ms as u64
        };
        let pool = conn.lease.borrow().as_ref().and_then(Lease::pool);
        let pool = pool.unwrap_or_else(|| {
            let size = match whole(size) {
                0 => setting(r, |s| s.socket_pool_size(), 30),
                size => size,
            };
            r.worker.state(Pools::default).find_or_make(&s.key.borrow(), size, None)
        });
        pool.put(conn, timeout_ms);
        Ok(DONE)
    })
}

extern "C" fn tcp_reused(socket: *const Tcp) -> c_int {
    let conn = shared(socket).and_then(|s| s.conn());
    conn.map_or(CLOSED, |c| c_int::try_from(c.reused.get()).unwrap_or(c_int::MAX))
}
