//! Where a server's sessions are: in tickets that clients keep, and in a bounded store for clients that take none.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::TicketRotator;
use rustls::server::{ProducesTickets, StoresServerSessions};
use terrace_base::clock;

/// Sessions by their number, at most so many; the oldest makes room.
///
/// Invariant: each key of `by_key` stands in `order` once or more, and `order` is never longer than twice `max`.
#[derive(Debug)]
pub(super) struct Sessions {
    max: usize,
    timeout_ms: u64,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    by_key: HashMap<Vec<u8>, Session>,
    order: VecDeque<Vec<u8>>,
}

#[derive(Debug)]
struct Session {
    value: Vec<u8>,
    expires_ms: u64,
}

/// The longest that a ticket may be good (RFC 8446 section 4.6.1).
pub(super) const TICKET_SECS_MAX: u32 = 604_800;

impl Sessions {
    /// At most `max` sessions for `timeout_ms` each.
    pub(super) fn new(max: usize, timeout_ms: u64) -> Sessions {
        Sessions { max, timeout_ms, kept: Mutex::default() }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Kept) -> T) -> T {
        f(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        let expires_ms = clock::monotonic_ms().saturating_add(self.timeout_ms);
        self.with(|kept| {
            while kept.by_key.len() >= self.max || kept.order.len() >= self.max.saturating_mul(2) {
                let Some(oldest) = kept.order.pop_front() else { break };
                kept.by_key.remove(&oldest);
            }
            kept.order.push_back(key.clone());
            kept.by_key.insert(key, Session { value, expires_ms });
        });
        true
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let now = clock::monotonic_ms();
        self.with(|kept| kept.by_key.get(key).filter(|s| s.expires_ms > now).map(|s| s.value.clone()))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        let now = clock::monotonic_ms();
        self.with(|kept| kept.by_key.remove(key)).filter(|s| s.expires_ms > now).map(|s| s.value)
    }

    fn can_cache(&self) -> bool {
        self.max > 0
    }
}

/// What makes tickets that are good for `timeout_secs` to twice that. One for each time and process: a ticket outlives
/// a reload, as its keys do, which change by themselves.
pub(super) fn ticketer(timeout_secs: u32) -> Option<Arc<dyn ProducesTickets>> {
    let timeout_secs = timeout_secs.min(TICKET_SECS_MAX / 2);
    static TICKETERS: Mutex<Vec<(u32, Arc<TicketRotator>)>> = Mutex::new(Vec::new());
    let mut all = TICKETERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, known)) = all.iter().find(|(secs, _)| *secs == timeout_secs) {
        return Some(Arc::clone(known) as Arc<dyn ProducesTickets>);
    }
    let made = Arc::new(TicketRotator::new(timeout_secs, || Ok(Box::new(Keys(new_keys()?)))).ok()?);
    all.push((timeout_secs, Arc::clone(&made)));
    Some(made)
}

fn new_keys() -> Result<Arc<dyn ProducesTickets>, rustls::crypto::GetRandomFailed> {
    rustls::crypto::ring::Ticketer::new().map_err(|_| rustls::crypto::GetRandomFailed)
}

/// The keys of one span of time.
#[derive(Debug)]
struct Keys(Arc<dyn ProducesTickets>);

impl ProducesTickets for Keys {
    fn enabled(&self) -> bool {
        self.0.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.0.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.0.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.0.decrypt(cipher)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_session_makes_room_and_old_ones_are_not_given() {
        let sessions = Sessions::new(2, 1000);
        for key in ["a", "b", "c"] {
            assert!(sessions.put(key.into(), b"value".to_vec()));
        }
        assert_eq!(sessions.get(b"a"), None);
        assert_eq!(sessions.take(b"b"), Some(b"value".to_vec()));
        assert_eq!(sessions.take(b"b"), None);
        assert_eq!(sessions.get(b"c"), Some(b"value".to_vec()));
        let sessions = Sessions::new(2, 0);
        assert!(sessions.put(b"a".to_vec(), Vec::new()));
        assert_eq!(sessions.get(b"a"), None);
    }

    #[test]
    fn tickets_are_read_by_later_generations() {
        let (first, second) = (ticketer(60).unwrap(), ticketer(60).unwrap());
        let ticket = first.encrypt(b"session").unwrap();
        assert_eq!(second.decrypt(&ticket), Some(b"session".to_vec()));
        assert_eq!(ticketer(61).unwrap().decrypt(&ticket), None);
        assert_eq!(first.lifetime(), 120);
        assert_eq!(ticketer(u32::MAX).unwrap().lifetime(), 604_800);
    }
}
