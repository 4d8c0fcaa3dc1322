//! `sslhandshake`: TLS over a connection that is open.

use std::ffi::c_int;
use std::rc::Rc;
use std::time::Duration;

use smallvec::smallvec;
use terrace_base::log::Level;
use terrace_http::Request;
use terrace_lua::{Value, Values, pending};
use terrace_net::Stream;
use terrace_net::tls::{ClientTls, HandshakeError, Identity, Session, Verdict};

use super::conn::{Conn, reason};
use super::tcp::{Busy, Refusal, Tcp, Use, log_socket, setting};
use super::transport::Transport;
use super::{shared, with};
use crate::ffi::ssl::{Certificates, Key};
use crate::ffi::{AWAIT, DONE, FAILED, NOT_FOUND, Text, bytes, fail};
use crate::settings::LuaTls;

/// What a script says of one handshake.
#[repr(C)]
pub struct Wishes {
    /// The name to send and to check; null for none.
    name: *const u8,
    name_len: usize,
    /// Whether the server's certificate is checked.
    verifies: c_int,
    /// Whether the session is kept for the script.
    keeps_session: c_int,
    /// A session to take up again, or null.
    session: *const Session,
    /// The certificates and the key to show, or null.
    certificates: *const Certificates,
    key: *const Key,
    /// The authorities to trust instead of the configured ones, or null.
    trusted: *const Certificates,
}

/// As [`Wishes`], in C.
pub const DECLARATION: &str = "
typedef struct { const char *name; size_t name_len; int verifies; int keeps_session; struct terrace_session *session;
    struct terrace_certs *certificates; struct terrace_key *key; struct terrace_certs *trusted; } terrace_tls_wishes;
";

/// Makes a handshake. `DONE` says that TLS is spoken already.
pub extern "C" fn tcp_handshake(socket: *const Tcp, wishes: *const Wishes, out: *mut Text) -> c_int {
    with(socket, |s, r| {
        let conn = s.usable(r, Use::Whole)?;
        let Transport::Peer(stream) = &conn.stream else { return Err(Refusal::Foreign) };
        if stream.is_encrypted() {
            return Ok(DONE);
        }
        drop(conn);
        // SAFETY: Lua passes wishes of its own, whose pointers are null or to objects that it keeps during the call.
        let attempt = unsafe { Attempt::new(s, r, &*wishes) };
        let attempt = match attempt {
            Ok(attempt) => attempt,
            // SAFETY: Lua passes a text of its own.
            Err(text) => return Ok(unsafe { fail(out, &text) }),
        };
        let conn = s.close().map(Rc::try_unwrap);
        let Some(Ok(conn)) = conn else { return Err(Refusal::Busy) };
        pending::set(Box::pin(attempt.run(conn)));
        Ok(AWAIT)
    })
}

/// The connection's session, or null where none is kept.
pub extern "C" fn tcp_session(socket: *const Tcp) -> *const Session {
    let conn = shared(socket).and_then(|s| s.conn());
    let session = conn.and_then(|c| c.session.borrow().clone());
    session.map_or(std::ptr::null(), |s| Box::into_raw(Box::new(s)))
}

/// Whether TLS is spoken: `DONE`, `NOT_FOUND`, or `FAILED` where there is no connection.
pub extern "C" fn tcp_is_tls(socket: *const Tcp) -> c_int {
    match shared(socket).and_then(|s| s.conn()) {
        None => FAILED,
        Some(c) if matches!(&c.stream, Transport::Peer(s) if s.is_encrypted()) => DONE,
        Some(_) => NOT_FOUND,
    }
}

pub extern "C" fn tls_session_free(session: *mut Session) {
    if !session.is_null() {
        // SAFETY: a pointer that `tcp_session` gave; Lua's collector passes it here once.
        drop(unsafe { Box::from_raw(session) });
    }
}

struct Attempt {
    r: Rc<Request>,
    busy: Busy,
    client: ClientTls,
    name: Option<String>,
    session: Option<Session>,
    timeout_ms: u64,
}

