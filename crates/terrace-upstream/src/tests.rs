//! Balancing against sequences and mappings observed with nginx 1.22.1, failures, and pools.

use std::net::IpAddr;

use super::*;

/// The servers of the observed groups; a vector names a server by the last digit of its port.
const PORTS: [u16; 5] = [38101, 38102, 38103, 38104, 38105];
const WEIGHTS: [u32; 5] = [1, 3, 1, 2, 1];
const NOW_MS: u64 = 1_000_000;

fn peer(port: u16) -> PeerSpec {
    let address = ([127, 0, 0, 1], port).into();
    PeerSpec::new(Address::Inet(address), &format!("127.0.0.1:{port}"))
}

fn group(method: Method, weights: &[u32]) -> Group {
    let specs = weights.iter().zip(38101..).map(|(weight, port)| PeerSpec { weight: *weight, ..peer(port) });
    Group::new(method, specs.collect()).unwrap()
}

fn pick(group: &mut Group, input: Input<'_>, now_ms: u64) -> Option<usize> {
    let index = Selection::new().next(group, input, now_ms)?;
    group.release(index);
    Some(index.position)
}

fn digits(group: &mut Group, inputs: impl Iterator<Item = String>, by_address: bool) -> String {
    let digit = |text: String| {
        let address: Option<IpAddr> = if by_address { text.parse().ok() } else { None };
        let input = Input { key: text.as_bytes(), address, random: 0 };
        let position = pick(group, input, NOW_MS).unwrap();
        char::from(b'1' + position as u8)
    };
    inputs.map(digit).collect()
}

fn keys() -> impl Iterator<Item = String> {
    let products = (0..30).map(|i| format!("product:{}", 1000 + 37 * i));
    (0..60).map(|i| format!("key{i}")).chain(products)
}

#[test]
fn hashes_map_as_in_nginx() {
    let consistent =
        "243322145322325244414522522334243425124241522421214122542525252324244322252424132422252442";
    let plain = "234242151532242451512451322424243251242423424215151542422323432213221521424222224514311241";
    assert_eq!(digits(&mut group(Method::ConsistentHash, &WEIGHTS), keys(), false), consistent);
    assert_eq!(digits(&mut group(Method::Hash, &WEIGHTS), keys(), false), plain);
}

#[test]
fn hashes_pass_over_a_down_server_as_in_nginx() {
    let specs = || PORTS.map(|port| PeerSpec { down: port == 38103, ..peer(port) }).to_vec();
    let consistent =
        "244521125521245114514522521154145425122251521421514122542545551415144522452524141422251444";
    let plain = "424425244525511245425525214152142121524245251124244511211512442515225141414442442515525524";
    let mut group = Group::new(Method::ConsistentHash, specs()).unwrap();
    assert_eq!(digits(&mut group, keys(), false), consistent);
    let mut group = Group::new(Method::Hash, specs()).unwrap();
    assert_eq!(digits(&mut group, keys(), false), plain);
}

#[test]
fn addresses_map_as_in_nginx() {
    let mut group = group(Method::IpHash, &WEIGHTS);
    let tens = (1..=40).map(|i| format!("10.{i}.{}.7", i * 7 % 256));
    let v4 = tens.chain((0..20).map(|i| format!("192.168.{}.1", i * 5)));
    assert_eq!(digits(&mut group, v4, true), "444444444444444444444444444444444444444424214253242142532421");
    let v6 = (1..=30).map(|i| format!("2001:db8::{:x}", i * 977));
    assert_eq!(digits(&mut group, v6, true), "214252142132421424214253242532");
}

#[test]
fn round_robin_is_smooth() {
    let mut observed = group(Method::RoundRobin, &WEIGHTS);
    let sequence = (0..16).map(|_| String::new());
    assert_eq!(digits(&mut observed, sequence, false), "2412354224123542");
    let mut documented = group(Method::RoundRobin, &[5, 1, 1]);
    let sequence = (0..14).map(|_| String::new());
    assert_eq!(digits(&mut documented, sequence, false), "11213111121311");
}

