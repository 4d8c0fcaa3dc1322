//! A client's first message, read before it is known which server answers.

use std::fmt;

use rustls::server::Accepted;
use rustls::{CipherSuite, NamedGroup};

use super::Protocols;
use super::ciphers::{cipher_name, curve_name};
use super::external::ID_BYTES_MAX;

/// Numbers of versions.
const TLS12: usize = 0x0303;
const TLS13: usize = 0x0304;
/// Numbers of extensions (RFC 5077, RFC 8446 section 4.2).
const SESSION_TICKET: u16 = 35;
const PRE_SHARED_KEY: u16 = 41;
const SUPPORTED_VERSIONS: u16 = 43;

/// A `ClientHello` that waits for its answer.
pub struct Hello {
    pub(super) accepted: Accepted,
    /// The records as they came.
    raw: Vec<u8>,
}

/// What of it variables tell later.
#[derive(Debug, Default)]
pub(super) struct Offered {
    suites: Vec<CipherSuite>,
    groups: Vec<NamedGroup>,
    pub(super) server_name: Option<String>,
    pub(super) random: Vec<u8>,
}

impl Offered {
    pub(super) fn ciphers(&self) -> String {
        self.suites.iter().map(|s| cipher_name(*s)).collect::<Vec<_>>().join(":")
    }

    pub(super) fn curves(&self) -> String {
        self.groups.iter().map(|g| curve_name(*g)).collect::<Vec<_>>().join(":")
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello").field("server_name", &self.server_name()).finish_non_exhaustive()
    }
}

impl Hello {
    pub(super) fn new(accepted: Accepted, raw: Vec<u8>) -> Hello {
        Hello { accepted, raw }
    }

    /// The name of the server that the client wants, in lower case.
    pub fn server_name(&self) -> Option<String> {
        self.accepted.client_hello().server_name().map(str::to_ascii_lowercase)
    }

    pub(super) fn offered(&self) -> Offered {
        let hello = self.accepted.client_hello();
        Offered {
            suites: hello.cipher_suites().to_vec(),
            groups: hello.named_groups().unwrap_or_default().to_vec(),
            server_name: self.server_name(),
            random: self.random(),
        }
    }

    /// The client's random bytes.
    pub fn random(&self) -> Vec<u8> {
        message(&self.raw).and_then(|m| m.get(2..34).map(<[u8]>::to_vec)).unwrap_or_default()
    }

    /// The numbers of the ciphers that are offered.
    pub fn cipher_numbers(&self) -> Vec<u16> {
        self.accepted.client_hello().cipher_suites().iter().map(|s| u16::from(*s)).collect()
    }

    /// The numbers of the extensions, in the client's order.
    pub fn extension_numbers(&self) -> Vec<u16> {
        let mut kinds = Vec::new();
        if let Some(message) = message(&self.raw) {
            each_extension(&message, |kind, _| {
                kinds.push(kind);
                false
            });
        }
        kinds
    }

    /// The content of an extension (RFC 8446 section 4.2).
    pub fn extension(&self, kind: u16) -> Option<Vec<u8>> {
        extension(&message(&self.raw)?, kind).map(<[u8]>::to_vec)
    }

    /// The number of the session that the client wants to take up again, where the server must have it: not that of a
    /// ticket. `spoken` is what the server speaks.
    pub fn session_id(&self, spoken: Protocols) -> Option<Vec<u8>> {
        let message = message(&self.raw)?;
        if spoken.tls13 && self.versions().iter().any(|v| usize::from(*v) == TLS13) {
            return first_identity(extension(&message, PRE_SHARED_KEY)?).map(<[u8]>::to_vec);
        }
        let has_ticket = extension(&message, SESSION_TICKET).is_some_and(|ticket| !ticket.is_empty());
        let id = message.get(35..35 + usize::from(*message.get(34)?))?;
        (!has_ticket && !id.is_empty()).then(|| id.to_vec())
    }

    /// Whether the client takes tickets of TLS 1.2.
    pub fn takes_tickets(&self) -> bool {
        self.extension(SESSION_TICKET).is_some()
    }

    /// The versions that the client speaks, as its numbers: 0x0304 is TLS 1.3.
    pub fn versions(&self) -> Vec<u16> {
        let pairs = |b: &[u8]| b.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
        match self.extension(SUPPORTED_VERSIONS) {
            Some(list) => pairs(list.get(1..).unwrap_or_default()),
            None => message(&self.raw).and_then(|m| m.get(..2).map(pairs)).unwrap_or_default(),
        }
    }
}

/// The first number of a `pre_shared_key` extension that may be a session's and no ticket.
fn first_identity(content: &[u8]) -> Option<&[u8]> {
    let mut all = content.get(2..2 + two(content)?)?;
    while !all.is_empty() {
        let identity = all.get(2..2 + two(all)?)?;
        if (1..=ID_BYTES_MAX).contains(&identity.len()) {
            return Some(identity);
        }
        // The age of the ticket lies between.
        all = all.get(2 + identity.len() + 4..)?;
    }
    None
}

