//! Finding the location of a URI by nginx's rules: exact, then the longest prefix (with `^~` ending the
//! search), then the regexes in order, innermost first, then the prefix.

use std::cell::RefCell;
use std::sync::Arc;

use terrace_regex::Regex;

use crate::request::Captures;

/// Index of a location in its generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LocationIndex(pub u32);

/// One prefix location.
struct Prefix {
    /// The [`word`] of the text, which tells most texts apart.
    word: u64,
    text: Box<[u8]>,
    location: LocationIndex,
    /// `^~`: no regex is tried.
    is_final: bool,
    /// A request for the name without its final slash is answered with a redirect.
    auto_redirect: bool,
    /// The longest other prefix that this one starts with.
    shorter: Option<usize>,
    nested: LocationTree,
}

impl Prefix {
    /// Whether `uri`, whose [`word`] is given, starts with it.
    fn begins(&self, uri: &[u8], word: u64) -> bool {
        match self.text.len() {
            0 => true,
            len @ 1..8 => len <= uri.len() && (self.word ^ word) >> (64 - 8 * len) == 0,
            _ => self.word == word && uri.starts_with(&self.text),
        }
    }
}

/// The first bytes of a text as a number. Numbers that differ sort as their texts do.
fn word(text: &[u8]) -> u64 {
    if let Some(first) = text.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let packed = |word: u64, (index, byte): (usize, &u8)| word | u64::from(*byte) << (56 - 8 * index);
    text.iter().enumerate().fold(0, packed)
}

/// A regex location.
struct Pattern {
    regex: Arc<Regex>,
    location: LocationIndex,
    nested: LocationTree,
}

/// The locations of one server, or those nested in one location.
#[derive(Default)]
pub struct LocationTree {
    exact: Vec<(Box<[u8]>, LocationIndex)>,
    /// Those of them that are asked for without their final slash as well.
    exact_redirects: Vec<(Box<[u8]>, LocationIndex)>,
    prefixes: Vec<Prefix>,
    patterns: Vec<Pattern>,
    /// Whether any location redirects.
    redirects: bool,
}

/// How a location matches.
pub enum Matcher {
    /// `= /path`
    Exact(Box<[u8]>),
    /// `/path`, or `^~ /path` with `is_final`.
    Prefix {
        /// The prefix.
        text: Box<[u8]>,
        /// `^~`.
        is_final: bool,
    },
    /// `~ regex` and `~* regex`.
    Pattern(Arc<Regex>),
}

/// A location of this name is there already.
#[derive(Debug, Clone, Copy)]
pub struct DuplicateLocation;

/// What a search found.
pub enum Found {
    /// This location.
    Location(LocationIndex),
    /// A prefix location ending in `/` whose name without the slash was asked for: nginx answers with a redirect
    /// where the location is proxied.
    AutoRedirect(LocationIndex),
    /// None.
    Nothing,
}

impl LocationTree {
    /// Adds a location with those nested in it. Order matters for patterns only.
    ///
    /// `auto_redirect` says that the location is proxied, so that nginx redirects `/dir` to `/dir/`. The error
    /// means that the location is there already.
    pub fn add(
        &mut self,
        matcher: Matcher,
        location: LocationIndex,
        nested: LocationTree,
        auto_redirect: bool,
    ) -> Result<(), DuplicateLocation> {
        match matcher {
            Matcher::Exact(text) => {
                if self.exact.iter().any(|(t, _)| *t == text) {
                    return Err(DuplicateLocation);
                }
                if auto_redirect && text.ends_with(b"/") {
                    self.redirects = true;
                    self.exact_redirects.push((text.clone(), location));
                }
                self.exact.push((text, location));
                self.exact.sort_by(|a, b| a.0.cmp(&b.0));
            }
            Matcher::Prefix { text, is_final } => {
                if self.prefixes.iter().any(|p| p.text == text) {
                    return Err(DuplicateLocation);
                }
                self.redirects |= auto_redirect;
                let word = word(&text);
                self.prefixes.push(Prefix {
                    word,
                    text,
                    location,
                    is_final,
                    auto_redirect,
                    shorter: None,
                    nested,
                });
                self.link_prefixes();
            }
            Matcher::Pattern(regex) => self.patterns.push(Pattern { regex, location, nested }),
        }
        Ok(())
    }

    fn link_prefixes(&mut self) {
        self.prefixes.sort_by(|a, b| a.text.cmp(&b.text));
        for i in 0..self.prefixes.len() {
            let shorter = (0..i).rev().find(|j| self.prefixes[i].text.starts_with(&self.prefixes[*j].text));
            self.prefixes[i].shorter = shorter;
        }
    }

    /// Finds the location of `uri`. Captures of a matching regex are left in `captures`.
    pub fn find(&self, uri: &[u8], captures: &RefCell<Captures>) -> Found {
        let mut prefix = None;
        match self.search(uri, captures, &mut prefix) {
            Some(found) => found,
            None => prefix.map_or(Found::Nothing, Found::Location),
        }
    }

