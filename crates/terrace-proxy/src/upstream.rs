//! `upstream` blocks: servers, balancing methods, keep-alive.
//!
//! Names resolve while the configuration is read, each address becoming a peer. The peers' state belongs to each
//! worker (see `peers`).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use terrace_conf::{Arity, ConfError, Contexts, Directive, Node, Position};
use terrace_http::conf::table::{block, simple};
use terrace_http::{Builder, Module, Value};
use terrace_upstream::{Address, Group, KeepaliveConfig, Method, PeerSpec};

use crate::balancer::Balancer;
use crate::groups::Groups;
use crate::resolve;
use crate::url::{Host, Url};
use crate::variables;

/// A group of servers: an `upstream` block, or the one host that a `proxy_pass` names.
pub struct Upstream {
    /// The block's name, or `host:port`.
    pub name: String,
    pub(crate) index: usize,
    pub(crate) method: Method,
    pub(crate) key: Option<Value>,
    pub(crate) peers: Vec<PeerSpec>,
    pub(crate) keepalive: KeepaliveConfig,
    pub(crate) balancer: Option<Arc<dyn Balancer>>,
    /// `balancer_keepalive`: how many idle connections a balancer may keep.
    pub(crate) balanced_idle_max: usize,
    /// Whether it has servers of its own; without them a balancer must choose.
    pub(crate) has_servers: bool,
}

/// All upstreams of a configuration.
#[derive(Default)]
pub(crate) struct Upstreams {
    current: Option<Draft>,
    /// By the block's name.
    pub(crate) named: FxHashMap<String, Arc<Upstream>>,
    implicit: FxHashMap<(String, u16), Arc<Upstream>>,
    count: usize,
}

#[derive(Default)]
struct Draft {
    method: Option<Method>,
    key: Option<Value>,
    peers: Vec<PeerSpec>,
    keepalive: Option<usize>,
    keepalive_timeout_ms: Option<u64>,
    keepalive_requests: Option<u32>,
    keepalive_time_ms: Option<u64>,
    balancer: Option<Arc<dyn Balancer>>,
    balanced_idle_max: Option<usize>,
}

/// The module.
pub struct UpstreamModule;

impl Module for UpstreamModule {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn variables(&self, b: &mut Builder) {
        variables::define(&mut b.vars);
    }

    fn finish(&self, b: &mut Builder) -> Result<(), ConfError> {
        let mut blocks: Vec<_> = b.state::<Upstreams>().named.values().map(Arc::clone).collect();
        blocks.sort_by_key(|u| u.index);
        b.share(Arc::new(Groups(blocks)));
        Ok(())
    }
}

const UP: Contexts = Contexts::UPSTREAM;
/// How many idle connections a balancer may keep, where `balancer_keepalive` does not say.
const BALANCED_IDLE_MAX: usize = 32;
/// What stands for the servers of a block that leaves them all to its balancer.
const NOWHERE: Address = Address::Inet(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(0, 0, 0, 1)), 80));

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    block("upstream", Contexts::HTTP, Arity::Exactly(1), "A group of servers.", set_upstream),
    simple("server", UP, Arity::AtLeast(1), "", "A server of the group.", set_server),
    simple("least_conn", UP, Arity::Exactly(0), "", "Chooses the server with the fewest connections.", |b, n| set_method(b, n, Method::LeastConn)),
    simple("ip_hash", UP, Arity::Exactly(0), "", "Chooses by the client's address.", |b, n| set_method(b, n, Method::IpHash)),
    simple("hash", UP, Arity::Between(1, 2), "", "Chooses by a key.", set_hash),
    simple("random", UP, Arity::Between(0, 2), "", "Chooses at random.", set_random),
    simple("keepalive", UP, Arity::Exactly(1), "", "How many idle connections each worker keeps.", set_keepalive),
    simple("keepalive_timeout", UP, Arity::Exactly(1), "60s", "How long an idle connection is kept.", |b, n| { let v = n.time_ms(0)?; n.set_once(&mut draft(b).keepalive_timeout_ms, v) }),
    simple("keepalive_requests", UP, Arity::Exactly(1), "1000", "How many requests a connection carries.", |b, n| { let v = n.number(0)?; n.set_once(&mut draft(b).keepalive_requests, v) }),
    simple("keepalive_time", UP, Arity::Exactly(1), "1h", "How old a connection may get.", |b, n| { let v = n.time_ms(0)?; n.set_once(&mut draft(b).keepalive_time_ms, v) }),
    simple("zone", UP, Arity::Between(1, 2), "", "Accepted; the state of a group belongs to each worker.", |_, _| Ok(())),
];

