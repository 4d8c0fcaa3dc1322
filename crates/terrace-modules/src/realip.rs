//! `set_real_ip_from`, `real_ip_header`, `real_ip_recursive`: the client's address as a trusted proxy reports it.
//!
//! The address of the connection itself is never lost: it stays in `$realip_remote_addr`, and each pass starts from
//! it, so that a redirect within the server cannot walk further down the list.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use terrace_conf::{Arity, ConfError, Directive, Node};
use terrace_http::conf::table::{HSL, simple};
use terrace_http::{
    Builder, Handler, LocationBuilder, Merge, MergeContext, Module, Outcome, Phase, Request, Step,
};
use terrace_net::Address;

/// The module. It stands first among the modules, so that all others see the real address.
pub struct RealIp;

impl Module for RealIp {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn variables(&self, b: &mut Builder) {
        b.vars.define("realip_remote_addr", |r, out| match r.client.as_ref().map(|c| &c.peer) {
            // Writing to a Vec does not fail.
            Some(Address::Ip(a)) => write!(out, "{}", a.ip()).is_ok(),
            Some(Address::Unix(_)) => out.write_all(b"unix:").is_ok(),
            None => false,
        });
        b.vars.define("realip_remote_port", |r, out| match r.client.as_ref().map(|c| &c.peer) {
            Some(Address::Ip(a)) => write!(out, "{}", a.port()).is_ok(),
            _ => false,
        });
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let conf = location.settings.of::<Conf>();
        if conf.from.is_empty() {
            return Ok(());
        }
        let settings = Arc::new(Settings {
            from: conf.from.clone(),
            header: conf.header.clone().unwrap_or(Bytes::from_static(b"X-Real-IP")),
            recursive: conf.recursive.unwrap_or(false),
        });
        if location.is_server {
            location.add(Phase::ServerRewrite, Replace(Arc::clone(&settings)));
        }
        location.add(Phase::Preaccess, Replace(settings));
        Ok(())
    }
}

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("set_real_ip_from", HSL, Arity::Exactly(1), "", "An address, network or \"unix:\" whose word about clients' addresses is trusted.", set_from),
    simple("real_ip_header", HSL, Arity::Exactly(1), "X-Real-IP", "The field that has the client's address.", set_header),
    simple("real_ip_recursive", HSL, Arity::Flag, "off", "Whether trusted addresses in the field are skipped.", |b, n| n.set_once(&mut b.conf::<Conf>().recursive, n.flag(0)?)),
];

#[derive(Debug, Default)]
struct Conf {
    from: Vec<Network>,
    header: Option<Bytes>,
    recursive: Option<bool>,
}

impl Merge for Conf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.from.is_empty() {
            self.from.clone_from(&parent.from);
        }
        if self.header.is_none() {
            self.header.clone_from(&parent.header);
        }
        self.recursive = self.recursive.or(parent.recursive);
    }
}

/// Who is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Network {
    /// Connections over Unix sockets.
    Unix,
    /// The addresses that share their first bits with this one.
    Ip { address: IpAddr, bits: u8 },
}

impl Network {
    fn has(&self, peer: Option<IpAddr>) -> bool {
        match (self, peer) {
            (Network::Unix, None) => true,
            (Network::Ip { address, bits }, Some(ip)) => match (address, ip.to_canonical()) {
                (IpAddr::V4(net), IpAddr::V4(ip)) => masked_v4(ip.to_bits(), *bits) == net.to_bits(),
                (IpAddr::V6(net), IpAddr::V6(ip)) => masked_v6(ip.to_bits(), *bits) == net.to_bits(),
                _ => false,
            },
            _ => false,
        }
    }
}

fn masked_v4(ip: u32, bits: u8) -> u32 {
    ip & u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

fn masked_v6(ip: u128, bits: u8) -> u128 {
    ip & u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0)
}

fn set_from(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let arg = node.arg(0)?;
    let network = match node.text(0)? {
        "unix:" => Network::Unix,
        text => {
            let (network, has_host_bits) = parse_network(text).ok_or_else(|| node.invalid_parameter(arg))?;
            if has_host_bits {
                b.warn(&node.at, &format!("low address bits of {text} are meaningless"));
            }
            network
        }
    };
    b.conf::<Conf>().from.push(network);
    Ok(())
}