    /// What ends the search, if anything does; else `best` holds the best prefix so far.
    fn search(
        &self,
        uri: &[u8],
        captures: &RefCell<Captures>,
        best: &mut Option<LocationIndex>,
    ) -> Option<Found> {
        if !self.exact.is_empty()
            && let Some(l) = self.exactly(uri)
        {
            return Some(Found::Location(l));
        }
        if self.redirects
            && let Some(l) = self.redirecting(uri)
        {
            return Some(Found::AutoRedirect(l));
        }
        if let Some(p) = self.longest_prefix(uri) {
            *best = Some(p.location);
            if !p.nested.is_empty()
                && let Some(found) = p.nested.search(uri, captures, best)
            {
                return Some(found);
            }
            if p.is_final {
                return None;
            }
        }
        if self.patterns.is_empty() { None } else { self.matching(uri, captures) }
    }

    #[inline(never)]
    fn exactly(&self, uri: &[u8]) -> Option<LocationIndex> {
        let i = self.exact.binary_search_by(|(t, _)| t.as_ref().cmp(uri)).ok()?;
        self.exact.get(i).map(|(_, location)| *location)
    }

    #[inline(never)]
    fn matching(&self, uri: &[u8], captures: &RefCell<Captures>) -> Option<Found> {
        let matches = |p: &&Pattern| captures.borrow_mut().exec(&p.regex, uri);
        let p = self.patterns.iter().find(matches)?;
        let mut inner = Some(p.location);
        let found = p.nested.search(uri, captures, &mut inner);
        found.or(inner.map(Found::Location))
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.patterns.is_empty()
    }

    fn longest_prefix(&self, uri: &[u8]) -> Option<&Prefix> {
        let word = word(uri);
        // The word is the whole of a text that is shorter.
        let is_before = |p: &Prefix| p.word == word && (uri.len() < 8 || p.text.as_ref() <= uri);
        let after = self.prefixes.partition_point(|p| p.word < word || is_before(p));
        let mut at = after.checked_sub(1);
        while let Some(i) = at {
            let p = &self.prefixes[i];
            if p.begins(uri, word) {
                return Some(p);
            }
            // Whatever prefix of `uri` sorts before `p`, which sorts before `uri`, is a prefix of `p` too.
            at = p.shorter;
        }
        None
    }

    #[inline(never)]
    fn redirecting(&self, uri: &[u8]) -> Option<LocationIndex> {
        let is_uri = |text: &[u8]| text.strip_suffix(b"/") == Some(uri);
        let exact = self.exact_redirects.iter().find(|(text, _)| is_uri(text));
        exact
            .map(|(_, location)| *location)
            .or_else(|| self.prefixes.iter().find(|p| p.auto_redirect && is_uri(&p.text)).map(|p| p.location))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(prefixes: &[&str]) -> LocationTree {
        let mut t = LocationTree::default();
        for (i, p) in prefixes.iter().enumerate() {
            let m = Matcher::Prefix { text: p.as_bytes().into(), is_final: false };
            assert!(t.add(m, LocationIndex(i as u32), LocationTree::default(), p.len() == 3).is_ok());
        }
        t
    }

    fn find(t: &LocationTree, uri: &str) -> Option<u32> {
        match t.find(uri.as_bytes(), &RefCell::default()) {
            Found::Location(l) => Some(l.0),
            _ => None,
        }
    }

    #[test]
    fn longest_prefix_wins_whatever_sorts_between() {
        let t = tree(&["/", "/a", "/a/b", "/a/bc/d", "/ab", "/b/"]);
        for (uri, want) in [
            ("/", 0),
            ("/zzz", 0),
            ("/a", 1),
            ("/a/", 1),
            ("/a/b", 2),
            ("/a/bc", 2),
            ("/a/bc/d/e", 3),
            ("/a/bd", 2),
            ("/ac", 1),
            ("/abc", 4),
            ("/b/x", 5),
            ("/bx", 0),
        ] {
            assert_eq!(find(&t, uri), Some(want), "{uri}");
        }
        assert_eq!(find(&tree(&["/x", "/y"]), "/w"), None);
        let long = tree(&["", "/images", "/images/", "/images/a", "/images/b/c"]);
        for (uri, want) in [
            ("/", 0),
            ("/image", 0),
            ("/images", 1),
            ("/imagesx", 1),
            ("/images/", 2),
            ("/images/A", 2),
            ("/images/ab", 3),
            ("/images/b/b", 2),
            ("/images/b/cd", 4),
            ("/images/c", 2),
        ] {
            assert_eq!(find(&long, uri), Some(want), "{uri}");
        }
    }

    #[test]
    fn duplicates_are_refused_and_missing_slash_is_seen() {
        let mut t = tree(&["/d/", "/"]);
        let again = Matcher::Prefix { text: (*b"/d/").into(), is_final: true };
        assert!(t.add(again, LocationIndex(9), LocationTree::default(), false).is_err());
        assert!(matches!(t.find(b"/d", &RefCell::default()), Found::AutoRedirect(LocationIndex(0))));
    }
}
