//! Sets of header names, and what `proxy_ignore_headers` turns off.

use terrace_conf::{ConfError, Node};
use terrace_http1::KnownHeader;

bitflags::bitflags! {
    /// Response header fields without effect.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct Ignored: u16 {
        const ACCEL_REDIRECT = 1;
        const ACCEL_BUFFERING = 1 << 1;
        const ACCEL_LIMIT_RATE = 1 << 2;
    }
}

const WORDS: &[(&str, Ignored)] = &[
    ("X-Accel-Redirect", Ignored::ACCEL_REDIRECT),
    ("X-Accel-Buffering", Ignored::ACCEL_BUFFERING),
    ("X-Accel-Limit-Rate", Ignored::ACCEL_LIMIT_RATE),
    // These matter to a cache, or are not acted upon in any case.
    ("X-Accel-Expires", Ignored::empty()),
    ("X-Accel-Charset", Ignored::empty()),
    ("Expires", Ignored::empty()),
    ("Cache-Control", Ignored::empty()),
    ("Set-Cookie", Ignored::empty()),
    ("Vary", Ignored::empty()),
];

impl Ignored {
    /// Reads the directive.
    pub(crate) fn read(n: &Node) -> Result<Ignored, ConfError> {
        let mut all = Ignored::empty();
        for i in 0..n.args.len() {
            all |= n.one_of(i, WORDS)?;
        }
        Ok(all)
    }
}

/// A set of header names, compared in any case.
#[derive(Debug, Default)]
pub(super) struct NameSet {
    known: u64,
    others: Vec<Box<[u8]>>,
}

impl NameSet {
    /// Adds a name.
    pub(super) fn insert(&mut self, name: &[u8]) {
        match KnownHeader::from_name(name) {
            Some(id) => self.known |= 1 << id as u8,
            None if !self.contains(None, name) => self.others.push(name.into()),
            None => {}
        }
    }

    /// Takes a name out.
    pub(super) fn remove(&mut self, name: &[u8]) {
        match KnownHeader::from_name(name) {
            Some(id) => self.known &= !(1 << id as u8),
            None => self.others.retain(|n| !n.eq_ignore_ascii_case(name)),
        }
    }

    /// Whether a name is in it; `id` is the name's number.
    pub(super) fn contains(&self, id: Option<KnownHeader>, name: &[u8]) -> bool {
        match id {
            Some(id) => self.known & (1 << id as u8) != 0,
            None => self.others.iter().any(|n| n.eq_ignore_ascii_case(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_in_any_case() {
        let mut set = NameSet::default();
        set.insert(b"Date");
        set.insert(b"X-Pad");
        set.insert(b"x-pad");
        let has = |s: &NameSet, n: &[u8]| s.contains(KnownHeader::from_name(n), n);
        assert!(has(&set, b"dAtE") && has(&set, b"X-PAD") && !has(&set, b"Server"));
        set.remove(b"date");
        set.remove(b"X-pad");
        assert!(!has(&set, b"Date") && !has(&set, b"X-Pad"));
    }
}
