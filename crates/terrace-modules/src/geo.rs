//! `geo`: a variable whose value is that of the smallest network an address lies in.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use rustc_hash::FxHashMap;
use terrace_conf::{Arity, Body, ConfError, Contexts, Directive, Node};
use terrace_http::conf::table::block;
use terrace_http::vars::{Computed, VarIndex};
use terrace_http::{Builder, Module, Request, Value};

use crate::access::Network;

/// The module.
pub struct Geo;

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    block("geo", Contexts::HTTP, Arity::Between(1, 2), "Makes a variable whose value depends on the network of an address.", set_geo),
];

impl Module for Geo {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }
}

/// Networks of one mask, by their address.
type SameMask = FxHashMap<u128, Value>;

/// The networks of one family: one table a mask, the longest mask first.
#[derive(Default)]
struct Family(Vec<(u128, SameMask)>);

impl Family {
    fn table(&mut self, mask: u128) -> &mut SameMask {
        let at = match self.0.binary_search_by(|(m, _)| mask.cmp(m)) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (mask, SameMask::default()));
                at
            }
        };
        &mut self.0[at].1
    }

    fn find(&self, address: u128) -> Option<&Value> {
        self.0.iter().find_map(|(mask, table)| table.get(&(address & mask)))
    }
}

/// All networks of a `geo`.
#[derive(Default)]
struct Networks {
    v4: Family,
    v6: Family,
}

impl Networks {
    fn slot(&mut self, network: Network) -> (u128, &mut SameMask) {
        match network {
            Network::V4(address, mask) => (address.into(), self.v4.table(mask.into())),
            Network::V6(address, mask) => (address, self.v6.table(mask)),
        }
    }

    fn find(&self, ip: IpAddr) -> Option<&Value> {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.v4.find(ip.to_bits().into()),
            IpAddr::V6(ip) => self.v6.find(ip.to_bits()),
        }
    }
}

struct GeoVariable {
    /// Where the address stands, when it is not the client's.
    address: Option<VarIndex>,
    networks: Networks,
}

/// What nginx looks up where there is no IP address.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::BROADCAST);

impl Computed for GeoVariable {
    fn compute(&self, r: &Request, out: &mut Vec<u8>) -> bool {
        let ip = match self.address {
            None => r.peer_ip(),
            Some(var) => {
                let start = out.len();
                r.append_var(var, out);
                let ip = std::str::from_utf8(&out[start..]).ok().and_then(|t| t.parse().ok());
                out.truncate(start);
                ip
            }
        };
        if let Some(value) = self.networks.find(ip.unwrap_or(NO_ADDRESS)) {
            value.eval(r, out);
        }
        true
    }
}

fn set_geo(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let names = node.args.iter().map(|arg| {
        let name = arg.value.strip_prefix(b"$").filter(|n| !n.is_empty());
        name.ok_or_else(|| node.error(format!("invalid variable name \"{arg}\"")))
    });
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let (address, name) = match names.as_slice() {
        [name] => (None, *name),
        [address, name] => (Some(b.vars.reference(address, &node.at)), *name),
        _ => return Err(node.invalid_arity()),
    };
    let mut networks = Networks::default();
    for row in node.children() {
        if !matches!(row.body, Body::None) {
            return Err(row.error("unexpected \"{\""));
        }
        add_row(b, row, &mut networks)?;
    }
    b.vars.define_computed(name, Arc::new(GeoVariable { address, networks }), true);
    Ok(())
}

fn add_row(b: &mut Builder, row: &Node, networks: &mut Networks) -> Result<(), ConfError> {
    match (&row.key.value[..], row.args.as_slice()) {
        (b"ranges" | b"proxy_recursive", []) | (b"proxy", [_]) => {
            Err(row
                .error(format!("the \"{}\" parameter of \"geo\" is known but not carried out yet", row.key)))
        }
        (b"default", [value]) => {
            // These values are taken as they are written.
            let value = Value::literal(value.value.clone());
            networks.v4.table(0).insert(0, value.clone());
            networks.v6.table(0).insert(0, value);
            Ok(())
        }
        (b"delete", [network]) => {
            let text = network.text()?;
            let (address, table) = networks.slot(parse(b, row, text)?);
            if table.remove(&address).is_none() {
                b.warn(&row.at, &format!("no network \"{text}\" to delete"));
            }
            Ok(())
        }
        (_, [value]) => {
            let text = row.key.text()?;
            let (address, table) = networks.slot(parse(b, row, text)?);
            if table.insert(address, Value::literal(value.value.clone())).is_some() {
                b.warn(&row.at, &format!("duplicate network \"{text}\""));
            }
            Ok(())
        }
        _ => Err(row.error("invalid number of the geo parameters")),
    }
}

fn parse(b: &mut Builder, row: &Node, text: &str) -> Result<Network, ConfError> {
    let parsed = Network::parse(text);
    let (network, has_low_bits) = parsed.ok_or_else(|| row.error(format!("invalid network \"{text}\"")))?;
    if has_low_bits {
        b.warn(&row.at, &format!("low address bits of {text} are meaningless"));
    }
    Ok(network)
}

#[cfg(test)]
mod tests {
    use crate::testing::{Rig, get, run};
    use terrace_http::Module;

    static MODULES: &[&dyn Module] = &[&terrace_http::core::Core, &super::Geo, &crate::rewrite::Rewrite];

    #[test]
    fn the_smallest_network_wins() {
        run(async {
            let rig = Rig::new();
            let conf = r"http { geo $arg_ip $where {
            default out; 10.0.0.0/8 ten; 10.1.0.0/16 ten-one; 10.1.2.3 host; 2001:db8::/32 six;
            192.168.0.0/16 gone; delete 192.168.0.0/16; 255.255.255.255 none; }
            server { return 200 $where; } }";
            let worker = rig.start(MODULES, conf);
            for (ip, expected) in [
                ("10.2.0.1", "ten"),
                ("10.1.9.9", "ten-one"),
                ("10.1.2.3", "host"),
                ("11.0.0.1", "out"),
                ("192.168.1.1", "out"),
                ("2001:db8::1", "six"),
                ("2001:db9::1", "out"),
                ("::ffff:10.1.2.3", "host"),
                ("unix:", "none"),
            ] {
                let answer = get(&worker, &format!("/?ip={ip}")).await;
                assert_eq!(answer.text(), expected, "{ip}");
            }
        });
    }

    #[test]
    fn what_is_no_network_is_refused() {
        let rig = Rig::new();
        let shown = rig.refusal(MODULES, "http { geo $x { 10.0.0.0/40 a; } }");
        assert!(shown.starts_with("invalid network \"10.0.0.0/40\" in test.conf:1"), "{shown}");
        let shown = rig.refusal(MODULES, "http { geo $x { ranges; } }");
        assert!(shown.contains("not carried out yet"), "{shown}");
    }
}
