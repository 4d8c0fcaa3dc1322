//! Outgoing connections.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Socket, Type};
use thiserror::Error;

use crate::{Address, Stream};

/// Why a connection was not made.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The time given ran out.
    #[error("timeout")]
    Timeout,
    /// The system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The system refused the local address.
    #[error(transparent)]
    Bind(io::Error),
}

/// Connects within `timeout_ms`.
pub async fn connect(address: &Address, timeout_ms: u64) -> Result<Stream, ConnectError> {
    connect_from(address, None, timeout_ms).await
}

/// Connects within `timeout_ms`, from a local address where one is given (its port may be 0). One that is given for a
/// Unix socket has no effect.
pub async fn connect_from(
    address: &Address,
    local: Option<SocketAddr>,
    timeout_ms: u64,
) -> Result<Stream, ConnectError> {
    let stream = begin(address, local)?;
    let established = poll_fn(|cx| stream.poll_write_ready(cx));
    match terrace_event::timeout(Duration::from_millis(timeout_ms), established).await {
        Ok(established) => established?,
        Err(_) => return Err(ConnectError::Timeout),
    }
    match stream.socket().take_error()? {
        Some(refused) => Err(refused.into()),
        None => Ok(stream),
    }
}

/// A stream that can be written to once it is connected, or has failed to be.
fn begin(address: &Address, local: Option<SocketAddr>) -> Result<Stream, ConnectError> {
    let to = address.to_system()?;
    let socket = Socket::new(to.domain(), Type::STREAM.nonblocking(), None)?;
    if let Address::Ip(_) = address {
        if let Some(local) = local {
            if local.port() == 0 {
                // Lets a port serve several destinations; where the system cannot, it is only scarcer.
                let _ = setsockopt(&socket, sockopt::IpBindAddressNoPort, &true);
            }
            socket.bind(&local.into()).map_err(ConnectError::Bind)?;
        }
        socket.set_tcp_nodelay(true)?;
    }
    match socket.connect(&to) {
        Err(e) if e.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(e.into()),
        _ => Ok(Stream::new(socket)?),
    }
}

/// The address that `host` is, if it is one and no name; IPv6 may have brackets.
pub fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).parse().ok()
}
