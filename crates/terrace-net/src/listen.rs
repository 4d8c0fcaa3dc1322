//! Listening sockets. Each worker has its own socket per address (`SO_REUSEPORT`), so that the kernel spreads
//! connections and no worker wakes for another's. The sockets outlive reloads: a new generation takes over the
//! same sockets, so that no connection in an accept queue is lost.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::task::{Poll, ready};

use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use terrace_event::Source;

use crate::{Address, Stream};

/// Options of nginx's `listen` directive that reach the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenOptions {
    /// `backlog=`, default 511.
    pub backlog: i32,
    /// `rcvbuf=` in bytes.
    pub receive_buffer_bytes: Option<usize>,
    /// `sndbuf=` in bytes.
    pub send_buffer_bytes: Option<usize>,
    /// `ipv6only=`, default on.
    pub ipv6_only: bool,
    /// `so_keepalive=on`.
    pub keepalive: bool,
}

impl Default for ListenOptions {
    fn default() -> Self {
        ListenOptions {
            backlog: 511,
            receive_buffer_bytes: None,
            send_buffer_bytes: None,
            ipv6_only: true,
            keepalive: false,
        }
    }
}

/// One listening socket; clones share it.
#[derive(Debug, Clone)]
pub struct Listener {
    socket: Arc<Socket>,
    address: Address,
}

impl Listener {
    /// Binds and listens. Errors are those of `bind(2)` and `listen(2)`.
    ///
    /// A Unix socket file that nobody listens on any more (left by a crash) is removed and bound anew.
    pub fn bind(address: &Address, options: &ListenOptions) -> io::Result<Listener> {
        let socket = match address {
            Address::Ip(ip) => {
                let domain = if ip.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
                let s = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
                s.set_reuse_address(true)?;
                s.set_reuse_port(true)?;
                if ip.is_ipv6() {
                    s.set_only_v6(options.ipv6_only)?;
                }
                set_options(&s, options)?;
                s.bind(&SockAddr::from(*ip))?;
                s
            }
            Address::Unix(path) => {
                if std::os::unix::net::UnixStream::connect(path)
                    .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
                {
                    std::fs::remove_file(path)?;
                }
                let s = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                set_options(&s, options)?;
                s.bind(&SockAddr::unix(path)?)?;
                // Everybody may connect, as with nginx; the directory's mode says who may not.
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
                s
            }
        };
        socket.set_nonblocking(true)?;
        socket.listen(options.backlog)?;
        Ok(Listener { socket: Arc::new(socket), address: address.clone() })
    }

    /// Takes over a socket that already listens (inherited from a parent process).
    pub fn from_fd(fd: OwnedFd, address: Address) -> io::Result<Listener> {
        let socket = Socket::from(fd);
        socket.set_nonblocking(true)?;
        Ok(Listener { socket: Arc::new(socket), address })
    }

    /// The address it was configured with.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The socket, for handing to a child process.
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Registers the socket with the thread's event loop and returns the accepting half.
    pub fn acceptor(&self) -> io::Result<Acceptor> {
        Ok(Acceptor(Source::new(Arc::clone(&self.socket))?))
    }
}

/// A listener registered with one worker's event loop.
#[derive(Debug)]
pub struct Acceptor(Source<Arc<Socket>>);

impl Acceptor {
    /// The next connection and its peer.
    pub async fn accept(&self) -> io::Result<(Stream, Address)> {
        poll_fn(|cx| {
            loop {
                ready!(self.0.poll_read_ready(cx));
                match self.0.try_read(|s| Ok(acceptfrom_with(s, ACCEPTED)?)) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    accepted => return Poll::Ready(accepted.and_then(prepare)),
                }
            }
        })
        .await
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // The socket lives on in other workers. One that cannot be taken off was not there.
        let _ = self.0.unregister();
    }
}

/// How accepted sockets are made, in the one call that makes them.
const ACCEPTED: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

fn prepare((socket, peer): (OwnedFd, Option<SocketAddrAny>)) -> io::Result<(Stream, Address)> {
    let socket = Socket::from(socket);
    let peer = match peer.map(SocketAddr::try_from) {
        Some(Ok(ip)) => {
            socket.set_tcp_nodelay(true)?;
            Address::Ip(ip)
        }
        // A Unix socket's, which may have no name.
        _ => Address::of(&socket.peer_addr()?),
    };
    Ok((Stream::new(socket)?, peer))
}

fn set_options(s: &Socket, options: &ListenOptions) -> io::Result<()> {
    if let Some(n) = options.receive_buffer_bytes {
        s.set_recv_buffer_size(n)?;
    }
    if let Some(n) = options.send_buffer_bytes {
        s.set_send_buffer_size(n)?;
    }
    if options.keepalive {
        s.set_keepalive(true)?;
    }
    Ok(())
}
