//! `allow` and `deny`: who may have a location, by address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;
use std::sync::Arc;

use terrace_base::log::Level;
use terrace_conf::{Arity, ConfError, Contexts, Directive, Node};
use terrace_http::conf::table::{HSL, simple};
use terrace_http::{
    Builder, Handler, LocationBuilder, Merge, MergeContext, Module, Outcome, Phase, Request, Step,
};

/// The module.
pub struct Access;

const CONTEXTS: Contexts = HSL.union(Contexts::LIMIT_EXCEPT);

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("allow", CONTEXTS, Arity::Exactly(1), "", "Lets clients in: an address, a network, unix: or all.", |b, n| add_rule(b, n, false)),
    simple("deny", CONTEXTS, Arity::Exactly(1), "", "Keeps clients out: an address, a network, unix: or all.", |b, n| add_rule(b, n, true)),
];

impl Module for Access {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let rules = &location.settings.of::<AccessConf>().rules;
        if !rules.is_empty() {
            let rules: Arc<[Rule]> = rules.as_slice().into();
            location.add(Phase::Access, AccessHandler(rules));
        }
        Ok(())
    }
}

/// The rules of a block; a block that has any does not inherit.
#[derive(Default)]
struct AccessConf {
    rules: Vec<Rule>,
}

impl Merge for AccessConf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.rules.is_empty() {
            self.rules.clone_from(&parent.rules);
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    who: Who,
    denies: bool,
}

/// Whom a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    All,
    Unix,
    Net(Network),
}

/// An IP network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Address and mask.
    V4(u32, u32),
    /// Address and mask.
    V6(u128, u128),
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or an address alone. The flag says that the address has bits beyond the
    /// prefix, which are dropped.
    pub(crate) fn parse(text: &str) -> Option<(Network, bool)> {
        let (address, prefix) = match text.split_once('/') {
            Some((a, p)) if !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) => {
                (a, Some(p.parse().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        if let Ok(ip) = address.parse::<Ipv4Addr>() {
            let mask = mask(prefix.unwrap_or(32), 32)? as u32;
            let bits = ip.to_bits();
            return Some((Network::V4(bits & mask, mask), bits & !mask != 0));
        }
        let bits = address.parse::<Ipv6Addr>().ok()?.to_bits();
        let mask = mask(prefix.unwrap_or(128), 128)?;
        Some((Network::V6(bits & mask, mask), bits & !mask != 0))
    }

    /// Whether an address of the same family lies in it.
    pub(crate) fn contains(self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Network::V4(net, mask), IpAddr::V4(ip)) => ip.to_bits() & mask == net,
            (Network::V6(net, mask), IpAddr::V6(ip)) => ip.to_bits() & mask == net,
            _ => false,
        }
    }
}

/// The mask of a prefix, in the low `width` bits.
fn mask(prefix: u32, width: u32) -> Option<u128> {
    let host = width.checked_sub(prefix)?;
    let all = u128::MAX >> (128 - width);
    Some(all & u128::MAX.checked_shl(host).unwrap_or(0))
}

fn add_rule(b: &mut Builder, node: &Node, denies: bool) -> Result<(), ConfError> {
    let who = match node.text(0)? {
        "all" => Who::All,
        "unix:" => Who::Unix,
        text => {
            let (net, has_low_bits) =
                Network::parse(text).ok_or_else(|| node.invalid_parameter(&node.args[0]))?;
            if has_low_bits {
                b.warn(&node.at, &format!("low address bits of {text} are meaningless"));
            }
            Who::Net(net)
        }
    };
    b.conf::<AccessConf>().rules.push(Rule { who, denies });
    Ok(())
}

/// The first rule about an address decides: whether it denies. `None` is a Unix socket's peer.
fn decide(rules: &[Rule], ip: Option<IpAddr>) -> Option<bool> {
    let about = |who: Who, ip: Option<IpAddr>| match who {
        Who::All => true,
        Who::Unix => ip.is_none(),
        Who::Net(net) => ip.is_some_and(|ip| net.contains(ip)),
    };
    let has_v4 = || rules.iter().any(|r| matches!(r.who, Who::All | Who::Net(Network::V4(..))));
    // nginx looks at an IPv4 address in IPv6's clothes by the rules of IPv4, where there are any.
    let ip = match ip {
        Some(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) if has_v4() => Some(IpAddr::V4(v4)),
            _ => ip,
        },
        _ => ip,
    };
    rules.iter().find(|r| about(r.who, ip)).map(|r| r.denies)
}

struct AccessHandler(Arc<[Rule]>);

impl Handler for AccessHandler {
    fn handle(&self, r: &Rc<Request>) -> Step {
        Step::Ready(match decide(&self.0, r.peer_ip()) {
            None => Outcome::Declined,
            Some(false) => Outcome::Satisfied,
            Some(true) => {
                if !r.location().core.satisfy_any {
                    r.log(Level::Error, format_args!("access forbidden by rule"));
                }
                Outcome::Status(403)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(texts: &[(&str, bool)]) -> Vec<Rule> {
        let who = |t: &str| match t {
            "all" => Who::All,
            "unix:" => Who::Unix,
            t => Who::Net(Network::parse(t).expect("a network").0),
        };
        texts.iter().map(|(t, denies)| Rule { who: who(t), denies: *denies }).collect()
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().expect("an address"))
    }

    #[test]
    fn networks_are_read_as_written() {
        assert_eq!(Network::parse("10.1.2.3/8"), Some((Network::V4(0x0a00_0000, 0xff00_0000), true)));
        assert_eq!(Network::parse("0.0.0.0/0"), Some((Network::V4(0, 0), false)));
        assert_eq!(Network::parse("::1"), Some((Network::V6(1, u128::MAX), false)));
        for bad in ["10.0.0.0/33", "10.0.0", "::/129", "1.2.3.4/", "1.2.3.4/-1", "1.2.3.4/+1", "host"] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let r = rules(&[
            ("192.168.1.1", true),
            ("192.168.1.0/24", false),
            ("2001:db8::/32", false),
            ("all", true),
        ]);
        assert_eq!(decide(&r, ip("192.168.1.1")), Some(true));
        assert_eq!(decide(&r, ip("192.168.1.2")), Some(false));
        assert_eq!(decide(&r, ip("2001:db8::5")), Some(false));
        assert_eq!(decide(&r, ip("::ffff:192.168.1.2")), Some(false));
        assert_eq!(decide(&r, None), Some(true));
        assert_eq!(decide(&rules(&[("10.0.0.0/8", true)]), ip("::1")), None);
        assert_eq!(decide(&rules(&[("unix:", false), ("all", true)]), None), Some(false));
    }
}
