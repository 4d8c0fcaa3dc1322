//! `listen address[:port] [default_server] …;`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use terrace_conf::{ConfError, Node, Position};
use terrace_net::{Address, ListenOptions};

use crate::Builder;
use crate::conf::slots::{Merge, MergeContext};

/// One `listen` directive.
#[derive(Debug)]
pub struct ListenSpec {
    /// Where.
    pub address: Address,
    /// `default_server`.
    pub is_default: bool,
    /// `ssl`.
    pub is_ssl: bool,
    /// Socket options.
    pub options: ListenOptions,
    /// Whether any socket option was given.
    pub has_options: bool,
    /// Where it stands.
    pub at: Position,
}

impl ListenSpec {
    /// nginx's `*:80`, for root, or `*:8000` of a server that says nothing.
    pub(crate) fn fallback(at: &Position) -> ListenSpec {
        let port = if nix::unistd::geteuid().is_root() { 80 } else { 8000 };
        ListenSpec {
            address: Address::Ip((Ipv4Addr::UNSPECIFIED, port).into()),
            is_default: false,
            is_ssl: false,
            options: ListenOptions::default(),
            has_options: false,
            at: at.clone(),
        }
    }
}

/// The `listen` directives of a server.
#[derive(Debug, Default)]
pub struct ListenConf {
    /// In order.
    pub specs: Vec<ListenSpec>,
}

impl Merge for ListenConf {
    fn merge(&mut self, _: &Self, _: MergeContext) {}
}

pub(super) fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let text = node.text(0)?;
    let address = parse_address(text, b)
        .map_err(|e| node.error(format!("{e} in \"{text}\" of the \"listen\" directive")))?;
    let mut spec = ListenSpec {
        address,
        is_default: false,
        is_ssl: false,
        options: ListenOptions::default(),
        has_options: false,
        at: node.at.clone(),
    };
    for p in node.params(1) {
        let before = spec.options.clone();
        match p.name {
            b"default_server" | b"default" => spec.is_default = true,
            b"backlog" => spec.options.backlog = p.number()?,
            b"rcvbuf" => spec.options.receive_buffer_bytes = Some(p.size()? as usize),
            b"sndbuf" => spec.options.send_buffer_bytes = Some(p.size()? as usize),
            b"ipv6only" => spec.options.ipv6_only = p.flag()?,
            b"so_keepalive" => spec.options.keepalive = p.text()? != "off",
            // Every worker has its own socket; the rest only tunes.
            b"reuseport" | b"bind" | b"deferred" | b"fastopen" | b"setfib" | b"accept_filter" => {}
            b"ssl" if p.value.is_none() => spec.is_ssl = true,
            b"http2" | b"quic" | b"proxy_protocol" | b"spdy" => {
                let what = String::from_utf8_lossy(p.name);
                return Err(
                    node.error(format!("listen parameter \"{what}\" is known but not carried out yet"))
                );
            }
            _ => return Err(p.error()),
        }
        spec.has_options |= before != spec.options;
    }
    let specs = &mut b.conf::<ListenConf>().specs;
    if specs.iter().any(|s| s.address == spec.address) {
        return Err(node.error(format!("a duplicate listen {text}")));
    }
    specs.push(spec);
    Ok(())
}

/// The error is nginx's text for what is wrong.
fn parse_address(text: &str, b: &Builder) -> Result<Address, &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        if path.is_empty() {
            return Err("no path in the unix domain socket");
        }
        return Ok(Address::Unix(b.full_path(path)));
    }
    let port_of = |p: &str| p.parse::<u16>().ok().filter(|p| *p > 0).ok_or("invalid port");
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Address::Ip((Ipv4Addr::UNSPECIFIED, port_of(text)?).into()));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((h, p)) if !h.contains(':') || h.ends_with(']') => (h, port_of(p)?),
        _ => (text, 80),
    };
    let ip = match host {
        "" => return Err("no host"),
        "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        h => match h.strip_prefix('[').map(|h| h.strip_suffix(']').unwrap_or(h)) {
            Some(v6) => IpAddr::V6(v6.parse::<Ipv6Addr>().map_err(|_| "invalid IPv6 address")?),
            None => match h.parse::<Ipv4Addr>() {
                Ok(v4) => IpAddr::V4(v4),
                Err(_) => {
                    let found = std::net::ToSocketAddrs::to_socket_addrs(&(h, port));
                    found.ok().and_then(|mut all| all.next()).ok_or("host not found")?.ip()
                }
            },
        },
    };
    Ok(Address::Ip(SocketAddr::new(ip, port)))
}
