//! Outgoing connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use thiserror::Error;
use tokio::net::{TcpSocket, TcpStream, UnixStream};

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
    let attempt = async {
        Ok::<_, ConnectError>(match address {
            Address::Ip(a) => {
                let s = match local {
                    None => TcpStream::connect(a).await?,
                    Some(local) => {
                        let s = if a.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
                        if local.port() == 0 {
                            // Lets a port serve several destinations; where the system cannot, it is only scarcer.
                            let _ = setsockopt(&s, sockopt::IpBindAddressNoPort, &true);
                        }
                        s.bind(local).map_err(ConnectError::Bind)?;
                        s.connect(*a).await?
                    }
                };
                s.set_nodelay(true)?;
                Stream::Tcp(s)
            }
            Address::Unix(p) => Stream::Unix(UnixStream::connect(p).await?),
        })
    };
    match tokio::time::timeout(Duration::from_millis(timeout_ms), attempt).await {
        Ok(made) => made,
        Err(_) => Err(ConnectError::Timeout),
    }
}

/// The address that `host` is, if it is one and no name; IPv6 may have brackets.
pub fn literal(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host).parse().ok()
}
