//! One request's choice of peers: which were tried, and which is next.

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::group::{Group, Method, PeerIndex, PeerSet};

/// Misses after which the hashing and random methods leave the choice to round robin.
const TRIES_MAX: u32 = 20;
/// nginx's constants of `ip_hash`.
const IP_HASH_START: u32 = 89;
const IP_HASH_FACTOR: u32 = 113;
const IP_HASH_MODULUS: u32 = 6271;

/// What the methods choose by; each reads only its own field.
#[derive(Clone, Copy, Debug, Default)]
pub struct Input<'a> {
    /// The evaluated key of `hash`; with an empty one, round robin chooses.
    pub key: &'a [u8],
    /// The client's address for `ip_hash`; `None` for a client on a Unix socket.
    pub address: Option<IpAddr>,
    /// Fresh random bits for `random`.
    pub random: u64,
}

/// The state of choosing peers for one request.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    tried: SmallVec<[u64; 2]>,
    on_backup: bool,
    misses: u32,
    /// `hash`: the sum so far; consistent: the ring point; `ip_hash`: the running hash.
    hash: u32,
    rehash: u32,
    started: bool,
}

impl Selection {
    /// Nothing tried yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next peer, `None` when no live one is left. Counts as a connection of the peer until
    /// [`Group::release`]. `input` must be the same for all calls, but for the random bits.
    pub fn next(&mut self, group: &mut Group, input: Input<'_>, now_ms: u64) -> Option<PeerIndex> {
        if group.is_single() {
            let peer = &mut group.primary.peers[0];
            if peer.spec.down || peer.is_full() {
                return None;
            }
            peer.conns += 1;
            return Some(PeerIndex { backup: false, position: 0 });
        }
        let chosen = if self.on_backup || self.misses > TRIES_MAX {
            None
        } else {
            match group.method {
                Method::RoundRobin | Method::LeastConn => None,
                Method::IpHash => self.by_address(group, input.address, now_ms),
                Method::Hash => self.by_hash(group, input.key, now_ms),
                Method::ConsistentHash => self.by_ring(group, input.key, now_ms),
                Method::Random => self.by_random(group, input.random, now_ms),
                Method::RandomTwoLeastConn => self.by_random_two(group, input.random, now_ms),
            }
        };
        let position = match chosen {
            Some(position) => position,
            None => self.in_order(group, now_ms)?,
        };
        self.mark(position);
        let backup = self.on_backup;
        let peer = &mut group.set_mut(backup).peers[position];
        if now_ms.saturating_sub(peer.checked_ms) > peer.spec.fail_timeout_ms {
            peer.checked_ms = now_ms;
        }
        peer.conns += 1;
        Some(PeerIndex { backup, position })
    }

    /// Round robin or least connections, among the primaries, then the backups.
    fn in_order(&mut self, group: &mut Group, now_ms: u64) -> Option<usize> {
        loop {
            let least = group.method == Method::LeastConn;
            let set = group.set_mut(self.on_backup);
            let chosen = if least { self.least_conn(set, now_ms) } else { self.round_robin(set, now_ms) };
            if chosen.is_some() {
                return chosen;
            }
            if self.on_backup || group.backup.peers.is_empty() {
                return None;
            }
            self.on_backup = true;
            self.tried.clear();
        }
    }

    fn round_robin(&self, set: &mut PeerSet, now_ms: u64) -> Option<usize> {
        self.weighted(set, |position, set| self.is_usable(set, position, now_ms))
    }

    /// Smooth weighted round robin among the peers that pass: each gains its effective weight, the richest is
    /// chosen and pays the sum of all.
    fn weighted(&self, set: &mut PeerSet, pass: impl Fn(usize, &PeerSet) -> bool) -> Option<usize> {
        let mut total = 0;
        let mut best: Option<(usize, i64)> = None;
        for position in 0..set.peers.len() {
            if !pass(position, set) {
                continue;
            }
            let peer = &mut set.peers[position];
            peer.current_weight += peer.effective_weight;
            total += peer.effective_weight;
            if peer.effective_weight < peer.weight() {
                peer.effective_weight += 1;
            }
            if best.is_none_or(|(_, weight)| peer.current_weight > weight) {
                best = Some((position, peer.current_weight));
            }
        }
        let (position, _) = best?;
        set.peers[position].current_weight -= total;
        Some(position)
    }