/// Lets `balancer` choose the peers of the `upstream` block that is being read.
pub fn set_balancer(b: &mut Builder, node: &Node, balancer: Arc<dyn Balancer>) -> Result<(), ConfError> {
    warn_redefined(b, node);
    node.set_once(&mut draft(b).balancer, balancer)
}

/// Has each worker keep at most so many idle connections for the balancer of the `upstream` block that is being read.
pub fn set_balancer_keepalive(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let count = connections(node)?;
    node.set_once(&mut draft(b).balanced_idle_max, count)
}

fn draft(b: &mut Builder) -> &mut Draft {
    b.state::<Upstreams>().current.get_or_insert_default()
}

fn set_upstream(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let name = node.text(0)?.to_owned();
    let all = b.state::<Upstreams>();
    if all.named.contains_key(&name) {
        return Err(node.error(format!("duplicate upstream \"{name}\"")));
    }
    all.current = Some(Draft::default());
    let read = b.nested(UP, node);
    let all = b.state::<Upstreams>();
    let draft = all.current.take().unwrap_or_default();
    read?;
    let mut keepalive = KeepaliveConfig::new(draft.keepalive.unwrap_or(0));
    keepalive.timeout_ms = draft.keepalive_timeout_ms.unwrap_or(keepalive.timeout_ms);
    keepalive.requests_max = draft.keepalive_requests.unwrap_or(keepalive.requests_max);
    keepalive.time_ms = draft.keepalive_time_ms.unwrap_or(keepalive.time_ms);
    let has_servers = !draft.peers.is_empty();
    let peers = match &draft.balancer {
        _ if has_servers => draft.peers,
        Some(_) => vec![PeerSpec::new(NOWHERE, "0.0.0.1")],
        None => return Err(node.error("no servers are inside upstream")),
    };
    let upstream = Upstream {
        name: name.clone(),
        index: all.count,
        method: draft.method.unwrap_or_default(),
        key: draft.key,
        peers,
        keepalive,
        balancer: draft.balancer,
        balanced_idle_max: draft.balanced_idle_max.unwrap_or(BALANCED_IDLE_MAX),
        has_servers,
    };
    // Each worker builds the group anew from the same peers; an error shows here.
    Group::new(upstream.method, upstream.peers.clone())
        .map_err(|e| node.error(format!("{e} in upstream \"{name}\"")))?;
    all.count += 1;
    all.named.insert(name, Arc::new(upstream));
    Ok(())
}

fn set_server(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let text = node.text(0)?;
    let mut spec = ServerOptions::default();
    let method = draft(b).method;
    let allows_backup = !matches!(
        method,
        Some(
            Method::IpHash
                | Method::Hash
                | Method::ConsistentHash
                | Method::Random
                | Method::RandomTwoLeastConn
        )
    );
    let unsupported = |arg: &terrace_conf::Arg| {
        node.error(format!("balancing method does not support parameter \"{arg}\""))
    };
    for p in node.params(1) {
        match p.name {
            b"weight" => spec.weight = Some(p.number().ok().filter(|w| *w > 0).ok_or_else(|| p.error())?),
            b"max_conns" => spec.max_conns = p.number()?,
            b"max_fails" => spec.max_fails = Some(p.number()?),
            b"fail_timeout" => spec.fail_timeout_ms = Some(p.time_secs()?.saturating_mul(1000)),
            b"backup" if p.value.is_none() && allows_backup => spec.backup = true,
            b"backup" if p.value.is_none() => return Err(unsupported(p.arg)),
            b"down" if p.value.is_none() => spec.down = true,
            b"resolve" if p.value.is_none() => {
                return Err(node.error("the \"resolve\" parameter is known but not carried out yet"));
            }
            _ => return Err(p.error()),
        }
    }
    let url = Url::parse(text.as_bytes())
        .and_then(|u| if u.uri.is_empty() { Ok(u) } else { Err("invalid host") })
        .map_err(|e| node.error(format!("{e} in upstream \"{text}\"")))?;
    let addresses = resolve::addresses(&b.paths.prefix, &url.host, url.port())
        .ok_or_else(|| node.error(format!("host not found in upstream \"{text}\"")))?;
    for mut peer in resolve::plain_peers(addresses, text) {
        spec.apply(&mut peer);
        draft(b).peers.push(peer);
    }
    Ok(())
}