#[test]
fn removing_a_server_moves_only_its_keys() {
    let place = |ports: &[u16]| {
        let specs = ports.iter().map(|port| peer(*port)).collect();
        let mut group = Group::new(Method::ConsistentHash, specs).unwrap();
        let port = |i: u32| {
            let key = format!("k{i}");
            let input = Input { key: key.as_bytes(), ..Input::default() };
            ports[pick(&mut group, input, NOW_MS).unwrap()]
        };
        (0..2_000).map(port).collect::<Vec<_>>()
    };
    let (all, fewer) = (place(&PORTS), place(&PORTS[..4]));
    let moved = all.iter().zip(&fewer).filter(|(before, after)| before != after).count();
    assert_eq!(moved, all.iter().filter(|port| **port == PORTS[4]).count());
    assert!((200..600).contains(&moved), "{moved} of 2000 keys moved");
}

#[test]
fn a_failed_peer_comes_back_after_its_timeout() {
    let specs = PORTS[..2].iter().map(|port| PeerSpec { max_fails: 2, ..peer(*port) }).collect();
    let mut group = Group::new(Method::RoundRobin, specs).unwrap();
    let first = PeerIndex { backup: false, position: 0 };
    assert_eq!(pick(&mut group, Input::default(), NOW_MS), Some(0));
    assert!(!group.report(first, Outcome::Failed, NOW_MS));
    assert!(group.report(first, Outcome::Failed, NOW_MS), "the second failure takes it out");
    for _ in 0..4 {
        assert_eq!(pick(&mut group, Input::default(), NOW_MS + 10_000), Some(1));
    }
    let later_ms = NOW_MS + 10_001;
    let chosen = (0..6).filter(|_| pick(&mut group, Input::default(), later_ms) == Some(0)).count();
    assert!(chosen > 0, "tried again once the timeout has passed");
    group.report(first, Outcome::Failed, later_ms);
    assert_eq!(group.peer(first).unwrap().fails(), 3);
    let again_ms = later_ms + 10_001;
    while pick(&mut group, Input::default(), again_ms) != Some(0) {}
    group.report(first, Outcome::Ok, again_ms);
    assert_eq!(group.peer(first).unwrap().fails(), 0);
}

#[test]
fn a_request_tries_primaries_then_backups_then_none() {
    let mut specs: Vec<_> = PORTS.iter().map(|port| peer(*port)).collect();
    specs[1].down = true;
    specs[3].backup = true;
    specs[4].backup = true;
    for method in
        [Method::RoundRobin, Method::LeastConn, Method::Hash, Method::ConsistentHash, Method::Random]
    {
        let mut group = Group::new(method, specs.clone()).unwrap();
        assert_eq!(group.tries(), 4);
        let mut selection = Selection::new();
        let input = Input { key: b"k", random: 42, ..Input::default() };
        let order: Vec<_> = std::iter::from_fn(|| selection.next(&mut group, input, NOW_MS)).collect();
        let mut names: Vec<_> = order.iter().map(|index| (index.backup, index.position)).collect();
        names.sort_unstable();
        assert_eq!(names, [(false, 0), (false, 2), (true, 0), (true, 1)], "{method:?}");
        assert!(order.is_sorted_by_key(|index| index.backup), "{method:?} took a backup early");
        order.into_iter().for_each(|index| group.release(index));
        assert!(group.peers().all(|peer| peer.conns() == 0));
    }
}

#[test]
fn a_single_peer_is_never_taken_out() {
    let mut group = Group::new(Method::ConsistentHash, vec![peer(38101)]).unwrap();
    for _ in 0..5 {
        let index = Selection::new().next(&mut group, Input::default(), NOW_MS).unwrap();
        assert!(!group.report(index, Outcome::Failed, NOW_MS));
        group.release(index);
    }
    assert_eq!(group.tries(), 1);
}

#[test]
fn connections_bound_and_balance() {
    let mut group = group(Method::LeastConn, &[1, 2]);
    let mut count = [0; 2];
    for _ in 0..9 {
        count[Selection::new().next(&mut group, Input::default(), NOW_MS).unwrap().position] += 1;
    }
    assert_eq!(count, [3, 6]);
    let full = PeerSpec { max_conns: 1, ..peer(38101) };
    let mut group = Group::new(Method::RoundRobin, vec![full]).unwrap();
    let index = Selection::new().next(&mut group, Input::default(), NOW_MS).unwrap();
    assert_eq!(Selection::new().next(&mut group, Input::default(), NOW_MS), None);
    group.release(index);
    assert_eq!(Selection::new().next(&mut group, Input::default(), NOW_MS), Some(index));
}

