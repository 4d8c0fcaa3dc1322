//! The ring of `hash KEY consistent`: nginx's ketama points, which agree with Cache::Memcached::Fast.
//!
//! Each unit of weight gives a server 160 points. A point is the CRC-32 of the host, a zero byte, the port, and
//! the server's previous point as four little-endian bytes (zero for the first). Invariant: points are sorted
//! and distinct.

use crate::group::Peer;

/// Points for each unit of weight.
pub(crate) const POINTS_PER_WEIGHT: u64 = 160;
/// The most points of one group (64 MiB of them).
pub const POINTS_MAX: u64 = 1 << 23;

#[derive(Clone, Copy, Debug)]
struct Point {
    hash: u32,
    server_id: u32,
}

#[derive(Debug, Default)]
pub(crate) struct Ring {
    points: Vec<Point>,
}

impl Ring {
    pub(crate) fn new(peers: &[Peer]) -> Self {
        let mut points = Vec::new();
        for peer in peers {
            let (host, port) = host_and_port(peer.spec.server.as_bytes());
            let mut base = crc32fast::Hasher::new();
            base.update(host);
            base.update(&[0]);
            base.update(port);
            let mut previous = 0_u32;
            for _ in 0..u64::from(peer.spec.weight) * POINTS_PER_WEIGHT {
                let mut hasher = base.clone();
                hasher.update(&previous.to_le_bytes());
                previous = hasher.finalize();
                points.push(Point { hash: previous, server_id: peer.server_id });
            }
        }
        // Stable, so that of two servers on one point the first configured one keeps it.
        points.sort_by_key(|point| point.hash);
        points.dedup_by_key(|point| point.hash);
        Self { points }
    }

    /// The first point at or after `hash`; may be one past the end, which [`Ring::server_id`] wraps.
    pub(crate) fn find(&self, hash: u32) -> u32 {
        self.points.partition_point(|point| point.hash < hash) as u32
    }

    pub(crate) fn server_id(&self, point: u32) -> Option<u32> {
        let position = (point as usize).checked_rem(self.points.len())?;
        Some(self.points[position].server_id)
    }
}

/// Splits at a colon that only digits follow; a Unix path is all host, without its prefix.
fn host_and_port(server: &[u8]) -> (&[u8], &[u8]) {
    if server.len() >= 5 && server[..5].eq_ignore_ascii_case(b"unix:") {
        return (&server[5..], &[]);
    }
    match server.iter().rposition(|byte| !byte.is_ascii_digit()) {
        Some(colon) if server[colon] == b':' => (&server[..colon], &server[colon + 1..]),
        _ => (server, &[]),
    }
}
