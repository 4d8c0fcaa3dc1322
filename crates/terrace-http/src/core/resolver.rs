//! `resolver` and `resolver_timeout`: who is asked for the addresses of names at run time.
//!
//! Each worker has one [`Resolver`] for each `resolver` directive, and one that asks the system for the places that have none.

use std::cell::RefCell;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use terrace_base::OsError;
use terrace_conf::{ConfError, Node};
use terrace_net::dns::{ResolveError, Resolver, ResolverConf};

use super::location_conf::CoreLocationConf;
use crate::{Builder, Request};

/// The port of name servers.
const DNS_PORT: u16 = 53;
/// Where the system has its name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// `resolver address … [valid=time] [ipv4=on|off] [ipv6=on|off] [local=on|off|path] [status_zone=zone];`
pub(super) fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let mut conf = ResolverConf::new(Vec::new());
    for p in node.params(0) {
        let text = p.arg.text()?;
        let invalid = || node.error(format!("invalid parameter: {text}"));
        // In small letters only.
        let flag = || match p.value {
            Some(b"on") => Ok(true),
            Some(b"off") => Ok(false),
            _ => Err(invalid()),
        };
        match p.name {
            b"valid" if p.value.is_some() => {
                conf.valid_secs = Some(p.time_secs().map_err(|_| invalid())?).filter(|secs| *secs > 0);
            }
            b"ipv4" if p.value.is_some() => conf.ipv4 = flag()?,
            b"ipv6" if p.value.is_some() => conf.ipv6 = flag()?,
            b"local" if p.value.is_some() => match p.text()? {
                "" => return Err(invalid()),
                "off" => {}
                "on" => conf.servers.extend(servers_of(Path::new(RESOLV_CONF), node)?),
                path => conf.servers.extend(servers_of(&b.full_path(path), node)?),
            },
            // For statistics, of which there are none here.
            b"status_zone" if p.value.is_some() => {}
            _ => {
                let found = servers(text);
                conf.servers.extend(found.map_err(|e| node.error(format!("{e} in resolver \"{text}\"")))?);
            }
        }
    }
    if !conf.ipv4 && !conf.ipv6 {
        return Err(node.error("\"ipv4\" and \"ipv6\" cannot both be \"off\""));
    }
    if conf.servers.is_empty() {
        return Err(node.error("no name servers defined"));
    }
    node.set_once(&mut b.conf::<CoreLocationConf>().resolver, Some(Arc::new(conf)))
}

/// The servers that an address or a name with an optional port stands for. The error is nginx's text.
fn servers(text: &str) -> Result<Vec<SocketAddr>, &'static str> {
    if text.starts_with("unix:") {
        return Err("invalid host");
    }
    let (host, rest) = terrace_net::split_host(text)?;
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => DNS_PORT,
        None => return Err("invalid host"),
        Some(port) => port.parse().ok().filter(|p| *p > 0).ok_or("invalid port")?,
    };
    if let Some(v6) = host.strip_prefix('[') {
        let ip: Ipv6Addr = v6.trim_end_matches(']').parse().map_err(|_| "invalid IPv6 address")?;
        return Ok(vec![(ip, port).into()]);
    }
    if host.contains('/') {
        return Err("invalid host");
    }
    let found: Vec<_> = (host, port).to_socket_addrs().map_err(|_| "host not found")?.collect();
    if found.is_empty() { Err("host not found") } else { Ok(found) }
}

/// The servers that a file in the form of `/etc/resolv.conf` names.
fn servers_of(path: &Path, node: &Node) -> Result<Vec<SocketAddr>, ConfError> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| node.error(format!("open() \"{}\" failed {}", path.display(), OsError(&e))))?;
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() == Some("nameserver")
            && let Some(server) = words.next()
        {
            let ip = server.parse().map_err(|_| {
                node.error(format!("invalid nameserver \"{server}\" in \"{}\"", path.display()))
            })?;
            found.push(SocketAddr::new(ip, DNS_PORT));
        }
    }
    Ok(found)
}

/// A worker's resolvers, by the addresses of their settings; each holds its own, so that an address stays its own.
#[derive(Default)]
struct Resolvers(RefCell<FxHashMap<usize, Rc<Resolver>>>);

impl Request {
    /// Who resolves names for this request.
    pub fn resolver(&self) -> Rc<Resolver> {
        let conf = self.location().core.resolver.as_ref();
        let key = conf.map_or(0, |c| Arc::as_ptr(c) as usize);
        let resolvers = self.worker.state(Resolvers::default);
        let mut all = resolvers.0.borrow_mut();
        let make = || Resolver::new(conf.map(Arc::clone), Arc::clone(&self.worker.generation.log));
        Rc::clone(all.entry(key).or_insert_with(make))
    }

    /// The addresses of a name, within `resolver_timeout`, by turns. The error is what nginx says.
    pub async fn resolve(&self, host: &str) -> Result<Rc<terrace_net::dns::Addresses>, String> {
        let timeout_ms = self.location().core.resolver_timeout_ms;
        let found = self.resolver().resolve(host, timeout_ms).await;
        found.map_err(|e: ResolveError| format!("{host} could not be resolved {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_servers() {
        let list = |text: &str| servers(text).map(|all| all[0].to_string());
        assert_eq!(list("127.0.0.1").as_deref(), Ok("127.0.0.1:53"));
        assert_eq!(list("127.0.0.1:8600").as_deref(), Ok("127.0.0.1:8600"));
        assert_eq!(list("[::1]:54").as_deref(), Ok("[::1]:54"));
        assert_eq!(list("[::1]").as_deref(), Ok("[::1]:53"));
        assert_eq!(list("[::1]x"), Err("invalid host"));
        assert_eq!(list("[::g]"), Err("invalid IPv6 address"));
        assert_eq!(list("[::1"), Err("invalid host"));
        assert_eq!(list(":53"), Err("no host"));
        assert_eq!(list(""), Err("no host"));
        assert_eq!(list("127.0.0.1/x"), Err("invalid host"));
        assert_eq!(list("unix:/x"), Err("invalid host"));
        for port in ["0", "65536", "x", "", "-1", "5 3"] {
            assert_eq!(list(&format!("127.0.0.1:{port}")), Err("invalid port"), "{port}");
        }
    }
}