/// An address with or without a prefix length; also says whether it has bits behind the prefix.
fn parse_network(text: &str) -> Option<(Network, bool)> {
    let (address, bits) = match text.split_once('/') {
        Some((a, b)) => (a, Some(u8::try_from(terrace_base::units::parse_number(b.as_bytes())?).ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits_max = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(bits_max);
    if bits > bits_max {
        return None;
    }
    let network = match address {
        IpAddr::V4(a) => IpAddr::V4(masked_v4(a.to_bits(), bits).into()),
        IpAddr::V6(a) => IpAddr::V6(masked_v6(a.to_bits(), bits).into()),
    };
    Some((Network::Ip { address: network, bits }, network != address))
}

fn set_header(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.bytes(0)?.clone();
    if &name[..] == b"proxy_protocol" {
        return Err(node.error("real_ip_header \"proxy_protocol\" is known but not carried out yet"));
    }
    node.set_once(&mut b.conf::<Conf>().header, name)
}

struct Settings {
    from: Vec<Network>,
    header: Bytes,
    recursive: bool,
}

struct Replace(Arc<Settings>);

impl Handler for Replace {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let settings = &*self.0;
        if let Some(client) = &r.client {
            let peer = match &client.peer {
                Address::Ip(a) => Some(a.ip()),
                Address::Unix(_) => None,
            };
            // Addresses already replaced in the server's own pass are not looked at again.
            if r.peer_ip() == peer && settings.trusts(peer) {
                let mut list = Vec::new();
                r.headers_in.for_each(|name, value, _| {
                    if name.eq_ignore_ascii_case(&settings.header) {
                        list.extend_from_slice(if list.is_empty() { b"" } else { b"," });
                        list.extend_from_slice(value);
                    }
                });
                if let Some(real) = settings.find(&list) {
                    r.set_peer(real);
                }
            }
        }
        Outcome::Declined.into()
    }
}

impl Settings {
    fn trusts(&self, peer: Option<IpAddr>) -> bool {
        self.from.iter().any(|n| n.has(peer))
    }

    /// The address in a list that is written from left to right by ever nearer proxies: the last one, or with
    /// `recursive` the last that is not trusted. What is no address ends the search.
    fn find(&self, list: &[u8]) -> Option<IpAddr> {
        let mut found = None;
        let entries = list.rsplit(|b| matches!(b, b',' | b' ')).filter(|e| !e.is_empty());
        for entry in entries {
            let Some(ip) = parse_address(entry) else { break };
            found = Some(ip);
            if !self.recursive || !self.trusts(found) {
                break;
            }
        }
        found
    }
}

/// `ip`, `ip:port`, `[ip]` or `[ip]:port`.
fn parse_address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(ip) = text.parse() {
        return Some(ip);
    }
    if let Some(inner) = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        return inner.parse().ok();
    }
    text.parse::<SocketAddr>().ok().map(|a| a.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(recursive: bool) -> Settings {
        let from = ["10.0.0.0/8", "2001:db8::/32"].map(|n| parse_network(n).unwrap().0).to_vec();
        Settings { from, header: Bytes::from_static(b"X-Forwarded-For"), recursive }
    }

    #[test]
    fn networks() {
        for (net, ip, inside) in [
            ("10.0.0.0/8", "10.255.0.1", true),
            ("10.0.0.0/8", "::ffff:10.255.0.1", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("10.0.0.1", "10.0.0.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::/0", "10.0.0.1", false),
        ] {
            let (network, low_bits) = parse_network(net).unwrap();
            assert!(!low_bits);
            assert_eq!(network.has(Some(ip.parse().unwrap())), inside, "{net} {ip}");
        }
        assert!(parse_network("10.0.0.1/8").unwrap().1);
        for bad in ["10.0.0.0/33", "::/129", "x", "10.0.0.0/", "10.0.0.0/-1", ""] {
            assert_eq!(parse_network(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_of_addresses() {
        for (list, last, recursive) in [
            ("1.1.1.1, 2.2.2.2", Some("2.2.2.2"), Some("2.2.2.2")),
            ("1.1.1.1, 10.0.0.2, 10.0.0.1", Some("10.0.0.1"), Some("1.1.1.1")),
            ("10.0.0.2,10.0.0.1", Some("10.0.0.1"), Some("10.0.0.2")),
            ("x, 10.0.0.1", Some("10.0.0.1"), Some("10.0.0.1")),
            ("1.1.1.1 , [2001:db8::1]:80", Some("2001:db8::1"), Some("1.1.1.1")),
            ("3.3.3.3:8080, ", Some("3.3.3.3"), Some("3.3.3.3")),
            ("", None, None),
            ("unknown", None, None),
        ] {
            let ip = |t: Option<&str>| t.map(|t| t.parse::<IpAddr>().unwrap());
            assert_eq!(settings(false).find(list.as_bytes()), ip(last), "{list}");
            assert_eq!(settings(true).find(list.as_bytes()), ip(recursive), "{list}");
        }
    }
}
