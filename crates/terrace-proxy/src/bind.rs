//! `proxy_bind` and its kin: the local address that connections to servers come from.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use terrace_base::log::Level;
use terrace_conf::{ConfError, Node};
use terrace_http::{Builder, Request, Value};

/// The directive's value.
#[derive(Debug, Clone)]
pub(crate) enum Bind {
    /// The system chooses.
    Off,
    Fixed(SocketAddr),
    Computed(Value),
}

impl Bind {
    /// Reads the directive.
    pub(crate) fn read(b: &mut Builder, node: &Node) -> Result<Bind, ConfError> {
        if let Some(parameter) = node.args.get(1) {
            return Err(match &parameter.value[..] {
                b"transparent" => node.error(format!(
                    "the \"transparent\" parameter of \"{}\" is known but not carried out",
                    node.name
                )),
                _ => node.invalid_parameter(parameter),
            });
        }
        let arg = node.arg(0)?;
        if arg.value[..] == b"off"[..] {
            return Ok(Bind::Off);
        }
        let value = Value::compile(b, arg)?;
        match value.as_literal() {
            None => Ok(Bind::Computed(value)),
            Some(text) => match parse_local(text) {
                Some(local) => Ok(Bind::Fixed(local)),
                None => Err(node.error(format!("invalid address \"{arg}\""))),
            },
        }
    }

    /// The address for a request. A value that is none is logged, and the system chooses.
    pub(crate) fn address(&self, r: &Request) -> Option<SocketAddr> {
        let text = match self {
            Bind::Off => return None,
            Bind::Fixed(local) => return Some(*local),
            Bind::Computed(value) => value.eval_bytes(r),
        };
        let local = parse_local(&text);
        if local.is_none() && !text.is_empty() {
            let text = String::from_utf8_lossy(&text);
            r.log(Level::Error, format_args!("invalid local address \"{text}\""));
        }
        local
    }
}

/// An IP address, with a port from 1 on where one is wanted: `127.0.0.1`, `127.0.0.1:12345`, `::1`, `[::1]:12345`.
pub fn parse_local(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
    if let Some(bare) = bare {
        return bare.parse().ok().map(|ip| SocketAddr::new(IpAddr::V6(ip), 0));
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, 0));
    }
    text.parse::<SocketAddr>().ok().filter(|local| local.port() != 0)
}

/// A local address as it is written, without the port where that is any.
pub(crate) struct Shown(pub(crate) SocketAddr);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port() {
            0 => self.0.ip().fmt(f),
            _ => self.0.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Shown, parse_local};

    #[test]
    fn local_addresses() {
        for text in ["127.0.0.1", "127.0.0.1:12345", "::1", "[::1]:65535"] {
            assert_eq!(parse_local(text.as_bytes()).map(|l| Shown(l).to_string()).as_deref(), Some(text));
        }
        assert_eq!(parse_local(b"[::1]"), parse_local(b"::1"));
        let bad = [
            &b""[..],
            b"localhost",
            b"127.0.0.1:0",
            b"127.0.0.1:65536",
            b"127.0.0.1:",
            b"127.0.0.1:80x",
            b"127.0.0",
            b"[127.0.0.1]",
            b"[::1",
            b"[::1]:",
            b"unix:/x",
            b"127.0.0.1\0",
            b"\xff",
        ];
        for text in bad {
            assert_eq!(parse_local(text), None, "{}", String::from_utf8_lossy(text));
        }
    }
}
