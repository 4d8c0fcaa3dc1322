//! A stream that speaks TLS over a socket, used through `&self` as a plain one is.
//!
//! It begins undecided: a server reads the client's first message before it knows its own side, and may find that the
//! client speaks no TLS at all. What a write has taken but the socket has not is written before anything else; until
//! then the write has not happened for its caller, who repeats it with the same bytes (as with OpenSSL).

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::pki_types::CertificateDer;
use rustls::server::Acceptor;
use rustls::{Connection, HandshakeKind, ProtocolVersion};

use super::client::{Choice, ClientTls, Session};
use super::hello::{self, Answer, Hello, Offered};
use super::server::ServerTls;
use super::{HandshakeError, Identity, cipher_name, curve_name};
use crate::Stream;

/// The most that one write takes, bytes: what is encrypted ahead of the socket.
const WRITE_BYTES_MAX: usize = 64 * 1024;
/// The most that is read of a server's answer before it is taken as it is, bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The first byte of a record that carries a handshake.
const HANDSHAKE: u8 = 22;

/// A stream with TLS.
#[derive(Debug)]
pub struct TlsStream {
    socket: Stream,
    state: RefCell<State>,
    /// Decrypted bytes that nobody has read.
    plain: Cell<usize>,
    /// The peer sends nothing more.
    ended: Cell<bool>,
    /// Bytes that a write has taken and its caller does not know of.
    taken: Cell<usize>,
    offered: OnceCell<Offered>,
}

#[derive(Debug)]
enum State {
    Undecided,
    Plain,
    Open(Box<Connection>),
}

/// A handshake with a server whose answer is there.
#[derive(Debug)]
pub struct Begun {
    connection: Connection,
    choice: Arc<Choice>,
    /// What the server has sent.
    records: Vec<u8>,
    version: Option<&'static str>,
}

impl Begun {
    /// The version that the server has chosen: `TLSv1.3`. None where its answer is none.
    pub fn version(&self) -> Option<&'static str> {
        self.version
    }
}

/// Why a client's first message is not answered: the numbers of alerts (RFC 8446 section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is nothing to show.
    HandshakeFailure = 40,
    /// The server failed.
    InternalError = 80,
    /// Its name is not served (RFC 6066 section 3).
    UnrecognizedName = 112,
}

/// The socket as rustls wants it.
struct Io<'a>(&'a Stream);

impl Read for Io<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }
}

impl Write for Io<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.try_write(buf)
    }

    fn write_vectored(&mut self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps a copy of what is read.
struct Tee<'a>(Io<'a>, &'a mut Vec<u8>);

impl Read for Tee<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buf)?;
        self.1.extend_from_slice(&buf[..n]);
        Ok(n)
    }
}

fn is_blocked(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::WouldBlock
}

impl TlsStream {
    /// Over a socket, undecided yet.
    pub fn new(socket: Stream) -> TlsStream {
        TlsStream {
            socket,
            state: RefCell::new(State::Undecided),
            plain: Cell::new(0),
            ended: Cell::new(false),
            taken: Cell::new(0),
            offered: OnceCell::new(),
        }
    }

    /// The socket below.
    pub(crate) fn below(&self) -> &Stream {
        &self.socket
    }

