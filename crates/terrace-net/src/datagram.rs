//! A connected datagram socket, UDP or Unix, used through `&self`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdp};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixDatagram as StdUnix;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{UnixAddr, bind};
use socket2::SockRef;
use tokio::io::ReadBuf;
use tokio::net::{UdpSocket, UnixDatagram};

use crate::Address;

/// A datagram socket with one peer.
#[derive(Debug)]
pub enum Datagram {
    /// UDP.
    Udp(UdpSocket),
    /// Unix datagram.
    Unix(UnixDatagram),
}

impl Datagram {
    /// A socket that speaks to this address, from a local one where it is given. A Unix socket gets a name of the
    /// system's, so that its peer can answer.
    pub fn connect(address: &Address, local: Option<SocketAddr>) -> io::Result<Datagram> {
        Ok(match address {
            Address::Ip(peer) => {
                let any = match peer {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                let socket = StdUdp::bind(local.unwrap_or(any))?;
                socket.connect(peer)?;
                socket.set_nonblocking(true)?;
                Datagram::Udp(UdpSocket::from_std(socket)?)
            }
            Address::Unix(path) => {
                let socket = StdUnix::unbound()?;
                bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
                socket.connect(path)?;
                socket.set_nonblocking(true)?;
                Datagram::Unix(UnixDatagram::from_std(socket)?)
            }
        })
    }

    /// Sends one datagram, which the system takes whole or not at all.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        match self {
            Datagram::Udp(s) => SockRef::from(s).send(data),
            Datagram::Unix(s) => SockRef::from(s).send(data),
        }
    }

    /// Waits for a datagram; what does not fit `buf` is lost.
    pub fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        ready!(match self {
            Datagram::Udp(s) => s.poll_recv(cx, &mut buf),
            Datagram::Unix(s) => s.poll_recv(cx, &mut buf),
        })?;
        Poll::Ready(Ok(buf.filled().len()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[test]
    fn datagrams_there_and_back() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = StdUdp::bind("127.0.0.1:0").unwrap();
            let local = SocketAddr::from(([127, 0, 0, 5], 0));
            let client = Datagram::connect(&server.local_addr().unwrap().into(), Some(local)).unwrap();
            assert_eq!(client.send(b"ping").unwrap(), 4);
            let mut buf = [0; 16];
            let (n, peer) = server.recv_from(&mut buf).unwrap();
            assert_eq!((&buf[..n], peer.ip()), (&b"ping"[..], local.ip()));
            server.send_to(b"pong, and more than fits", peer).unwrap();
            let n = poll_fn(|cx| client.poll_receive(cx, &mut buf)).await.unwrap();
            assert_eq!(&buf[..n], b"pong, and more t");
        });
    }
}