#[derive(Default)]
struct ServerOptions {
    weight: Option<u32>,
    max_conns: u32,
    max_fails: Option<u32>,
    fail_timeout_ms: Option<u64>,
    backup: bool,
    down: bool,
}

impl ServerOptions {
    fn apply(&self, peer: &mut PeerSpec) {
        peer.weight = self.weight.unwrap_or(peer.weight);
        peer.max_conns = self.max_conns;
        peer.max_fails = self.max_fails.unwrap_or(peer.max_fails);
        peer.fail_timeout_ms = self.fail_timeout_ms.unwrap_or(peer.fail_timeout_ms);
        peer.backup = self.backup;
        peer.down = self.down;
    }
}

fn warn_redefined(b: &mut Builder, node: &Node) {
    let d = draft(b);
    if d.method.is_some() || d.balancer.is_some() || d.keepalive.is_some() {
        b.warn(&node.at, "load balancing method redefined");
    }
}

fn set_method(b: &mut Builder, node: &Node, method: Method) -> Result<(), ConfError> {
    warn_redefined(b, node);
    draft(b).method = Some(method);
    Ok(())
}

fn set_hash(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let key = Value::compile(b, node.arg(0)?)?;
    let method = match node.args.get(1) {
        None => Method::Hash,
        Some(a) if &a.value[..] == b"consistent" => Method::ConsistentHash,
        Some(a) => return Err(node.invalid_parameter(a)),
    };
    draft(b).key = Some(key);
    set_method(b, node, method)
}

fn set_random(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let method = match node.args.first() {
        None => Method::Random,
        Some(a) if &a.value[..] == b"two" => {
            match node.args.get(1).filter(|a| &a.value[..] != b"least_conn") {
                None => Method::RandomTwoLeastConn,
                Some(a) => return Err(node.invalid_parameter(a)),
            }
        }
        Some(a) => return Err(node.invalid_parameter(a)),
    };
    set_method(b, node, method)
}

fn set_keepalive(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let count = connections(node)?;
    node.set_once(&mut draft(b).keepalive, count)
}

fn connections(node: &Node) -> Result<usize, ConfError> {
    let count = node.number::<usize>(0).ok().filter(|n| *n > 0);
    count.ok_or_else(|| {
        node.error(format!("invalid value \"{}\" in \"{}\" directive", node.args[0], node.name))
    })
}

/// The upstream that a URL names: a block of that name, or the host itself.
pub(crate) fn of_url(b: &mut Builder, url: &Url, at: &Position) -> Result<Arc<Upstream>, ConfError> {
    let prefix = b.paths.prefix.clone();
    let all = b.state::<Upstreams>();
    let port = url.port();
    let shown = match &url.host {
        Host::Unix(path) => format!("unix:{}", path.display()),
        Host::Name(name) => {
            if let Some(u) = all.named.get(name) {
                return match url.port {
                    None => Ok(Arc::clone(u)),
                    Some(p) => Err(ConfError::at(at, format!("upstream \"{name}\" may not have port {p}"))),
                };
            }
            name.clone()
        }
    };
    if let Some(u) = all.implicit.get(&(shown.clone(), port)) {
        return Ok(Arc::clone(u));
    }
    let addresses = resolve::addresses(&prefix, &url.host, port)
        .ok_or_else(|| ConfError::at(at, format!("host not found in upstream \"{shown}\"")))?;
    let upstream = Arc::new(Upstream::plain(all.count, &shown, resolve::plain_peers(addresses, &shown)));
    all.count += 1;
    all.implicit.insert((shown, port), Arc::clone(&upstream));
    Ok(upstream)
}

impl Upstream {
    /// Plain round robin over `peers`, which must not be empty.
    pub(crate) fn plain(index: usize, name: &str, peers: Vec<PeerSpec>) -> Upstream {
        Upstream {
            name: name.to_owned(),
            index,
            method: Method::RoundRobin,
            key: None,
            peers,
            keepalive: KeepaliveConfig::new(0),
            balancer: None,
            balanced_idle_max: 0,
            has_servers: true,
        }
    }
}
