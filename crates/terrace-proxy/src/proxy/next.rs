//! `proxy_next_upstream`: in which cases a request goes to the next server.

use terrace_conf::{ConfError, Node};

bitflags::bitflags! {
    /// The cases.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct NextUpstream: u16 {
        /// Connecting, sending or reading failed.
        const ERROR = 1;
        /// A timeout.
        const TIMEOUT = 1 << 1;
        /// The head was no HTTP.
        const INVALID_HEADER = 1 << 2;
        const HTTP_500 = 1 << 3;
        const HTTP_502 = 1 << 4;
        const HTTP_503 = 1 << 5;
        const HTTP_504 = 1 << 6;
        const HTTP_403 = 1 << 7;
        const HTTP_404 = 1 << 8;
        const HTTP_429 = 1 << 9;
        /// Requests whose method is not idempotent are tried again too.
        const NON_IDEMPOTENT = 1 << 10;
        /// No case at all.
        const OFF = 1 << 11;
    }
}

const WORDS: &[(&str, NextUpstream)] = &[
    ("error", NextUpstream::ERROR),
    ("timeout", NextUpstream::TIMEOUT),
    ("invalid_header", NextUpstream::INVALID_HEADER),
    ("non_idempotent", NextUpstream::NON_IDEMPOTENT),
    ("http_500", NextUpstream::HTTP_500),
    ("http_502", NextUpstream::HTTP_502),
    ("http_503", NextUpstream::HTTP_503),
    ("http_504", NextUpstream::HTTP_504),
    ("http_403", NextUpstream::HTTP_403),
    ("http_404", NextUpstream::HTTP_404),
    ("http_429", NextUpstream::HTTP_429),
    // What is stale comes from a cache; accepted for configurations that name it.
    ("updating", NextUpstream::empty()),
    ("off", NextUpstream::OFF),
];

impl NextUpstream {
    /// Reads the directive.
    pub(crate) fn read(n: &Node) -> Result<NextUpstream, ConfError> {
        let mut all = NextUpstream::empty();
        for i in 0..n.args.len() {
            all |= n.one_of(i, WORDS)?;
        }
        Ok(if all.contains(NextUpstream::OFF) { NextUpstream::OFF } else { all })
    }

    /// The case of a response's status, if it is one.
    pub(crate) fn of_status(status: u16) -> Option<NextUpstream> {
        Some(match status {
            500 => NextUpstream::HTTP_500,
            502 => NextUpstream::HTTP_502,
            503 => NextUpstream::HTTP_503,
            504 => NextUpstream::HTTP_504,
            403 => NextUpstream::HTTP_403,
            404 => NextUpstream::HTTP_404,
            429 => NextUpstream::HTTP_429,
            _ => return None,
        })
    }

    /// Whether the peer is not at fault: it is not counted against `max_fails`.
    pub(crate) fn spares_peer(self) -> bool {
        self.intersects(NextUpstream::HTTP_403.union(NextUpstream::HTTP_404))
    }

    /// The status a request ends with when this was its last failure.
    pub(crate) fn final_status(self) -> u16 {
        match self {
            NextUpstream::TIMEOUT | NextUpstream::HTTP_504 => 504,
            NextUpstream::HTTP_500 => 500,
            NextUpstream::HTTP_503 => 503,
            NextUpstream::HTTP_403 => 403,
            NextUpstream::HTTP_404 => 404,
            NextUpstream::HTTP_429 => 429,
            _ => 502,
        }
    }
}
