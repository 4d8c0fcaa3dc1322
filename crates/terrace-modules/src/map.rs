//! `map` and `split_clients`: variables made from the value of others.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use terrace_conf::{Arg, Arity, Body, ConfError, Contexts, Directive, Node};
use terrace_http::conf::table::block;
use terrace_http::vars::{Computed, VarIndex};
use terrace_http::{Builder, Module, Request, Value};
use terrace_regex::Regex;

/// The module.
pub struct Map;

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    block("map", Contexts::HTTP, Arity::Exactly(2), "Makes a variable whose value is looked up by that of others.", set_map),
    block("split_clients", Contexts::HTTP, Arity::Exactly(2), "Makes a variable that splits clients into shares by a hash.", set_split_clients),
];

impl Module for Map {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }
}

/// The values of a `map` by what they are for.
#[derive(Default)]
struct Table {
    /// In lower case: case does not matter but for the regexes.
    exact: FxHashMap<Box<[u8]>, u32>,
    /// `*.example.com` as `.example.com`.
    leading: FxHashMap<Box<[u8]>, u32>,
    /// `www.example.*` as `www.example.`.
    trailing: FxHashMap<Box<[u8]>, u32>,
    patterns: Vec<Pattern>,
    default: Option<u32>,
    hostnames: bool,
    values: Vec<Value>,
}

struct Pattern {
    regex: Arc<Regex>,
    names: Vec<(VarIndex, usize)>,
    value: u32,
}

/// A `map`: the table and what is looked up in it.
struct MapVariable {
    source: Value,
    table: Table,
}

/// A `map` within a `map`'s source is common; the value looked up is put behind what is there already.
impl Computed for MapVariable {
    fn compute(&self, r: &Request, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        self.source.eval(r, out);
        let mut key = &out[start..];
        if self.table.hostnames {
            key = key.strip_suffix(b".").unwrap_or(key);
        }
        let found = self.table.find(key, |p| r.match_regex(&p.regex, &p.names, key));
        out.truncate(start);
        if let Some(value) = found {
            self.table.values[value as usize].eval(r, out);
        }
        true
    }
}

impl Table {
    /// The place of the value for `key`: exact, then wildcards from the longest on, then regexes in order.
    fn find(&self, key: &[u8], matches: impl Fn(&Pattern) -> bool) -> Option<u32> {
        let lower: SmallVec<[u8; 128]>;
        let low = if key.iter().any(u8::is_ascii_uppercase) {
            lower = key.iter().map(u8::to_ascii_lowercase).collect();
            &lower[..]
        } else {
            key
        };
        let known = self.exact.get(low).copied().or_else(|| self.find_wildcard(low));
        known
            .or_else(|| {
                let first = self.patterns.iter().find(|p| !key.is_empty() && matches(p));
                first.map(|p| p.value)
            })
            .or(self.default)
    }

    fn find_wildcard(&self, key: &[u8]) -> Option<u32> {
        if !self.leading.is_empty() {
            let suffixes = memchr::memchr_iter(b'.', key).filter(|at| *at > 0).map(|at| &key[at..]);
            if let Some(v) = suffixes.into_iter().find_map(|s| self.leading.get(s)) {
                return Some(*v);
            }
        }
        if self.trailing.is_empty() {
            return None;
        }
        let prefixes = memchr::memrchr_iter(b'.', key).filter(|at| at + 1 < key.len());
        prefixes.map(|at| &key[..=at]).find_map(|p| self.trailing.get(p)).copied()
    }

    /// Adds a key that is no regex. The error says what is wrong with it.
    fn add(&mut self, key: &[u8], value: u32) -> Result<(), &'static str> {
        const CONFLICT: &str = "conflicting parameter";
        const INVALID: &str = "invalid hostname or wildcard";
        let key = key.to_ascii_lowercase();
        let free = |map: &mut FxHashMap<Box<[u8]>, u32>, key: &[u8]| match map.insert(key.into(), value) {
            None => Ok(()),
            Some(_) => Err(CONFLICT),
        };
        if !self.hostnames {
            return free(&mut self.exact, &key);
        }
        let stars = key.iter().filter(|b| **b == b'*').count();
        if stars > 1 || key.contains(&0) || key.windows(2).any(|w| w == b"..") {
            return Err(INVALID);
        }
        match key.as_slice() {
            [b'.', rest @ ..] if !rest.is_empty() => {
                free(&mut self.exact, rest)?;
                free(&mut self.leading, &key)
            }
            [b'*', b'.', _, ..] => free(&mut self.leading, &key[1..]),
            [rest @ .., b'*'] if rest.len() > 1 && rest.ends_with(b".") => free(&mut self.trailing, rest),
            _ if stars > 0 => Err(INVALID),
            _ => free(&mut self.exact, &key),
        }
    }
}

