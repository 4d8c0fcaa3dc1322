//! From names to addresses, at load time.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use terrace_upstream::{Address, PeerSpec};

use crate::url::Host;

/// All addresses of a host, IPv4 first as in nginx. Asks the system and waits for it: for load time only. The path of
/// a Unix socket starts at `prefix`, as in `listen`.
pub(crate) fn addresses(prefix: &Path, host: &Host, port: u16) -> Option<Vec<Address>> {
    let name = match host {
        Host::Unix(path) => return Some(vec![Address::Unix(prefix.join(path))]),
        Host::Name(name) => name,
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    let found: Vec<SocketAddr> = (bare, port).to_socket_addrs().ok()?.collect();
    let found = ordered(found);
    (!found.is_empty()).then_some(found)
}

/// IPv4 before IPv6, each address once.
fn ordered(found: Vec<SocketAddr>) -> Vec<Address> {
    let mut out: Vec<Address> = Vec::with_capacity(found.len());
    for v6 in [false, true] {
        for a in found.iter().filter(|a| a.is_ipv6() == v6) {
            let a = Address::Inet(*a);
            if !out.contains(&a) {
                out.push(a);
            }
        }
    }
    out
}

/// Peers with the defaults of a `server` directive.
pub(crate) fn plain_peers(addresses: Vec<Address>, server: &str) -> Vec<PeerSpec> {
    addresses.into_iter().map(|a| PeerSpec::new(a, server)).collect()
}
