//! Listening sockets. Each worker has its own socket per address (`SO_REUSEPORT`), so that the kernel spreads
//! connections and no worker wakes for another's. The sockets outlive reloads: a new generation takes over the
//! same sockets, so that no connection in an accept queue is lost.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

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

    /// Registers the socket with the current thread's runtime and returns the accepting half.
    pub fn acceptor(&self) -> io::Result<Acceptor> {
        let socket = self.socket.try_clone()?;
        Ok(match self.address {
            Address::Ip(_) => Acceptor::Tcp(TcpListener::from_std(socket.into())?),
            Address::Unix(_) => Acceptor::Unix(UnixListener::from_std(socket.into())?),
        })
    }
}

/// A listener registered with one worker's runtime.
#[derive(Debug)]
pub enum Acceptor {
    /// TCP.
    Tcp(TcpListener),
    /// Unix stream.
    Unix(UnixListener),
}

impl Acceptor {
    /// The next connection and its peer.
    pub async fn accept(&self) -> io::Result<(Stream, Address)> {
        match self {
            Acceptor::Tcp(l) => {
                let (s, peer) = l.accept().await?;
                s.set_nodelay(true)?;
                Ok((Stream::Tcp(s), Address::Ip(peer)))
            }
            Acceptor::Unix(l) => {
                let (s, peer) = l.accept().await?;
                let path = peer.as_pathname().map(Into::into).unwrap_or_default();
                Ok((Stream::Unix(s), Address::Unix(path)))
            }
        }
    }
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
