//! Which server answers to a host name: exact names, then the longest wildcard that starts with an asterisk,
//! then the longest that ends with one, then regexes in order, then the address's default server.

use std::fmt;

use std::sync::Arc;

use rustc_hash::FxHashMap;
use terrace_regex::Regex;

use crate::generation::ServerIndex;
use crate::vars::VarIndex;

/// A regex name with the variables that its named groups set.
pub struct PatternName {
    /// The regex.
    pub regex: Arc<Regex>,
    /// Named groups.
    pub names: Vec<(VarIndex, usize)>,
    /// Its server.
    pub server: ServerIndex,
}

/// The names behind one address.
#[derive(Default)]
pub struct ServerNames {
    exact: FxHashMap<Box<[u8]>, ServerIndex>,
    /// `*.example.com` is kept as `.example.com`.
    leading: FxHashMap<Box<[u8]>, ServerIndex>,
    /// `www.example.*` is kept as `www.example.`.
    trailing: FxHashMap<Box<[u8]>, ServerIndex>,
    patterns: Vec<PatternName>,
    default: Option<ServerIndex>,
    default_claimed: bool,
    servers: usize,
}

/// A name of a `server_name` directive.
pub enum Name {
    /// `example.com`, `*.example.com`, `.example.com`, `www.example.*`; lower case.
    Text(Vec<u8>),
    /// `~regex`.
    Pattern(Arc<Regex>, Vec<(VarIndex, usize)>),
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Name::Text(t) => f.write_str(&String::from_utf8_lossy(t)),
            Name::Pattern(regex, _) => write!(f, "~{}", String::from_utf8_lossy(regex.pattern())),
        }
    }
}

impl ServerNames {
    /// Marks the address as having its `default_server`. False when it has one already.
    pub fn claim_default(&mut self) -> bool {
        !std::mem::replace(&mut self.default_claimed, true)
    }

    /// Adds a server. The first one, or one marked as default, answers to unknown names.
    pub fn add_server(&mut self, server: ServerIndex, is_default: bool) {
        if is_default || self.default.is_none() {
            self.default = Some(server);
        }
        self.servers += 1;
    }

    /// Adds a name. False when another server has it already (nginx warns of a conflicting name and ignores it).
    pub fn add_name(&mut self, name: &Name, server: ServerIndex) -> bool {
        let text = match name {
            Name::Pattern(regex, names) => {
                let (regex, names) = (Arc::clone(regex), names.clone());
                self.patterns.push(PatternName { regex, names, server });
                return true;
            }
            Name::Text(text) => text,
        };
        let mut add = |map: &str, key: &[u8]| {
            let map = match map {
                "leading" => &mut self.leading,
                "trailing" => &mut self.trailing,
                _ => &mut self.exact,
            };
            let mut is_new = true;
            map.entry(key.into()).and_modify(|s| is_new = *s == server).or_insert(server);
            is_new
        };
        match text.as_slice() {
            [b'*', rest @ ..] if rest.first() == Some(&b'.') => add("leading", rest),
            // `.example.com` is both `example.com` and `*.example.com`.
            [b'.', rest @ ..] => add("exact", rest) & add("leading", text),
            [start @ .., b'*'] if start.last() == Some(&b'.') => add("trailing", start),
            _ => add("exact", text),
        }
    }

    /// The default server.
    pub fn default_server(&self) -> ServerIndex {
        self.default.unwrap_or(ServerIndex(0))
    }

    /// Whether a name need not be looked at: one server, no pattern whose captures might be wanted.
    pub fn is_single(&self) -> bool {
        self.servers <= 1 && self.patterns.is_empty()
    }

    /// The server for a lower-case host name without port. A matching pattern is returned too, for its captures.
    pub fn find(&self, host: &[u8]) -> (ServerIndex, Option<&PatternName>) {
        if let Some(s) = self.exact.get(host) {
            return (*s, None);
        }
        let dots = || host.iter().enumerate().filter(|(_, b)| **b == b'.').map(|(i, _)| i);
        if !self.leading.is_empty()
            && let Some(s) = dots().filter(|i| *i > 0).find_map(|i| self.leading.get(&host[i..]))
        {
            return (*s, None);
        }
        if !self.trailing.is_empty() {
            let ends: Vec<usize> = dots().collect();
            if let Some(s) = ends.iter().rev().find_map(|i| self.trailing.get(&host[..=*i])) {
                return (*s, None);
            }
        }
        match self.patterns.iter().find(|p| p.regex.is_match(host).unwrap_or(false)) {
            Some(p) => (p.server, Some(p)),
            None => (self.default_server(), None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_names() {
        let mut names = ServerNames::default();
        for i in 0..5 {
            names.add_server(ServerIndex(i), i == 4);
        }
        let text = |t: &str| Name::Text(t.into());
        assert!(names.add_name(&text("www.example.com"), ServerIndex(0)));
        assert!(names.add_name(&text("*.example.com"), ServerIndex(1)));
        assert!(names.add_name(&text("www.*"), ServerIndex(2)));
        assert!(names.add_name(&text(".example.org"), ServerIndex(3)));
        assert!(!names.add_name(&text("www.example.com"), ServerIndex(2)), "conflicting name");
        for (host, want) in [
            ("www.example.com", 0),
            ("a.b.example.com", 1),
            ("example.com", 4),
            ("www.example.net", 2),
            ("example.org", 3),
            ("x.example.org", 3),
            ("nothing", 4),
            ("", 4),
        ] {
            assert_eq!(names.find(host.as_bytes()).0, ServerIndex(want), "{host}");
        }
    }
}