/// The name of the variable that a block defines: its second word.
fn variable_name(node: &Node) -> Result<&[u8], ConfError> {
    let arg = node.arg(1)?;
    let name = arg.value.strip_prefix(b"$").filter(|n| !n.is_empty());
    name.ok_or_else(|| node.error(format!("invalid variable name \"{arg}\"")))
}

fn set_map(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let source = Value::compile(b, node.arg(0)?)?;
    let name = variable_name(node)?;
    let mut table = Table::default();
    let mut seen = FxHashMap::default();
    let mut volatile = false;
    for row in node.children() {
        if !matches!(row.body, Body::None) {
            return Err(row.error("unexpected \"{\""));
        }
        match (&row.key.value[..], row.args.as_slice()) {
            (b"hostnames", []) => table.hostnames = true,
            (b"volatile", []) => volatile = true,
            (_, [value]) => {
                let value = match seen.get(&value.value) {
                    Some(index) => *index,
                    None => {
                        let index = table.values.len() as u32;
                        table.values.push(Value::compile(b, value)?);
                        seen.insert(value.value.clone(), index);
                        index
                    }
                };
                add_row(b, row, &mut table, value)?;
            }
            _ => return Err(row.error("invalid number of the map parameters")),
        }
    }
    b.vars.define_computed(name, Arc::new(MapVariable { source, table }), !volatile);
    Ok(())
}

fn add_row(b: &mut Builder, row: &Node, table: &mut Table, value: u32) -> Result<(), ConfError> {
    let key: &Arg = &row.key;
    if &key.value[..] == b"default" {
        if table.default.replace(value).is_some() {
            return Err(row.error("duplicate default map parameter"));
        }
        return Ok(());
    }
    if let Some(pattern) = key.value.strip_prefix(b"~") {
        let (pattern, caseless) = match pattern.strip_prefix(b"*") {
            Some(rest) => (rest, true),
            None => (pattern, false),
        };
        let (regex, names) = b.regex(pattern, caseless, &row.at)?;
        table.patterns.push(Pattern { regex, names, value });
        return Ok(());
    }
    // A backslash lets `default`, `include` and the like be keys.
    let text = key.value.strip_prefix(b"\\").unwrap_or(&key.value);
    table.add(text, value).map_err(|what| row.error(format!("{what} \"{}\"", String::from_utf8_lossy(text))))
}

/// A share of `split_clients`: hashes below `below` have it; `None` takes the rest.
struct Share {
    below: Option<u32>,
    value: Value,
}

struct SplitVariable {
    source: Value,
    shares: Vec<Share>,
}

impl Computed for SplitVariable {
    fn compute(&self, r: &Request, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        self.source.eval(r, out);
        let hash = murmur2(&out[start..]);
        out.truncate(start);
        if let Some(share) = self.shares.iter().find(|s| s.below.is_none_or(|b| hash < b)) {
            share.value.eval(r, out);
        }
        true
    }
}

/// A whole, in hundredths of a percent.
const WHOLE: u32 = 10_000;

fn set_split_clients(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let source = Value::compile(b, node.arg(0)?)?;
    let name = variable_name(node)?;
    let (mut sum, mut below) = (0_u32, 0_u32);
    let mut shares = Vec::new();
    for row in node.children() {
        let [value] = row.args.as_slice() else {
            return Err(row.error("invalid number of arguments in \"split_clients\" directive"));
        };
        let percent = percent(&row.key.value)
            .ok_or_else(|| row.error(format!("invalid percent value \"{}\"", row.key)))?;
        sum = percent.map_or(WHOLE, |p| sum.saturating_add(p));
        if sum > WHOLE {
            return Err(node.end_error("percent total is greater than 100%"));
        }
        let bound = percent.filter(|_| sum < WHOLE).map(|p| {
            below += (u64::from(p) * u64::from(u32::MAX) / u64::from(WHOLE)) as u32;
            below
        });
        // nginx takes these values as they are written.
        shares.push(Share { below: bound, value: Value::literal(value.value.clone()) });
    }
    b.vars.define_computed(name, Arc::new(SplitVariable { source, shares }), true);
    Ok(())
}