    /// The least connections per weight; among equals, weighted round robin.
    fn least_conn(&self, set: &mut PeerSet, now_ms: u64) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut many = false;
        for position in 0..set.peers.len() {
            if !self.is_usable(set, position, now_ms) {
                continue;
            }
            match best.map_or(std::cmp::Ordering::Less, |best| compare_load(set, position, best)) {
                std::cmp::Ordering::Less => (best, many) = (Some(position), false),
                std::cmp::Ordering::Equal => many = true,
                std::cmp::Ordering::Greater => {}
            }
        }
        let first = best?;
        if !many {
            return Some(first);
        }
        self.weighted(set, |position, set| {
            self.is_usable(set, position, now_ms) && compare_load(set, position, first).is_eq()
        })
    }

    fn by_address(&mut self, group: &Group, address: Option<IpAddr>, now_ms: u64) -> Option<usize> {
        if group.primary.peers.len() < 2 {
            return None;
        }
        let octets: SmallVec<[u8; 16]> = match address {
            Some(IpAddr::V4(address)) => SmallVec::from_slice(&address.octets()[..3]),
            Some(IpAddr::V6(address)) => SmallVec::from_slice(&address.octets()),
            None => SmallVec::from_slice(&[0; 3]),
        };
        if !self.started {
            self.started = true;
            self.hash = IP_HASH_START;
        }
        self.until_usable(group, now_ms, |selection, set| {
            for octet in &octets {
                selection.hash = (selection.hash * IP_HASH_FACTOR + u32::from(*octet)) % IP_HASH_MODULUS;
            }
            set.position_by_weight(u64::from(selection.hash))
        })
    }

    fn by_hash(&mut self, group: &Group, key: &[u8], now_ms: u64) -> Option<usize> {
        if group.primary.peers.len() < 2 || key.is_empty() {
            return None;
        }
        self.until_usable(group, now_ms, |selection, set| {
            let mut crc = crc32fast::Hasher::new();
            if selection.rehash > 0 {
                crc.update(selection.rehash.to_string().as_bytes());
            }
            crc.update(key);
            selection.hash = selection.hash.wrapping_add((crc.finalize() >> 16) & 0x7fff);
            selection.rehash += 1;
            set.position_by_weight(u64::from(selection.hash))
        })
    }

    fn by_ring(&mut self, group: &mut Group, key: &[u8], now_ms: u64) -> Option<usize> {
        if key.is_empty() {
            return None;
        }
        if !self.started {
            self.started = true;
            self.hash = group.ring.find(crc32fast::hash(key));
        }
        loop {
            let server_id = group.ring.server_id(self.hash)?;
            // One `server` may stand for several addresses; they take turns.
            let chosen = self.weighted(&mut group.primary, |position, set| {
                set.peers[position].server_id == server_id && self.is_usable(set, position, now_ms)
            });
            if chosen.is_some() {
                return chosen;
            }
            self.hash = self.hash.wrapping_add(1);
            self.misses += 1;
            if self.misses > TRIES_MAX {
                return None;
            }
        }
    }

    fn by_random(&mut self, group: &Group, random: u64, now_ms: u64) -> Option<usize> {
        if group.primary.peers.len() < 2 {
            return None;
        }
        let mut draw = Draw(random);
        self.until_usable(group, now_ms, |_, set| set.position_by_weight(draw.next()))
    }

    fn by_random_two(&mut self, group: &Group, random: u64, now_ms: u64) -> Option<usize> {
        let set = &group.primary;
        if set.peers.len() < 2 {
            return None;
        }
        let mut draw = Draw(random);
        let mut first = None;
        loop {
            let position = set.position_by_weight(draw.next());
            if first != Some(position) && self.is_usable(set, position, now_ms) {
                match first {
                    None => {
                        first = Some(position);
                        continue;
                    }
                    Some(first) if compare_load(set, position, first).is_gt() => return Some(first),
                    Some(_) => return Some(position),
                }
            }
            self.misses += 1;
            if self.misses > TRIES_MAX {
                return None;
            }
        }
    }

    /// Draws positions among the primaries until one is usable or the misses run out.
    fn until_usable(
        &mut self,
        group: &Group,
        now_ms: u64,
        mut draw: impl FnMut(&mut Self, &PeerSet) -> usize,
    ) -> Option<usize> {
        loop {
            let position = draw(self, &group.primary);
            if self.is_usable(&group.primary, position, now_ms) {
                return Some(position);
            }
            self.misses += 1;
            if self.misses > TRIES_MAX {
                return None;
            }
        }
    }

    fn is_usable(&self, set: &PeerSet, position: usize, now_ms: u64) -> bool {
        let tried = self.tried.get(position / 64).is_some_and(|word| word & (1 << (position % 64)) != 0);
        !tried && set.peers[position].is_available(now_ms)
    }

    fn mark(&mut self, position: usize) {
        let word = position / 64;
        if self.tried.len() <= word {
            self.tried.resize(word + 1, 0);
        }
        self.tried[word] |= 1 << (position % 64);
    }
}

/// Compares connections per weight of two peers, without dividing.
fn compare_load(set: &PeerSet, left: usize, right: usize) -> std::cmp::Ordering {
    let (left, right) = (&set.peers[left], &set.peers[right]);
    (i64::from(left.conns) * right.weight()).cmp(&(i64::from(right.conns) * left.weight()))
}

/// Stretches one request's random bits over several draws (the splitmix64 sequence).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }
}
