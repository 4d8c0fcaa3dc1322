//! Sessions that are kept elsewhere, by a script: what was found for one handshake, and what the handshake makes.
//!
//! The store of a server asks nobody and cannot wait; so whoever keeps sessions elsewhere looks up the one that the
//! client names before the handshake is answered, and takes the new ones away after it.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::server::StoresServerSessions;
use terrace_base::clock;

/// The longest number of a session (RFC 5246 section 7.4.1.2; those of TLS 1.3 are as long here).
pub(super) const ID_BYTES_MAX: usize = 32;
/// The longest form of a session that is taken or given, bytes (OpenResty's bound).
pub const SESSION_BYTES_MAX: usize = 4096;
/// How many new sessions of one handshake are kept; two are usual in TLS 1.3.
const MADE_MAX: usize = 4;
/// What the form begins with: its kind and version.
const MAGIC: &[u8; 4] = b"TLS\x01";
/// Magic and the time of its end, Unix seconds.
const HEAD_BYTES: usize = 12;

/// A session in a form that other servers of the same kind read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MadeSession {
    /// Its number.
    pub id: Vec<u8>,
    /// Its form, opaque: `TLS\x01`, the time of its end, and what rustls makes of it. It holds secrets.
    pub serialized: Vec<u8>,
}

/// The sessions of one handshake.
#[derive(Debug)]
pub struct ExternalSessions {
    /// The server's own store.
    own: Arc<dyn StoresServerSessions>,
    /// The number and the value of what was found.
    found: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether new sessions are wanted.
    records: bool,
    timeout_secs: u64,
    made: Mutex<Vec<MadeSession>>,
}

/// Whether bytes have the form of a session, though it may be too old.
pub fn is_session(serialized: &[u8]) -> bool {
    (HEAD_BYTES + 1..=SESSION_BYTES_MAX).contains(&serialized.len()) && serialized.starts_with(MAGIC)
}

impl ExternalSessions {
    pub(super) fn new(
        own: Arc<dyn StoresServerSessions>,
        found: Option<MadeSession>,
        records: bool,
        timeout_ms: u64,
    ) -> ExternalSessions {
        let now = clock::now_secs();
        let found = found.and_then(|s| {
            let head = s.serialized.get(..HEAD_BYTES).filter(|_| is_session(&s.serialized))?;
            let end = u64::from_be_bytes(head[MAGIC.len()..].try_into().ok()?);
            (end > now).then(|| (s.id, s.serialized[HEAD_BYTES..].to_vec()))
        });
        ExternalSessions { own, found, records, timeout_secs: timeout_ms / 1000, made: Mutex::default() }
    }

    /// The sessions that the handshake has made.
    pub fn take_made(&self) -> Vec<MadeSession> {
        std::mem::take(&mut *self.made.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn find(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.found.as_ref().filter(|(id, _)| id == key).map(|(_, value)| value.clone())
    }
}

impl StoresServerSessions for ExternalSessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        if self.records {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            if made.len() < MADE_MAX {
                let end = clock::now_secs() + self.timeout_secs;
                let serialized = [&MAGIC[..], &end.to_be_bytes(), &value].concat();
                made.push(MadeSession { id: key.clone(), serialized });
            }
        }
        self.own.put(key, value) || self.records
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.find(key).or_else(|| self.own.get(key))
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.find(key).or_else(|| self.own.take(key))
    }

    fn can_cache(&self) -> bool {
        self.records || self.own.can_cache()
    }
}

#[cfg(test)]
mod tests {
    use rustls::server::NoServerSessionStorage;

    use super::*;

    fn store(found: Option<MadeSession>, timeout_ms: u64) -> ExternalSessions {
        ExternalSessions::new(Arc::new(NoServerSessionStorage {}), found, true, timeout_ms)
    }

    #[test]
    fn what_one_makes_another_finds() {
        let first = store(None, 60_000);
        assert!(first.put(b"number".to_vec(), b"value".to_vec()));
        let made = first.take_made().remove(0);
        assert_eq!(made.id, b"number");
        let second = store(Some(made), 60_000);
        assert_eq!(second.get(b"number"), Some(b"value".to_vec()));
        assert_eq!(second.take(b"another"), None);
        let old = store(None, 0);
        assert!(old.put(b"number".to_vec(), b"value".to_vec()));
        assert_eq!(store(old.take_made().pop(), 60_000).get(b"number"), None, "it is too old");
    }

    #[test]
    fn what_is_no_session_is_not_found_and_bounds_hold() {
        for bad in
            [&b""[..], b"TLS\x01", b"TLS\x01\xff\xff\xff\xff\xff\xff\xff\xff", b"TLS\x02\0\0\0\0\0\0\0\0x"]
        {
            assert!(!is_session(bad));
            let found = MadeSession { id: b"number".to_vec(), serialized: bad.to_vec() };
            assert_eq!(store(Some(found), 60_000).get(b"number"), None);
        }
        let mut large = MAGIC.to_vec();
        large.resize(SESSION_BYTES_MAX, 0);
        assert!(is_session(&large));
        large.push(0);
        assert!(!is_session(&large));
        let many = store(None, 60_000);
        (0..9_u8).for_each(|i| assert!(many.put(vec![i], Vec::new())));
        assert_eq!(many.take_made().len(), MADE_MAX);
    }
}
