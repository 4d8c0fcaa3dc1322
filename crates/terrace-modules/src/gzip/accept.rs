//! Whether a client takes gzip: `Accept-Encoding`, the version, and what holds for requests that a proxy passed on.

use std::sync::Arc;

use bytes::Bytes;
use terrace_base::{clock, http_date};
use terrace_http::Request;
use terrace_http1::{KnownHeader, Version};

use super::{Disabled, name};

/// `gzip_proxied`: which responses to a request with `Via` are compressed, as a set of bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Proxied(u16);

/// The parameters of `gzip_proxied`, in the order of their bits.
const PROXIED: [&[u8]; 9] = [
    b"off",
    b"expired",
    b"no-cache",
    b"no-store",
    b"private",
    b"no_last_modified",
    b"no_etag",
    b"auth",
    b"any",
];

const EXPIRED: Proxied = Proxied(1 << 1);
const NO_CACHE: Proxied = Proxied(1 << 2);
const NO_STORE: Proxied = Proxied(1 << 3);
const PRIVATE: Proxied = Proxied(1 << 4);
const NO_LAST_MODIFIED: Proxied = Proxied(1 << 5);
const NO_ETAG: Proxied = Proxied(1 << 6);
const AUTH: Proxied = Proxied(1 << 7);
const ANY: Proxied = Proxied(1 << 8);

impl Proxied {
    /// The one of this name.
    pub(super) fn by_name(text: &[u8]) -> Option<Proxied> {
        PROXIED.iter().position(|it| *it == text).map(|bit| Proxied(1 << bit))
    }

    /// This and another.
    pub(super) fn and(self, other: Proxied) -> Proxied {
        Proxied(self.0 | other.0)
    }

    fn has(self, other: Proxied) -> bool {
        self.0 & other.0 != 0
    }
}

/// The settings that say who gets gzip.
#[derive(Clone)]
pub(super) struct Accept {
    pub(super) version: Version,
    pub(super) proxied: Proxied,
    pub(super) disabled: Arc<Disabled>,
    pub(super) vary: bool,
}

impl Accept {
    /// Whether the client of a main request takes gzip.
    pub(super) fn is_met(&self, r: &Request) -> bool {
        !r.is_subrequest()
            && r.version.get() >= self.version
            && r.headers_in.with(KnownHeader::AcceptEncoding, takes_gzip) == Some(true)
            && (!r.headers_in.has(KnownHeader::Via) || self.is_met_by_proxied(r))
            && !self.is_disabled(r)
    }

    /// Says that the response depends on `Accept-Encoding`, where that is to be said.
    pub(super) fn vary(&self, r: &Request) {
        let h = &r.headers_out;
        if self.vary && h.with(b"Vary", names_encoding) != Some(true) {
            h.add(name(KnownHeader::Vary), &b"Accept-Encoding"[..]);
        }
    }

    fn is_disabled(&self, r: &Request) -> bool {
        let matches = |agent: &[u8]| self.disabled.0.iter().any(|it| it.is_match(agent).unwrap_or(false));
        !self.disabled.0.is_empty() && r.headers_in.with(KnownHeader::UserAgent, matches) == Some(true)
    }

    /// nginx's rules, in its order: what looks cacheable for all is left alone unless a parameter says otherwise.
    fn is_met_by_proxied(&self, r: &Request) -> bool {
        let which = self.proxied;
        if which.has(Proxied(1)) || which == Proxied::default() {
            return false;
        }
        if which.has(ANY) || which.has(AUTH) && r.headers_in.has(KnownHeader::Authorization) {
            return true;
        }
        let h = &r.headers_out;
        if let Some(expires) = h.with(b"Expires", http_date::parse) {
            return which.has(EXPIRED) && expires.is_some_and(|at| at < clock::now_secs());
        }
        let asked = [(NO_CACHE, &b"no-cache"[..]), (NO_STORE, b"no-store"), (PRIVATE, b"private")];
        let by_control = |value: &[u8]| {
            asked.iter().any(|(bit, word)| which.has(*bit) && memchr::memmem::find(value, word).is_some())
        };
        match h.with(b"Cache-Control", by_control) {
            Some(met) => met,
            None => {
                let lets_pass = |bit, is_there| !(which.has(bit) && is_there);
                lets_pass(NO_LAST_MODIFIED, h.last_modified.get().is_some())
                    && lets_pass(NO_ETAG, h.has(KnownHeader::ETag))
            }
        }
    }
}

fn names_encoding(vary: &[u8]) -> bool {
    vary.split(|b| *b == b',').any(|it| it.trim_ascii().eq_ignore_ascii_case(b"accept-encoding"))
}

/// Whether an `Accept-Encoding` names gzip with a weight other than 0.
fn takes_gzip(value: &[u8]) -> bool {
    value.split(|b| *b == b',').any(|coding| {
        let mut parts = coding.split(|b| *b == b';').map(<[u8]>::trim_ascii);
        let is_gzip = parts.next().is_some_and(|it| it.eq_ignore_ascii_case(b"gzip"));
        is_gzip && !parts.any(is_zero_weight)
    })
}

/// Whether a parameter is `q=0`, with or without decimals.
fn is_zero_weight(parameter: &[u8]) -> bool {
    let mut halves = parameter.splitn(2, |b| *b == b'=').map(<[u8]>::trim_ascii);
    let is_q = halves.next().is_some_and(|it| it.eq_ignore_ascii_case(b"q"));
    let is_zero = |v: &[u8]| v.starts_with(b"0") && v.iter().all(|b| matches!(b, b'0' | b'.'));
    is_q && halves.next().is_some_and(is_zero)
}

/// What a compressed response says of itself.
pub(super) const CODING: Bytes = Bytes::from_static(b"gzip");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_count() {
        for yes in ["gzip", "deflate, GZIP", "gzip;q=0.5", "br;q=0, gzip ; q=1", "gzip;q=0.001"] {
            assert!(takes_gzip(yes.as_bytes()), "{yes}");
        }
        for no in ["", "deflate", "gzip;q=0", "gzip; q=0.000", "x-gzip", "*", "gzipped"] {
            assert!(!takes_gzip(no.as_bytes()), "{no}");
        }
    }

    #[test]
    fn parameters_have_names() {
        assert_eq!(Proxied::by_name(b"any"), Some(ANY));
        assert_eq!(Proxied::by_name(b"no_etag"), Some(NO_ETAG));
        assert_eq!(Proxied::by_name(b"some"), None);
    }
}
