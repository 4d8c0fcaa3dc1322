//! Tickets under keys from files, which all servers of a fleet have: what one gives out, the others take.
//!
//! A file is nginx's: a name of 16 bytes, and 32 or 64 secret ones. What is in a ticket is rustls', so that a fleet
//! shares tickets with its own kind only, and the secret bytes are used in another way: each ticket is encrypted under a
//! key of its own, derived from them and from random bytes in the ticket. A ticket holds the time at which it was made,
//! and is good for so long as sessions are.

use std::fmt;
use std::sync::Arc;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use terrace_base::clock;

use super::sessions::TICKET_SECS_MAX;

const NAME_BYTES: usize = 16;
const SALT_BYTES: usize = 32;
const TIME_BYTES: usize = 8;
/// How far the clocks of a fleet may be apart, seconds.
const CLOCK_SKEW_SECS: u64 = 300;
/// What sets the use of the secret bytes apart from others.
const PURPOSE: &[u8] = b"terrace session ticket 1";

/// A key from a file.
pub struct TicketKey {
    name: [u8; NAME_BYTES],
    secret: hmac::Key,
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKey").finish_non_exhaustive()
    }
}

impl TicketKey {
    /// From the bytes of a file; `None` unless they are 48 or 80.
    pub fn new(file: &[u8]) -> Option<TicketKey> {
        let (name, secret) = file.split_first_chunk()?;
        let is_good = matches!(file.len(), 48 | 80);
        is_good.then(|| TicketKey { name: *name, secret: hmac::Key::new(hmac::HMAC_SHA256, secret) })
    }

    /// What encrypts the one ticket that begins so.
    fn cipher(&self, head: &[u8]) -> Option<LessSafeKey> {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(PURPOSE);
        context.update(head);
        UnboundKey::new(&AES_256_GCM, context.sign().as_ref()).ok().map(LessSafeKey::new)
    }
}

/// Each key of a ticket is used once.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

/// Gives out tickets under the first key and takes those under any.
#[derive(Debug)]
pub(super) struct FileTickets {
    keys: Arc<[TicketKey]>,
    timeout_secs: u32,
}

impl FileTickets {
    pub(super) fn new(keys: Arc<[TicketKey]>, timeout_secs: u32) -> FileTickets {
        FileTickets { keys, timeout_secs: timeout_secs.min(TICKET_SECS_MAX) }
    }

    fn encrypt_at(&self, message: &[u8], now: u64) -> Option<Vec<u8>> {
        let key = self.keys.first()?;
        let mut head = [0; NAME_BYTES + SALT_BYTES];
        head[..NAME_BYTES].copy_from_slice(&key.name);
        SystemRandom::new().fill(&mut head[NAME_BYTES..]).ok()?;
        let mut content = [&now.to_be_bytes()[..], message].concat();
        key.cipher(&head)?.seal_in_place_append_tag(nonce(), Aad::from(head), &mut content).ok()?;
        Some([&head[..], &content].concat())
    }

    fn decrypt_at(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (head, content) = ticket.split_at_checked(NAME_BYTES + SALT_BYTES)?;
        let key = self.keys.iter().find(|k| head.starts_with(&k.name))?;
        let mut content = content.to_vec();
        let plain = key.cipher(head)?.open_in_place(nonce(), Aad::from(head), &mut content).ok()?;
        let (made, message) = plain.split_first_chunk::<TIME_BYTES>()?;
        let made = u64::from_be_bytes(*made);
        let is_of_now =
            made <= now + CLOCK_SKEW_SECS && now.saturating_sub(made) < u64::from(self.timeout_secs);
        is_of_now.then(|| message.to_vec())
    }
}

impl ProducesTickets for FileTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.timeout_secs
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_at(plain, clock::now_secs())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_at(cipher, clock::now_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets(files: &[&[u8]]) -> FileTickets {
        FileTickets::new(files.iter().map(|f| TicketKey::new(f).unwrap()).collect(), 60)
    }

    #[test]
    fn a_fleet_takes_tickets_of_its_keys_new_and_old() {
        let (old, new, other) = ([1; 80], [2; 48], [3; 80]);
        let (before, during, after) = (tickets(&[&old]), tickets(&[&new, &old]), tickets(&[&new]));
        let first = before.encrypt_at(b"session", 1000).unwrap();
        assert_eq!(during.decrypt_at(&first, 1000), Some(b"session".to_vec()));
        assert_eq!(after.decrypt_at(&first, 1000), None);
        let second = during.encrypt_at(b"session", 1000).unwrap();
        assert_eq!(after.decrypt_at(&second, 1000), Some(b"session".to_vec()));
        assert_eq!(before.decrypt_at(&second, 1000), None);
        assert_eq!(tickets(&[&other]).decrypt_at(&second, 1000), None);
        assert_ne!(second, during.encrypt_at(b"session", 1000).unwrap());
        let mut forged = old;
        forged[79] = 0;
        assert_eq!(tickets(&[&forged]).decrypt_at(&first, 1000), None, "the name alone does not do");
    }

    #[test]
    fn tickets_end_and_changes_are_found() {
        let all = tickets(&[&[1; 48]]);
        let ticket = all.encrypt_at(b"session", 1000).unwrap();
        assert_eq!(all.decrypt_at(&ticket, 1059), Some(b"session".to_vec()));
        assert_eq!(all.decrypt_at(&ticket, 1060), None);
        assert_eq!(all.decrypt_at(&ticket, 700), Some(b"session".to_vec()));
        assert_eq!(all.decrypt_at(&ticket, 699), None);
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(all.decrypt_at(&changed, 1000), None);
            assert_eq!(all.decrypt_at(&ticket[..at], 1000), None);
        }
        assert!([0, 16, 47, 49, 79, 81].iter().all(|n| TicketKey::new(&vec![1; *n]).is_none()));
    }
}
