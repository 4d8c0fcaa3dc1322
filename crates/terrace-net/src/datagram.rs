//! A connected datagram socket, UDP or Unix, used through `&self`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{UnixAddr, bind};
use rustix::net::RecvFlags;
use socket2::{Socket, Type};
use terrace_event::Source;

use crate::Address;

/// A datagram socket with one peer.
#[derive(Debug)]
pub struct Datagram(Source<Socket>);

impl Datagram {
    /// A socket that speaks to this address, from a local one where it is given. A Unix socket gets a name of the
    /// system's, so that its peer can answer.
    pub fn connect(address: &Address, local: Option<SocketAddr>) -> io::Result<Datagram> {
        let to = address.to_system()?;
        let socket = Socket::new(to.domain(), Type::DGRAM.nonblocking(), None)?;
        match address {
            Address::Ip(peer) => {
                let any = match peer {
                    SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
                    SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
                };
                socket.bind(&local.unwrap_or(any).into())?;
            }
            Address::Unix(_) => bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?,
        }
        socket.connect(&to)?;
        Ok(Datagram(Source::new(socket)?))
    }

    /// Sends one datagram, which the system takes whole or not at all.
    pub fn send(&self, data: &[u8]) -> io::Result<usize> {
        self.0.io().send(data)
    }

    /// Waits for a datagram; what does not fit `buf` is lost.
    pub fn poll_receive(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_read_ready(cx));
            match self.0.try_read(|s| Ok(rustix::net::recv(s, &mut *buf, RecvFlags::empty())?.0)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                received => return Poll::Ready(received),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::net::UdpSocket;

    use terrace_event::EventLoop;

    use super::*;

    #[test]
    fn datagrams_there_and_back() {
        EventLoop::new(|_| {}).unwrap().block_on(async {
            let server = UdpSocket::bind("127.0.0.1:0").unwrap();
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