#[test]
fn random_follows_weights_and_two_prefers_the_idle() {
    let mut weighted = group(Method::Random, &[1, 3]);
    let heavy = (0..4_000)
        .filter(|i| pick(&mut weighted, Input { random: *i, ..Input::default() }, NOW_MS) == Some(1))
        .count();
    assert!((2_800..3_200).contains(&heavy), "{heavy} of 4000");
    let mut two = group(Method::RandomTwoLeastConn, &[1, 1]);
    let mut count = [0_i32; 2];
    for random in 0..100 {
        let input = Input { random, ..Input::default() };
        count[Selection::new().next(&mut two, input, NOW_MS).unwrap().position] += 1;
    }
    assert!((count[0] - count[1]).abs() <= 1, "{count:?}");
}

#[test]
fn groups_refuse_what_cannot_be_balanced() {
    let refused = |method, specs| Group::new(method, specs).unwrap_err();
    let backup = PeerSpec { backup: true, ..peer(38101) };
    assert_eq!(refused(Method::RoundRobin, vec![backup]), GroupError::NoServers);
    let weightless = PeerSpec { weight: 0, ..peer(38101) };
    assert_eq!(
        refused(Method::RoundRobin, vec![weightless]),
        GroupError::ZeroWeight("127.0.0.1:38101".to_owned())
    );
    let huge = PeerSpec { weight: u32::MAX, ..peer(38101) };
    assert!(matches!(refused(Method::ConsistentHash, vec![huge]), GroupError::TooManyPoints(_)));
}

#[test]
fn a_pool_reuses_the_latest_and_closes_the_oldest() {
    let address = |port: u16| peer(port).address;
    let mut pool = KeepalivePool::new(KeepaliveConfig::new(2));
    for (port, connection) in [(1, "a"), (1, "b")] {
        assert_eq!(pool.put(address(port), Pooled::new(connection, 0), 10), None);
    }
    assert_eq!(pool.put(address(2), Pooled::new("c", 0), 20), Some("a"));
    assert_eq!((pool.len(), pool.evicted()), (2, 1));
    assert!(pool.take(&address(3), 20, |_| true).is_none());
    let reused = pool.take(&address(1), 20, |_| true).unwrap();
    assert_eq!((reused.connection, reused.requests()), ("b", 2));
    assert_eq!(pool.next_expiry_ms(), Some(60_020));
    assert!(pool.take(&address(2), 60_020, |_| true).is_none(), "idle for too long");
    assert!(pool.is_empty());
}

#[test]
fn connections_with_limits_of_their_own_expire_by_these() {
    let address = peer(1).address;
    let own = |timeout_ms| KeepaliveConfig { timeout_ms, ..KeepaliveConfig::new(3) };
    let mut pool = KeepalivePool::new(KeepaliveConfig::new(3));
    for (connection, timeout_ms) in [("ever", u64::MAX), ("long", 500), ("short", 100)] {
        assert_eq!(pool.put_within(own(timeout_ms), address.clone(), Pooled::new(connection, 0), 10), None);
    }
    assert_eq!(pool.next_expiry_ms(), Some(110));
    assert_eq!((pool.expire(109), pool.expire(110)), (0, 1));
    assert_eq!(pool.next_expiry_ms(), Some(510));
    assert_eq!((pool.expire(u64::MAX - 1), pool.next_expiry_ms()), (1, None));
    assert_eq!(pool.take(&address, u64::MAX - 1, |_| true).map(|p| p.connection), Some("ever"));
}

#[test]
fn a_pool_keeps_no_worn_out_connection() {
    let address = peer(1).address;
    let config = KeepaliveConfig { requests_max: 2, time_ms: 100, ..KeepaliveConfig::new(4) };
    let mut pool = KeepalivePool::new(config);
    assert_eq!(pool.put(address.clone(), Pooled::new("old", 0), 101), Some("old"));
    assert_eq!(pool.put(address.clone(), Pooled::new("x", 0), 100), None);
    let second = pool.take(&address, 100, |_| true).unwrap();
    assert_eq!(pool.put(address.clone(), second, 100), Some("x"), "its requests are used up");
    assert_eq!(pool.put(address.clone(), Pooled::new("closed", 90), 100), None);
    pool.retain(|connection| *connection != "closed");
    assert!(pool.is_empty());
    let mut none = KeepalivePool::new(KeepaliveConfig::new(0));
    assert_eq!(none.put(address, Pooled::new("y", 0), 0), Some("y"));
}
