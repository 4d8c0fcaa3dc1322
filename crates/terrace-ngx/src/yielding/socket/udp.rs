//! `ngx.socket.udp`: datagrams to and from one peer.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use smallvec::smallvec;
use terrace_http::Request;
use terrace_lua::{Value, Values, pending};
use terrace_net::{Address, Datagram};

use super::conn::reason;
use super::connect::{addresses, unix_path};
use super::owner::{Owned, Owner};
use super::tcp::{Refusal, log_socket, setting};
use super::{parse_local, whole};
use crate::ffi::{AWAIT, DONE, NO_REQUEST, NOT_FOUND, Text, bytes, fail, functions};
use crate::host::current;

functions! {
    "struct terrace_udp *(*udp_new)(void)" => udp_new,
    "void (*udp_free)(struct terrace_udp *)" => udp_free,
    "void (*udp_timeout)(struct terrace_udp *, double)" => udp_timeout,
    "int (*udp_bind)(struct terrace_udp *, const char *, size_t)" => udp_bind,
    "int (*udp_peer)(struct terrace_udp *, const char *, size_t, int, terrace_text *)" => udp_peer,
    "int (*udp_send)(struct terrace_udp *, const char *, size_t, terrace_text *)" => udp_send,
    "int (*udp_receive)(struct terrace_udp *, double)" => udp_receive,
    "int (*udp_close)(struct terrace_udp *)" => udp_close,
}

/// The longest datagram that is received whole.
const DATAGRAM_BYTES_MAX: usize = 8192;

/// A socket.
#[derive(Default)]
struct Udp {
    socket: RefCell<Option<Rc<Datagram>>>,
    owner: Owner,
    timeout_ms: Cell<u64>,
    local: Cell<Option<SocketAddr>>,
    is_busy: Cell<bool>,
}

impl Owned for Udp {
    fn release(&self) {
        self.socket.replace(None);
        self.owner.clear();
    }
}

/// Holds a socket busy while an operation waits.
struct Busy(Rc<Udp>);

impl Busy {
    fn new(socket: &Rc<Udp>) -> Busy {
        socket.is_busy.set(true);
        Busy(Rc::clone(socket))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.is_busy.set(false);
    }
}

extern "C" fn udp_new() -> *const Udp {
    Rc::into_raw(Rc::new(Udp::default()))
}

extern "C" fn udp_free(socket: *const Udp) {
    if !socket.is_null() {
        // SAFETY: a pointer that `udp_new` gave; Lua's collector passes it here once.
        drop(unsafe { Rc::from_raw(socket) });
    }
}

fn shared(socket: *const Udp) -> Option<Rc<Udp>> {
    if socket.is_null() {
        return None;
    }
    // SAFETY: LuaJIT lets only pointers of this type through, all of which `udp_new` made and the caller's socket
    // table keeps alive during the call; the count is raised before a second owner is made.
    unsafe {
        Rc::increment_strong_count(socket);
        Some(Rc::from_raw(socket))
    }
}

fn with(socket: *const Udp, f: impl FnOnce(&Rc<Udp>, &Rc<Request>) -> Result<c_int, Refusal>) -> c_int {
    let Some(socket) = shared(socket) else { return Refusal::Closed.into() };
    current(|h| f(&socket, &h.request).unwrap_or_else(c_int::from)).unwrap_or(NO_REQUEST)
}

impl Udp {
    fn usable(&self, r: &Rc<Request>) -> Result<Rc<Datagram>, Refusal> {
        let socket = self.socket.borrow().as_ref().map(Rc::clone).ok_or(Refusal::Closed)?;
        if !self.owner.is(r) {
            return Err(Refusal::Foreign);
        }
        if self.is_busy.get() { Err(Refusal::Busy) } else { Ok(socket) }
    }

    fn open(&self, address: &Address) -> Result<(), String> {
        let socket = Datagram::connect(address, self.local.get()).map_err(|e| reason(&e))?;
        self.socket.replace(Some(Rc::new(socket)));
        Ok(())
    }
}

extern "C" fn udp_timeout(socket: *const Udp, ms: f64) {
    if let Some(s) = shared(socket) {
        s.timeout_ms.set(ms as u64);
    }
}

extern "C" fn udp_bind(socket: *const Udp, address: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    let local = parse_local(unsafe { bytes(address, len) }, 0);
    let (Some(local), Some(socket)) = (local, shared(socket)) else { return NOT_FOUND };
    socket.local.set(Some(local));
    DONE
}