/// The message's body out of its records.
fn message(mut records: &[u8]) -> Option<Vec<u8>> {
    let mut message = Vec::new();
    while let Some(head) = records.get(..5) {
        let len = usize::from(u16::from_be_bytes([head[3], head[4]]));
        message.extend_from_slice(records.get(5..5 + len)?);
        records = &records[5 + len..];
        let whole = message
            .get(..4)
            .map(|h| 4 + (usize::from(h[1]) << 16 | usize::from(h[2]) << 8 | usize::from(h[3])));
        if let Some(whole) = whole.filter(|w| message.len() >= *w) {
            message.truncate(whole);
            message.drain(..4);
            return Some(message);
        }
    }
    None
}

fn extension(message: &[u8], kind: u16) -> Option<&[u8]> {
    each_extension(message, |k, _| k == kind)
}

/// What the first bytes from a server say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// They are too few.
    Partial,
    /// The version that it has chosen.
    Version(&'static str),
    /// They are no hello, or that of another version.
    Other,
}

/// Looks at the records of a server's first message.
pub(super) fn answer(records: &[u8]) -> Answer {
    const HANDSHAKE: u8 = 22;
    const SERVER_HELLO: u8 = 2;
    match (records.first(), records.get(5)) {
        (Some(&kind), _) if kind != HANDSHAKE => return Answer::Other,
        (_, Some(&kind)) if kind != SERVER_HELLO => return Answer::Other,
        _ => {}
    }
    let Some(message) = message(records) else { return Answer::Partial };
    match chosen_version(&message) {
        Some(TLS13) => Answer::Version("TLSv1.3"),
        Some(TLS12) => Answer::Version("TLSv1.2"),
        _ => Answer::Other,
    }
}

/// The version in a `ServerHello`.
fn chosen_version(message: &[u8]) -> Option<usize> {
    let rest = message.get(34..)?;
    // The session, the cipher and the compression.
    let rest = rest.get(1 + usize::from(*rest.first()?) + 3..)?;
    let listed = two(rest).and_then(|len| rest.get(2..2 + len));
    let chosen = listed.and_then(|all| each_of(all, |kind, _| kind == SUPPORTED_VERSIONS));
    two(chosen.unwrap_or(message))
}

/// Calls `f` with the number and the content of each extension of a `ClientHello`; the content of the first that it is
/// true for.
fn each_extension(message: &[u8], f: impl FnMut(u16, &[u8]) -> bool) -> Option<&[u8]> {
    // Version and random.
    let rest = message.get(34..)?;
    let rest = rest.get(1 + usize::from(*rest.first()?)..)?;
    let rest = rest.get(2 + two(rest)?..)?;
    let rest = rest.get(1 + usize::from(*rest.first()?)..)?;
    each_of(rest.get(2..2 + two(rest)?)?, f)
}

/// As [`each_extension`], of a list.
fn each_of(mut all: &[u8], mut f: impl FnMut(u16, &[u8]) -> bool) -> Option<&[u8]> {
    while all.len() >= 4 {
        let content = all.get(4..4 + two(&all[2..])?)?;
        if f(u16::from_be_bytes([all[0], all[1]]), content) {
            return Some(content);
        }
        all = &all[4 + content.len()..];
    }
    None
}

fn two(bytes: &[u8]) -> Option<usize> {
    Some(usize::from(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identities(all: &[&[u8]]) -> Vec<u8> {
        let len = |n: usize| u16::try_from(n).unwrap().to_be_bytes();
        let list: Vec<u8> = all.iter().flat_map(|i| [&len(i.len())[..], i, &[0; 4]].concat()).collect();
        [&len(list.len())[..], &list, b"binders"].concat()
    }

    #[test]
    fn servers_tell_their_version() {
        let hello = |legacy: [u8; 2], extensions: &[u8]| {
            let len = u8::try_from(extensions.len()).unwrap();
            let body = [&legacy[..], &[9; 32], &[2, 7, 7], &[0x13, 1, 0], &[0, len], extensions].concat();
            let len = u8::try_from(body.len()).unwrap();
            [&[22, 3, 3, 0, len + 4, 2, 0, 0, len][..], &body].concat()
        };
        let newest = hello([3, 3], &[0, 51, 0, 1, 0, 0, 43, 0, 2, 3, 4]);
        assert_eq!(answer(&newest), Answer::Version("TLSv1.3"));
        assert_eq!(answer(&hello([3, 3], &[])), Answer::Version("TLSv1.2"));
        assert_eq!(answer(&hello([3, 1], &[])), Answer::Other);
        assert!((0..newest.len()).all(|at| answer(&newest[..at]) == Answer::Partial));
        assert_eq!(answer(&[21, 3, 3, 0, 2, 2, 40]), Answer::Other);
        assert_eq!(answer(b"HTTP/1.1"), Answer::Other);
        for at in 0..newest.len() {
            let mut changed = newest.clone();
            changed[at] ^= 0xff;
            let _ = answer(&changed);
        }
    }

    #[test]
    fn the_number_of_a_session_is_told_from_tickets() {
        let (ticket, number) = ([1; 33], [2; 32]);
        assert_eq!(first_identity(&identities(&[&ticket, &number, &[3]])), Some(&number[..]));
        assert_eq!(first_identity(&identities(&[&[], &ticket])), None);
        assert_eq!(first_identity(&identities(&[])), None);
        let whole = identities(&[&ticket, &number]);
        let list = whole.len() - b"binders".len();
        assert!((0..list).all(|at| first_identity(&whole[..at]).is_none()));
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 0xff;
            assert!(first_identity(&changed).is_none_or(|id| id.len() <= ID_BYTES_MAX));
        }
    }
}
