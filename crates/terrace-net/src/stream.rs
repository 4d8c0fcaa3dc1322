//! A connected byte stream, TCP or Unix, used through `&self`.

use std::io;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendFlags};
use socket2::{SockRef, Socket};
use terrace_event::Source;

use crate::Address;
use crate::tls::TlsStream;

/// A connected stream. One task at a time may wait for each direction.
#[derive(Debug)]
pub enum Stream {
    /// TCP or Unix.
    Plain(Source<Socket>),
    /// TLS over it.
    Tls(Box<TlsStream>),
}

impl Stream {
    /// Registers a connected socket, which must not block, with the thread's event loop.
    pub fn new(socket: Socket) -> io::Result<Stream> {
        Ok(Stream::Plain(Source::new(socket)?))
    }

    /// Ready once a read may make progress.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(s) => s.poll_read_ready(cx).map(Ok),
            Stream::Tls(t) => t.poll_read_ready(cx),
        }
    }

    /// Ready once a write may make progress.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(s) => s.poll_write_ready(cx).map(Ok),
            Stream::Tls(t) => t.poll_write_ready(cx),
        }
    }

    /// Reads what is there; 0 at end of stream, `WouldBlock` when nothing is there.
    ///
    /// A short read has emptied the socket (the poller is edge triggered), so the next wait sleeps at once instead of
    /// asking the kernel again.
    pub fn try_read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let source = match self {
            Stream::Plain(s) => s,
            Stream::Tls(t) => return t.try_read(buf),
        };
        // The system call itself: the C library's is a cancellation point, which costs in a process with threads.
        let n = source.try_read(|s| Ok(rustix::net::recv(s, &mut *buf, RecvFlags::empty())?.1))?;
        if n > 0 && n < buf.len() {
            source.clear_read();
        }
        Ok(n)
    }

    /// Writes what fits; `WouldBlock` when nothing does.
    pub fn try_write(&self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(s) => s.try_write(|s| Ok(rustix::net::send(s, buf, SendFlags::NOSIGNAL)?)),
            Stream::Tls(t) => t.try_write(buf),
        }
    }

    /// Writes what fits of several buffers.
    pub fn try_write_vectored(&self, bufs: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Plain(s) => s.try_write(|s| Ok(rustix::io::writev(s, bufs)?)),
            Stream::Tls(t) => t.try_write_vectored(bufs),
        }
    }

    /// Reads into `buf`, waiting for data.
    pub fn poll_read(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            match self.try_read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Writes some of `buf`, waiting for room.
    pub fn poll_write(&self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_write_ready(cx))?;
            match self.try_write(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Reads into `buf`, waiting for data; 0 at end of stream.
    pub async fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read(cx, buf)).await
    }

    /// Writes all of `buf`.
    pub async fn write_all(&self, mut buf: &[u8]) -> io::Result<()> {
        while !buf.is_empty() {
            let n = std::future::poll_fn(|cx| self.poll_write(cx, buf)).await?;
            buf = &buf[n..];
        }
        Ok(())
    }

    /// Whether the peer has closed (or reset) while no bytes wait: for idle connections out of a pool and for
    /// clients that leave in the middle of a request. Makes one system call.
    pub fn is_closed_by_peer(&self) -> bool {
        if let Stream::Tls(t) = self {
            return t.look().1;
        }
        match self.peek() {
            Ok(seen) => seen == Some(None),
            Err(_) => true,
        }
    }

    /// Whether anything, data or an end, waits to be read. An idle connection out of a pool must have none.
    pub fn is_readable_now(&self) -> bool {
        if let Stream::Tls(t) = self {
            let (has_bytes, has_ended) = t.look();
            return has_bytes || has_ended;
        }
        !matches!(self.peek(), Ok(None))
    }

    /// The socket's next byte, which stays: `None` when nothing is there, `Some(None)` at the end of the stream.
    pub(crate) fn peek(&self) -> io::Result<Option<Option<u8>>> {
        let mut byte = [0];
        // A slice is not read before it is written.
        let socket = self.socket();
        match rustix::net::recv(&*socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, 0)) => Ok(Some(None)),
            Ok(_) => Ok(Some(Some(byte[0]))),
            Err(e) if e == rustix::io::Errno::AGAIN => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// Lets the next wait for bytes sleep, after a look has found none.
    pub(crate) fn forget_readiness(&self) {
        match self {
            Stream::Plain(s) => s.clear_read(),
            Stream::Tls(t) => t.below().forget_readiness(),
        }
    }

    /// Sends a FIN, with TLS after a farewell; reading goes on.
    pub fn shutdown_write(&self) -> io::Result<()> {
        if let Stream::Tls(t) = self {
            t.say_farewell();
        }
        self.socket().shutdown(std::net::Shutdown::Write)
    }

    /// The socket, for options.
    pub fn socket(&self) -> SockRef<'_> {
        match self {
            Stream::Plain(s) => SockRef::from(s.io()),
            Stream::Tls(t) => t.below().socket(),
        }
    }

    /// The stream's TLS, if it has any.
    pub fn tls(&self) -> Option<&TlsStream> {
        match self {
            Stream::Tls(t) => Some(t),
            Stream::Plain(_) => None,
        }
    }

    /// Whether TLS is spoken.
    pub fn is_encrypted(&self) -> bool {
        self.tls().is_some_and(TlsStream::is_open)
    }

    /// The same socket, to speak TLS.
    pub fn with_tls(self) -> Stream {
        Stream::Tls(Box::new(TlsStream::new(self)))
    }

    /// The local address.
    pub fn local_address(&self) -> io::Result<Address> {
        Ok(Address::of(&self.socket().local_addr()?))
    }

    /// Takes the stream off this thread's event loop, to hand it to another worker. A stream with TLS stays where it is.
    pub fn detach(self) -> io::Result<Detached> {
        match self {
            Stream::Plain(s) => Ok(Detached(s.into_inner()?)),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// A stream that belongs to no event loop for the moment.
#[derive(Debug)]
pub struct Detached(Socket);

impl Detached {
    /// Registers it with the thread's event loop.
    pub fn attach(self) -> io::Result<Stream> {
        Stream::new(self.0)
    }
}
