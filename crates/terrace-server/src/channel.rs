//! The channel between the master and the serving process: a `SOCK_SEQPACKET` pair, one short text a message.
//!
//! The serving process asks, and the master answers each `bind` with `ok` and the socket, or `error` and the
//! system's number. `release` and `ready` have no answer. Its end tells each side that the other is gone.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use terrace_net::{Address, ListenOptions, Listener};
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::message::{Answer, Request};

/// The longest message: an address is at most a path of 108 bytes.
const MESSAGE_BYTES_MAX: usize = 512;

/// One end. The stream type only lends its readiness: messages keep their bounds.
pub struct Channel(UnixStream);

/// Both ends; they block until they become a [`Channel`].
///
/// # Errors
/// When the system has no files left.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

impl Channel {
    /// Registers an end with the current runtime.
    ///
    /// # Errors
    /// When it is no socket.
    pub fn new(fd: OwnedFd) -> io::Result<Channel> {
        let socket = std::os::unix::net::UnixStream::from(fd);
        socket.set_nonblocking(true)?;
        Ok(Channel(UnixStream::from_std(socket)?))
    }

    /// Asks for the socket number `index` of an address.
    ///
    /// # Errors
    /// Those of `bind(2)` in the master, and those of the channel.
    pub async fn bind(
        &self,
        index: usize,
        address: &Address,
        options: &ListenOptions,
    ) -> io::Result<Listener> {
        self.send(&Request::bind(index, address, options).to_string(), None).await?;
        let (text, socket) = self.receive().await?;
        match (Answer::parse(&text), socket) {
            (Some(Answer::Ok), Some(socket)) => Listener::from_fd(socket, address.clone()),
            (Some(Answer::Error(number)), _) => Err(io::Error::from_raw_os_error(number)),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Tells the master to close an address.
    ///
    /// # Errors
    /// Those of the channel.
    pub async fn release(&self, address: &Address) -> io::Result<()> {
        self.send(&Request::Release(address.clone()).to_string(), None).await
    }

    /// Tells the master that the server serves.
    ///
    /// # Errors
    /// Those of the channel.
    pub async fn ready(&self) -> io::Result<()> {
        self.send(&Request::Ready.to_string(), None).await
    }

    /// Ready once the other side is gone. What it says unasked is dropped.
    pub async fn closed(&self) {
        while self.receive().await.is_ok_and(|(text, _)| !text.is_empty()) {}
    }

    /// Sends one message, with a file if need be.
    ///
    /// # Errors
    /// Those of `sendmsg(2)`.
    pub async fn send(&self, text: &str, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.0.async_io(Interest::WRITABLE, || send(self.0.as_fd(), text, file)).await
    }

    /// The next message, empty at the end of the channel, and the file that came with it.
    ///
    /// # Errors
    /// Those of `recvmsg(2)`.
    pub async fn receive(&self) -> io::Result<(String, Option<OwnedFd>)> {
        self.0.async_io(Interest::READABLE, || receive(self.0.as_fd())).await
    }
}

fn send(fd: BorrowedFd<'_>, text: &str, file: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = file.as_slice();
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(files));
    }
    rustix::net::sendmsg(fd, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn receive(fd: BorrowedFd<'_>) -> io::Result<(String, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; MESSAGE_BYTES_MAX];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(fd, &mut [IoSliceMut::new(&mut text)], &mut control, flags)?;
    let mut file = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(files) = message {
            file = files.last();
        }
    }
    Ok((String::from_utf8_lossy(&text[..got.bytes]).into_owned(), file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn a_socket_crosses_the_channel() {
        block_on(async {
            let (a, b) = pair().unwrap();
            let (serving, master) = (Channel::new(a).unwrap(), Channel::new(b).unwrap());
            let any: Address = Address::Ip("127.0.0.1:0".parse().unwrap());
            let options = ListenOptions::default();
            let held = Listener::bind(&any, &options).unwrap();
            let answer = async {
                let (text, _) = master.receive().await.unwrap();
                assert_eq!(Request::parse(&text), Some(Request::bind(0, &any, &options)));
                master.send("ok", Some(held.socket().as_fd())).await.unwrap();
            };
            let (got, ()) = tokio::join!(serving.bind(0, &any, &options), answer);
            let address = |l: &Listener| l.socket().local_addr().unwrap().as_socket();
            assert_eq!(address(&got.unwrap()), address(&held));
        });
    }

    #[test]
    fn errors_cross_the_channel_and_its_end_is_seen() {
        block_on(async {
            let (a, b) = pair().unwrap();
            let (serving, master) = (Channel::new(a).unwrap(), Channel::new(b).unwrap());
            let any: Address = Address::Ip("127.0.0.1:0".parse().unwrap());
            let options = ListenOptions::default();
            master.send("error 98", None).await.unwrap();
            let error = serving.bind(0, &any, &options).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            drop(master);
            serving.closed().await;
            assert!(serving.bind(0, &any, &options).await.is_err());
        });
    }
}