/// `12.34%` in hundredths of a percent; `Some(None)` is `*`.
fn percent(text: &[u8]) -> Option<Option<u32>> {
    if text == b"*" {
        return Some(None);
    }
    let text = std::str::from_utf8(text.strip_suffix(b"%")?).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 2 || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction: u32 = format!("{fraction:0<2}").parse().ok()?;
    let n = whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(fraction)?;
    (n > 0).then_some(Some(n))
}

/// MurmurHash2 with seed 0, as nginx computes it.
pub(crate) fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut h = data.len() as u32;
    let (words, rest) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        for (i, byte) in rest.iter().enumerate() {
            h ^= u32::from(*byte) << (8 * i);
        }
        h = h.wrapping_mul(M);
    }
    h ^= h >> 13;
    h = h.wrapping_mul(M);
    h ^ (h >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(t: &Table, key: &str) -> Option<u32> {
        t.find(key.as_bytes(), |p| p.regex.is_match(key.as_bytes()).is_ok_and(|m| m))
    }

    #[test]
    fn hostnames_prefer_exact_then_long_wildcards() {
        let mut t = Table { hostnames: true, ..Table::default() };
        let keys = ["www.a.com", "*.a.com", ".b.a.com", "www.*", "www.x.*"];
        for (i, k) in keys.iter().enumerate() {
            assert_eq!(t.add(k.as_bytes(), i as u32), Ok(()), "{k}");
        }
        let cases = [
            ("WWW.A.com", Some(0)),
            ("ftp.a.com", Some(1)),
            ("a.com", None),
            ("b.a.com", Some(2)),
            ("c.b.a.com", Some(2)),
            ("www.org", Some(3)),
            ("www.x.org", Some(4)),
            ("www.", None),
        ];
        for (key, expected) in cases {
            assert_eq!(find(&t, key), expected, "{key}");
        }
        assert!(t.add(b"*.a.com", 9).is_err());
        for bad in [&b"a*.com"[..], b"*.*.com", b"a..b", b"www*"] {
            assert_eq!(t.add(bad, 9), Err("invalid hostname or wildcard"));
        }
    }

    #[test]
    fn without_hostnames_a_star_is_a_star() {
        let mut t = Table { default: Some(7), ..Table::default() };
        assert_eq!(t.add(b"*.A.com", 1), Ok(()));
        assert_eq!(find(&t, "*.a.com"), Some(1));
        assert_eq!(find(&t, "x.a.com"), Some(7));
    }

    #[test]
    fn regexes_see_the_value_as_it_is_and_never_an_empty_one() {
        let regex = Arc::new(Regex::new(b"^A|^$", terrace_regex::Options::default()).expect("a regex"));
        let t = Table {
            patterns: vec![Pattern { regex, names: Vec::new(), value: 3 }],
            default: Some(0),
            ..Table::default()
        };
        assert_eq!(find(&t, "Abc"), Some(3));
        assert_eq!(find(&t, "abc"), Some(0));
        assert_eq!(find(&t, ""), Some(0));
    }

    #[test]
    fn percents_have_two_decimals() {
        assert_eq!(percent(b"0.5%"), Some(Some(50)));
        assert_eq!(percent(b"33.33%"), Some(Some(3333)));
        assert_eq!(percent(b"*"), Some(None));
        for bad in [&b"5"[..], b"0%", b"1.234%", b"%", b"-1%", b"a%"] {
            assert_eq!(percent(bad), None);
        }
    }

    #[test]
    fn murmur2_agrees_with_known_hashes() {
        assert_eq!(murmur2(b""), 0);
        // From nginx with these as the sources of a split.
        let (a, b) = (murmur2(b"a"), murmur2(b"abcd"));
        assert_ne!(a, b);
        assert_eq!(murmur2(b"a"), 0x92685f5e);
    }
}
