//! The addresses of a name, given out by turns.

use std::cell::Cell;
use std::net::IpAddr;

/// All addresses of a name. There is at least one.
#[derive(Debug)]
pub struct Addresses {
    /// Those of IPv4 first, each once.
    all: Box<[IpAddr]>,
    v4: usize,
    turn: Cell<usize>,
}

impl Addresses {
    /// `None` without any; `turn` says which one is given out first.
    pub(super) fn new(found: impl IntoIterator<Item = IpAddr>, turn: usize) -> Option<Addresses> {
        let mut all: Vec<IpAddr> = Vec::new();
        for ip in found {
            if !all.contains(&ip) {
                all.push(ip);
            }
        }
        all.sort_by_key(IpAddr::is_ipv6);
        let v4 = all.iter().filter(|ip| ip.is_ipv4()).count();
        (!all.is_empty()).then(|| Addresses { all: all.into(), v4, turn: Cell::new(turn) })
    }

    /// All of them, those of IPv4 first. Each call begins with the next one of a kind.
    pub fn by_turns(&self) -> impl Iterator<Item = IpAddr> {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        let (v4, v6) = self.all.split_at(self.v4);
        turned(v4, turn).chain(turned(v6, turn))
    }
}

fn turned(all: &[IpAddr], turn: usize) -> impl Iterator<Item = IpAddr> {
    let (end, start) = all.split_at(turn.checked_rem(all.len()).unwrap_or(0));
    start.iter().chain(end).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_takes_turns() {
        let ips = ["::1", "1.1.1.1", "::2", "2.2.2.2", "1.1.1.1", "3.3.3.3"].map(|a| a.parse().unwrap());
        let all = Addresses::new(ips, 0).unwrap();
        let turn = || all.by_turns().map(|a| a.to_string()).collect::<Vec<_>>().join(" ");
        assert_eq!(turn(), "1.1.1.1 2.2.2.2 3.3.3.3 ::1 ::2");
        assert_eq!(turn(), "2.2.2.2 3.3.3.3 1.1.1.1 ::2 ::1");
        assert_eq!(turn(), "3.3.3.3 1.1.1.1 2.2.2.2 ::1 ::2");
        assert_eq!(turn(), "1.1.1.1 2.2.2.2 3.3.3.3 ::2 ::1");
        assert!(Addresses::new([], 0).is_none());
    }
}
