//! An address a server listens on or connects to: IP and port, or the path of a Unix socket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use socket2::SockAddr;

/// A transport address, printed as nginx prints it: `127.0.0.1:80`, `[::1]:80`, `unix:/run/x.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// IPv4 or IPv6 with a port.
    Ip(SocketAddr),
    /// A Unix stream socket.
    Unix(PathBuf),
}

impl Address {
    /// The address that the system names; without a path for a Unix socket that has none.
    pub(crate) fn of(address: &SockAddr) -> Address {
        match address.as_socket() {
            Some(ip) => Address::Ip(ip),
            None => Address::Unix(address.as_pathname().map(Into::into).unwrap_or_default()),
        }
    }

    /// The address as the system takes it.
    pub(crate) fn to_system(&self) -> io::Result<SockAddr> {
        match self {
            Address::Ip(ip) => Ok((*ip).into()),
            Address::Unix(path) => SockAddr::unix(path),
        }
    }

    /// The port, or 0 for a Unix socket.
    pub fn port(&self) -> u16 {
        match self {
            Address::Ip(a) => a.port(),
            Address::Unix(_) => 0,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(a: SocketAddr) -> Self {
        Address::Ip(a)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Ip(a) => a.fmt(f),
            Address::Unix(p) => write!(f, "unix:{}", p.display()),
        }
    }
}

/// Splits a host, with the brackets of an IPv6 address, from what follows it: nothing, or a colon and a port.
///
/// # Errors
/// nginx's text for what has no host.
pub fn split_host(text: &str) -> Result<(&str, &str), &'static str> {
    let host_end = match text.strip_prefix('[') {
        Some(rest) => rest.find(']').ok_or("invalid host")? + 2,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_end);
    if host.is_empty() { Err("no host") } else { Ok((host, rest)) }
}