extern "C" fn udp_peer(
    socket: *const Udp,
    host: *const u8,
    len: usize,
    port: c_int,
    out: *mut Text,
) -> c_int {
    // SAFETY: a Lua string.
    let host = String::from_utf8_lossy(unsafe { bytes(host, len) }).into_owned();
    let port = u16::try_from(port).unwrap_or(0);
    with(socket, |s, r| {
        if !s.owner.is(r) {
            if s.socket.borrow().is_some() {
                return Err(Refusal::Foreign);
            }
            let socket: Rc<dyn Owned> = Rc::clone(s) as Rc<dyn Owned>;
            s.owner.claim(r, Rc::downgrade(&socket));
        }
        if s.is_busy.get() {
            return Err(Refusal::Busy);
        }
        s.socket.replace(None);
        if let Some(address) = address_now(&host, port) {
            return Ok(match s.open(&address) {
                Ok(()) => DONE,
                // SAFETY: Lua passes a text of its own.
                Err(text) => unsafe { fail(out, &text) },
            });
        }
        let r = Rc::clone(r);
        let busy = Busy::new(s);
        pending::set(Box::pin(async move {
            match resolve_and_open(&busy.0, &r, &host, port).await {
                Ok(()) => smallvec![Value::Number(1.0)],
                Err(text) => smallvec![Value::Nil, Value::from(text)],
            }
        }));
        Ok(AWAIT)
    })
}

/// An address that needs no resolution.
fn address_now(host: &str, port: u16) -> Option<Address> {
    if let Some(path) = unix_path(host) {
        return Some(Address::Unix(path));
    }
    parse_local(host.as_bytes(), port).map(Address::Ip)
}

async fn resolve_and_open(socket: &Udp, r: &Request, host: &str, port: u16) -> Result<(), String> {
    let all = addresses(r, host, port).await?;
    let mut last = "no address".to_owned();
    for address in all {
        match socket.open(&Address::Ip(address)) {
            Ok(()) => return Ok(()),
            Err(text) => last = text,
        }
    }
    Err(last)
}

extern "C" fn udp_send(socket: *const Udp, data: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let data = unsafe { bytes(data, len) };
    with(socket, |s, r| {
        let datagram = s.usable(r).inspect_err(|e| log_closed(s, r, *e, "send"))?;
        Ok(match datagram.send(data) {
            Ok(n) if n == data.len() => DONE,
            // SAFETY: Lua passes a text of its own.
            Ok(_) => unsafe { fail(out, "partial write") },
            // SAFETY: as above.
            Err(e) => unsafe { fail(out, &reason(&e)) },
        })
    })
}

fn log_closed(s: &Rc<Udp>, r: &Request, refusal: Refusal, verb: &str) {
    if refusal == Refusal::Closed {
        let socket = Rc::as_ptr(s) as usize;
        let text =
            format_args!("attempt to {verb} data on a closed socket: u:{socket:016X}, c:0000000000000000");
        log_socket(r, text);
    }
}

extern "C" fn udp_receive(socket: *const Udp, size: f64) -> c_int {
    let size = whole(size).min(DATAGRAM_BYTES_MAX);
    with(socket, |s, r| {
        let datagram = s.usable(r).inspect_err(|e| log_closed(s, r, *e, "receive"))?;
        let timeout_ms = match s.timeout_ms.get() {
            0 => setting(r, |s| s.socket_read_timeout(), 60_000),
            ms => ms,
        };
        let (busy, r) = (Busy::new(s), Rc::clone(r));
        pending::set(Box::pin(async move {
            let _busy = busy;
            receive(&datagram, size, timeout_ms, &r).await
        }));
        Ok(AWAIT)
    })
}

async fn receive(datagram: &Datagram, size: usize, timeout_ms: u64, r: &Request) -> Values {
    let mut buf = vec![0; size];
    let received = poll_fn(|cx| datagram.poll_receive(cx, &mut buf));
    let error = match terrace_event::timeout(Duration::from_millis(timeout_ms), received).await {
        Ok(Ok(n)) => {
            buf.truncate(n);
            return smallvec![Value::from(buf)];
        }
        Ok(Err(e)) => reason(&e),
        Err(_) => {
            log_socket(r, format_args!("lua udp socket read timed out"));
            "timeout".to_owned()
        }
    };
    smallvec![Value::Nil, Value::from(error)]
}

extern "C" fn udp_close(socket: *const Udp) -> c_int {
    with(socket, |s, r| {
        s.usable(r)?;
        s.socket.replace(None);
        Ok(DONE)
    })
}