impl Attempt {
    /// # Safety
    /// The pointers of `w` must be null or to what they say.
    unsafe fn new(s: &Rc<Tcp>, r: &Rc<Request>, w: &Wishes) -> Result<Attempt, String> {
        // SAFETY: the caller's promise.
        let (certificates, key, trusted, session) =
            unsafe { (w.certificates.as_ref(), w.key.as_ref(), w.trusted.as_ref(), w.session.as_ref()) };
        // SAFETY: a Lua string, or null.
        let name = (!w.name.is_null()).then(|| unsafe { bytes(w.name, w.name_len) });
        let name = name.map(|n| String::from_utf8_lossy(n).into_owned()).filter(|n| !n.is_empty());
        if let Some(name) = &name {
            r.log(Level::Debug, format_args!("lua ssl server name: \"{name}\""));
        }
        let mut client = match trusted.filter(|_| w.verifies != 0) {
            Some(trusted) => LuaTls::trusting(r, &trusted.0)?,
            None => LuaTls::client(r, w.verifies != 0)?,
        };
        if let (Some(certificates), Some(key)) = (certificates, key) {
            let identity = Identity::new(certificates.0.clone(), key.0.clone())
                .map_err(|_| "ssl set client certificate failed".to_owned())?;
            client = client.with_identity(&identity);
        }
        let session = (w.keeps_session != 0).then(|| session.cloned().unwrap_or_default());
        let timeout_ms =
            s.connect_timeout_ms.get().unwrap_or_else(|| setting(r, |s| s.socket_connect_timeout(), 60_000));
        Ok(Attempt { r: Rc::clone(r), busy: s.hold_connecting(), client, name, session, timeout_ms })
    }

    async fn run(self, conn: Conn) -> Values {
        match self.shake(conn).await {
            Ok(conn) => {
                self.busy.socket().open(Rc::new(conn));
                smallvec![Value::Bool(true)]
            }
            Err(text) => smallvec![Value::Nil, Value::from(text)],
        }
    }

    async fn shake(&self, conn: Conn) -> Result<Conn, String> {
        let Conn { stream, lease, reused, .. } = conn;
        let Transport::Peer(stream) = stream else { return Err("closed".to_owned()) };
        let stream = Stream::with_tls(stream);
        if let Some(tls) = stream.tls() {
            let name = self.name.as_deref();
            let shaking = tls.connect(&self.client, name, name.is_some(), self.session.as_ref());
            match terrace_event::timeout(Duration::from_millis(self.timeout_ms), shaking).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => return Err(self.failure(&e)),
                Err(_) => return Err("timeout".to_owned()),
            }
        }
        let conn = Conn::new(Transport::Peer(stream), lease.into_inner());
        conn.reused.set(reused.get());
        conn.session.replace(self.session.clone());
        Ok(conn)
    }

    /// OpenResty's words for a failed handshake; the log has more.
    fn failure(&self, e: &HandshakeError) -> String {
        match e {
            HandshakeError::Certificate(v) if *v == Verdict::HOST_MISMATCH => {
                let name = self.name.as_deref().unwrap_or_default();
                log_socket(&self.r, format_args!("lua ssl certificate does not match host \"{name}\""));
                "certificate host mismatch".to_owned()
            }
            HandshakeError::Certificate(v) => {
                let (code, text) = (v.code, v.text);
                log_socket(&self.r, format_args!("lua ssl certificate verify error: ({code}: {text})"));
                v.to_string()
            }
            HandshakeError::Closed => {
                log_socket(&self.r, format_args!("peer closed connection in SSL handshake"));
                "handshake failed".to_owned()
            }
            HandshakeError::Io(e) => {
                log_socket(&self.r, format_args!("SSL_do_handshake() failed: {}", reason(e)));
                "handshake failed".to_owned()
            }
            HandshakeError::Refused(why) => {
                log_socket(&self.r, format_args!("SSL_do_handshake() failed (SSL: {why})"));
                "handshake failed".to_owned()
            }
            HandshakeError::Tls(e) => {
                log_socket(&self.r, format_args!("SSL_do_handshake() failed (SSL: {e})"));
                "handshake failed".to_owned()
            }
        }
    }
}