    /// Whether the peer's first byte begins a handshake; waits for that byte, which stays. An end counts as none.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn begins_handshake(&self) -> io::Result<Option<bool>> {
        poll_fn(|cx| {
            loop {
                ready!(self.socket.poll_read_ready(cx))?;
                match self.socket.peek()? {
                    Some(None) => return Poll::Ready(Ok(None)),
                    // A hello of SSLv2 has its highest bit set.
                    Some(Some(byte)) => return Poll::Ready(Ok(Some(byte == HANDSHAKE || byte & 0x80 != 0))),
                    None => self.socket.forget_readiness(),
                }
            }
        })
        .await
    }

    /// The peer speaks no TLS: bytes go as they are.
    pub fn stay_plain(&self) {
        self.state.replace(State::Plain);
    }

    /// Whether TLS is spoken.
    pub fn is_open(&self) -> bool {
        matches!(&*self.state.borrow(), State::Open(_))
    }

    /// Reads the client's first message.
    ///
    /// # Errors
    /// What is wrong with it; the client has been told.
    pub async fn hello(&self) -> Result<Hello, HandshakeError> {
        let mut acceptor = Acceptor::default();
        let mut raw = Vec::new();
        let accepted = poll_fn(|cx| {
            loop {
                match acceptor.read_tls(&mut Tee(Io(&self.socket), &mut raw)) {
                    Ok(0) => return Poll::Ready(Err(HandshakeError::Closed)),
                    Ok(_) => {}
                    Err(e) if is_blocked(&e) => {
                        ready!(self.socket.poll_read_ready(cx))?;
                        continue;
                    }
                    Err(e) => return Poll::Ready(Err(e.into())),
                }
                match acceptor.accept() {
                    Ok(Some(accepted)) => return Poll::Ready(Ok(accepted)),
                    Ok(None) => {}
                    Err((e, mut alert)) => {
                        // The connection ends whether the client hears why or not.
                        let _ = alert.write_all(&mut Io(&self.socket));
                        return Poll::Ready(Err(e.into()));
                    }
                }
            }
        })
        .await?;
        let hello = Hello::new(accepted, raw);
        // Set once in a stream's life.
        let _ = self.offered.set(hello.offered());
        Ok(hello)
    }

    /// Answers a client's first message and ends the handshake.
    ///
    /// # Errors
    /// Why there is none; the client has been told.
    pub async fn accept(&self, hello: Hello, tls: &ServerTls) -> Result<(), HandshakeError> {
        match hello.accepted.into_connection(Arc::clone(&tls.config)) {
            Ok(connection) => self.shake(Connection::Server(connection)).await,
            Err((e, mut alert)) => {
                // As above.
                let _ = alert.write_all(&mut Io(&self.socket));
                Err(e.into())
            }
        }
    }

    /// Ends a handshake that has not been answered.
    pub fn refuse(&self, why: Refusal) {
        let record = [21, 3, 3, 0, 2, 2, why as u8];
        // The connection ends whether the client hears why or not.
        let _ = self.socket.try_write(&record);
    }

    /// Makes a handshake with a server.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn connect(
        &self,
        tls: &ClientTls,
        host: Option<&str>,
        sends_name: bool,
        session: Option<&Session>,
    ) -> Result<(), HandshakeError> {
        let connection = tls.connection(host, sends_name, session)?;
        self.shake(Connection::Client(connection)).await
    }

    /// Begins a handshake with a server, up to its answer. The client's certificate may be chosen then.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn begin(
        &self,
        tls: &ClientTls,
        host: Option<&str>,
        sends_name: bool,
    ) -> Result<Begun, HandshakeError> {
        let (tls, choice) = tls.choosing();
        let mut connection = Connection::Client(tls.connection(host, sends_name, None)?);
        let (mut records, mut answer) = (Vec::new(), Answer::Partial);
        poll_fn(|cx| {
            while !self.write_out(&mut connection)? {
                ready!(self.socket.poll_write_ready(cx))?;
            }
            while answer == Answer::Partial && records.len() < ANSWER_BYTES_MAX {
                let mut buf = [0; 4096];
                match self.socket.try_read(&mut buf) {
                    Ok(0) => return Poll::Ready(Err(HandshakeError::Closed)),
                    Ok(n) => records.extend_from_slice(&buf[..n]),
                    Err(e) if is_blocked(&e) => {
                        ready!(self.socket.poll_read_ready(cx))?;
                        continue;
                    }
                    Err(e) => return Poll::Ready(Err(e.into())),
                }
                answer = hello::answer(&records);
            }
            Poll::Ready(Ok(()))
        })
        .await?;
        let version = if let Answer::Version(version) = answer { Some(version) } else { None };
        Ok(Begun { connection, choice, records, version })
    }

    /// Ends a handshake that was begun, with another certificate than the configured one where one is given; inner `None`
    /// shows none.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn finish(
        &self,
        begun: Begun,
        identity: Option<Option<Identity>>,
    ) -> Result<(), HandshakeError> {
        let Begun { mut connection, choice, records, .. } = begun;
        if let Some(identity) = identity {
            choice.choose(identity);
        }
        let mut rest = &records[..];
        while !rest.is_empty() && connection.read_tls(&mut rest)? > 0 {
            self.process(&mut connection)?;
        }
        self.shake(connection).await
    }

    async fn shake(&self, connection: Connection) -> Result<(), HandshakeError> {
        self.state.replace(State::Open(Box::new(connection)));
        poll_fn(|cx| {
            loop {
                let blocked = {
                    let mut state = self.state.borrow_mut();
                    let State::Open(c) = &mut *state else { return Poll::Ready(Ok(())) };
                    let blocked = !self.write_out(c)?;
                    if !c.is_handshaking() {
                        return Poll::Ready(Ok(()));
                    }
                    if !blocked {
                        match c.read_tls(&mut Io(&self.socket)) {
                            Ok(0) => return Poll::Ready(Err(HandshakeError::Closed)),
                            Ok(_) => {
                                self.process(c)?;
                                continue;
                            }
                            Err(e) if is_blocked(&e) => {}
                            Err(e) => return Poll::Ready(Err(e.into())),
                        }
                    }
                    blocked
                };
                if blocked {
                    ready!(self.socket.poll_write_ready(cx))?;
                } else {
                    ready!(self.socket.poll_read_ready(cx))?;
                }
            }
        })
        .await
    }

    /// Writes records that wait. True when none is left.
    fn write_out(&self, c: &mut Connection) -> io::Result<bool> {
        while c.wants_write() {
            match c.write_tls(&mut Io(&self.socket)) {
                Ok(_) => {}
                Err(e) if is_blocked(&e) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Decrypts what was read.
    fn process(&self, c: &mut Connection) -> Result<(), rustls::Error> {
        match c.process_new_packets() {
            Ok(state) => {
                self.plain.set(state.plaintext_bytes_to_read());
                if state.peer_has_closed() {
                    self.ended.set(true);
                }
                Ok(())
            }
            Err(e) => {
                // The peer is told why, if it listens.
                let _ = self.write_out(c);
                Err(e)
            }
        }
    }

    /// Reads records until bytes are decrypted or the stream ends; `WouldBlock` when neither is there.
    fn fill(&self, c: &mut Connection) -> io::Result<()> {
        while self.plain.get() == 0 && !self.ended.get() {
            if c.read_tls(&mut Io(&self.socket))? == 0 {
                self.ended.set(true);
            }
            self.process(c).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            // An answer to a change of keys; what the socket does not take goes with the next write.
            self.write_out(c)?;
        }
        Ok(())
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.plain.get() > 0 || self.ended.get() {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.socket.poll_read_ready(cx))?;
            // Records that carry nothing to read, such as a server's tickets, do not end the wait.
            match &mut *self.state.borrow_mut() {
                State::Open(c) => match self.fill(c) {
                    Err(e) if is_blocked(&e) => {}
                    // The read to come meets a failure again.
                    _ => return Poll::Ready(Ok(())),
                },
                _ => return Poll::Ready(Ok(())),
            }
        }
    }

    pub(crate) fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let State::Open(c) = &mut *state else { return self.socket.try_read(buf) };
        if buf.is_empty() {
            return Ok(0);
        }
        self.fill(c)?;
        match c.reader().read(buf) {
            Ok(n) => {
                self.plain.set(self.plain.get().saturating_sub(n));
                Ok(n)
            }
            // An end without a farewell is an end.
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(e) => Err(e),
        }
    }

    pub(crate) fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[io::IoSlice::new(buf)])
    }

    pub(crate) fn try_write_vectored(&self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state.borrow_mut();
        let State::Open(c) = &mut *state else { return self.socket.try_write_vectored(bufs) };
        if !self.write_out(c)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.taken.get() == 0 {
            let mut left = WRITE_BYTES_MAX;
            for buf in bufs {
                let part = &buf[..buf.len().min(left)];
                let n = c.writer().write(part)?;
                self.taken.set(self.taken.get() + n);
                left -= n;
                if n < buf.len() {
                    break;
                }
            }
            if !self.write_out(c)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        let offered = bufs.iter().map(|b| b.len()).sum();
        Ok(self.taken.replace(0).min(offered))
    }

    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    /// Looks at what has come without taking it: whether there are bytes, and whether the peer has ended.
    pub(crate) fn look(&self) -> (bool, bool) {
        let mut state = self.state.borrow_mut();
        if let State::Open(c) = &mut *state {
            return match self.fill(c) {
                Err(e) if is_blocked(&e) => (false, false),
                Err(_) => (false, true),
                Ok(()) => (self.plain.get() > 0, self.plain.get() == 0 && self.ended.get()),
            };
        }
        (self.socket.is_readable_now(), self.socket.is_closed_by_peer())
    }

    /// Says farewell, as far as the socket takes it.
    pub(crate) fn say_farewell(&self) {
        if let State::Open(c) = &mut *self.state.borrow_mut()
            && !c.is_handshaking()
        {
            c.send_close_notify();
            // A peer that takes nothing does not hear it.
            let _ = self.write_out(c);
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Connection) -> Option<T>) -> Option<T> {
        match &mut *self.state.borrow_mut() {
            State::Open(c) => f(c),
            _ => None,
        }
    }

    /// `TLSv1.3`.
    pub fn protocol(&self) -> Option<&'static str> {
        self.with(|c| match c.protocol_version()? {
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => None,
        })
    }

    /// OpenSSL's name of the cipher.
    pub fn cipher(&self) -> Option<String> {
        self.with(|c| c.negotiated_cipher_suite().map(|s| cipher_name(s.suite())))
    }

    /// The curve of the key exchange.
    pub fn curve(&self) -> Option<String> {
        self.with(|c| c.negotiated_key_exchange_group().map(|g| curve_name(g.name())))
    }

    /// The ciphers that the client offered, with colons between.
    pub fn offered_ciphers(&self) -> Option<String> {
        self.offered.get().map(Offered::ciphers)
    }

    /// The curves that the client offered, with colons between.
    pub fn offered_curves(&self) -> Option<String> {
        self.offered.get().map(Offered::curves)
    }

    /// The name that the client asked for.
    pub fn server_name(&self) -> Option<String> {
        self.offered.get()?.server_name.clone()
    }

    /// The client's random bytes.
    pub fn client_random(&self) -> Option<&[u8]> {
        self.offered.get().map(|o| &o.random[..])
    }

    /// The protocol that was agreed on by ALPN.
    pub fn alpn(&self) -> Option<Vec<u8>> {
        self.with(|c| c.alpn_protocol().map(<[u8]>::to_vec))
    }

    /// Whether an earlier session was taken up.
    pub fn is_resumed(&self) -> bool {
        self.with(|c| c.handshake_kind()).is_some_and(|k| k == HandshakeKind::Resumed)
    }

    /// The peer's certificate and its chain.
    pub fn peer_certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        self.with(|c| c.peer_certificates().map(<[_]>::to_vec))
    }

    /// Keying material (RFC 5705).
    ///
    /// # Errors
    /// When the handshake is not over.
    pub fn export_keying_material(
        &self,
        len: usize,
        label: &[u8],
        context: Option<&[u8]>,
    ) -> Result<Vec<u8>, rustls::Error> {
        self.with(|c| Some(c.export_keying_material(vec![0; len], label, context)))
            .unwrap_or(Err(rustls::Error::HandshakeNotComplete))
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        self.say_farewell();
    }
}
