//! The URL of an HTTP source: where to connect, and a target with named parameters.
//!
//! Invariant: a value fills exactly the place that it was given. Every byte that is not unreserved (RFC 3986 section
//! 2.3) is escaped, and a path segment that a server would resolve (`.`, `..`, nothing) is refused.

use std::path::PathBuf;

use terrace_cache::{LoadError, Params};

use super::HttpError;
use crate::sql::{strict_integer, text_of};

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// A part of the target.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// As configured.
    Text(String),
    /// The index of a parameter, and whether it stands in the path.
    Value(usize, bool),
}

/// A parsed URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) address: Address,
    /// For the field Host.
    pub(super) authority: String,
    parts: Vec<Part>,
    /// The parameters, each once, in the order of their first use.
    pub(super) names: Vec<String>,
}

impl Template {
    pub(super) fn parse(url: &str) -> Result<Self, HttpError> {
        let wrong = |reason| HttpError::Url { url: url.to_owned(), reason };
        if let Some(c) = url.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(wrong(if c.is_ascii() {
                "it has a blank or control character"
            } else {
                "it is not ASCII"
            }));
        }
        let Some(rest) = url.strip_prefix("http://") else {
            let is_tls = url.starts_with("https://");
            return Err(wrong(if is_tls { "https is not supported" } else { "it must begin with http://" }));
        };
        if url.contains('#') {
            return Err(wrong("a fragment is not sent to a server"));
        }
        let (address, authority, target) = match rest.strip_prefix("unix:") {
            Some(rest) => {
                let (path, target) = rest.split_once(':').unwrap_or((rest, ""));
                if path.is_empty() {
                    return Err(wrong("it names no socket"));
                }
                (Address::Unix(path.into()), "localhost", target)
            }
            None => {
                let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
                (tcp(authority).map_err(wrong)?, authority, target)
            }
        };
        let mut template =
            Self { address, authority: authority.to_owned(), parts: Vec::new(), names: Vec::new() };
        if !target.starts_with('/') {
            template.parts.push(Part::Text("/".to_owned()));
        }
        template.split(target);
        Ok(template)
    }

    fn split(&mut self, target: &str) {
        let query_at = target.find('?').unwrap_or(target.len());
        let (mut text, mut at) = (String::new(), 0);
        while let Some(c) = target[at..].chars().next() {
            let name = if c == ':' { name(&target[at + 1..]) } else { "" };
            if name.is_empty() {
                text.push(c);
                at += c.len_utf8();
                continue;
            }
            self.parts.push(Part::Text(std::mem::take(&mut text)));
            let known = self.names.iter().position(|known| known == name);
            let index = known.unwrap_or_else(|| {
                self.names.push(name.to_owned());
                self.names.len() - 1
            });
            self.parts.push(Part::Value(index, at < query_at));
            at += 1 + name.len();
        }
        self.parts.push(Part::Text(text));
    }

    /// The target with the values of a load; `None` when a strict integer is none. `integers` has a flag for each name.
    pub(super) fn fill(&self, params: &Params, integers: &[bool]) -> Result<Option<String>, LoadError> {
        let mut values = Vec::with_capacity(self.names.len());
        for (name, integer) in self.names.iter().zip(integers) {
            let value = text_of(params, name)?;
            if *integer && strict_integer(value).is_none() {
                return Ok(None);
            }
            values.push(value);
        }
        let (mut target, mut fills_path) = (String::new(), false);
        for part in &self.parts {
            match part {
                Part::Text(text) => target.push_str(text),
                Part::Value(index, in_path) => {
                    if *in_path && values[*index].is_empty() {
                        let text = format!("the parameter {} is empty", self.names[*index]);
                        return Err(LoadError::Request(text.into()));
                    }
                    fills_path |= *in_path;
                    escape(values[*index], &mut target);
                }
            }
        }
        let path = target.split('?').next().unwrap_or_default();
        if fills_path && path.split('/').any(|segment| matches!(segment, "." | "..")) {
            return Err(LoadError::Request("a parameter would lead out of the path".into()));
        }
        Ok(Some(target))
    }
}

fn tcp(authority: &str) -> Result<Address, &'static str> {
    if authority.contains('@') {
        return Err("a user in the URL is not supported; a header can name one");
    }
    let (host, rest) = match authority.strip_prefix('[') {
        Some(text) => text.split_once(']').ok_or("an address that does not end")?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or("its port is no number")?,
        None if rest.is_empty() => 80,
        None => return Err("something follows the address"),
    };
    if host.is_empty() {
        return Err("it names no host");
    }
    Ok(Address::Tcp(host.to_owned(), port))
}

/// The name that `text` begins with; empty if none.
fn name(text: &str) -> &str {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return "";
    }
    &text[..text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())]
}

fn escape(value: &str, out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(DIGITS[usize::from(byte >> 4)]));
            out.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use terrace_cache::Param;

    use super::*;

    fn fill(url: &str, params: &[(&str, &str)]) -> Result<Option<String>, LoadError> {
        let template = Template::parse(url).expect("a good URL");
        let params = params.iter().map(|(name, value)| Param::new(*name, value.to_string())).collect();
        template.fill(&params, &vec![false; template.names.len()])
    }

    fn filled(url: &str, value: &str) -> String {
        fill(url, &[("id", value)]).expect("good parameters").expect("no strict integers")
    }

    #[test]
    fn addresses_and_targets() {
        let parse = |url: &str| {
            let template = Template::parse(url).expect("a good URL");
            let target = template.fill(&Params::new(), &[]).expect("no parameters").expect("no integers");
            (template.address, template.authority, target)
        };
        let tcp = |host: &str, port| Address::Tcp(host.to_owned(), port);
        assert_eq!(parse("http://a"), (tcp("a", 80), "a".to_owned(), "/".to_owned()));
        assert_eq!(parse("http://a:81?x=1"), (tcp("a", 81), "a:81".to_owned(), "/?x=1".to_owned()));
        assert_eq!(
            parse("http://[::1]:81/b%3Ac"),
            (tcp("::1", 81), "[::1]:81".to_owned(), "/b%3Ac".to_owned())
        );
        let unix = (Address::Unix("/run/a.sock".into()), "localhost".to_owned(), "/b:/1".to_owned());
        assert_eq!(parse("http://unix:/run/a.sock:/b:/1"), unix);
        for url in [
            "https://a/",
            "ftp://a",
            "a",
            "http://",
            "http://:80",
            "http://a:0",
            "http://a:x",
            "http://u@a",
            "http://a/#b",
            "http://a/ b",
            "http://a/\u{e9}",
            "http://unix:",
            "http://[::1/",
            "http://[::1]x",
        ] {
            assert!(matches!(Template::parse(url), Err(HttpError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn values_are_escaped() {
        let url = "http://a/p/:id/x?id=:id&b=:id";
        assert_eq!(filled(url, "7"), "/p/7/x?id=7&b=7");
        assert_eq!(filled(url, "a-b._~"), "/p/a-b._~/x?id=a-b._~&b=a-b._~");
        for (value, escaped) in [
            ("a/b?c#d&e=f", "a%2Fb%3Fc%23d%26e%3Df"),
            ("\r\nHost: x", "%0D%0AHost%3A%20x"),
            ("%2e%2e", "%252e%252e"),
            ("caf\u{e9}", "caf%C3%A9"),
            ("+:\0", "%2B%3A%00"),
        ] {
            assert_eq!(filled(url, value), format!("/p/{escaped}/x?id={escaped}&b={escaped}"));
        }
    }

    #[test]
    fn no_value_leads_out_of_its_place() {
        for (url, value) in [
            ("http://a/p/:id", ".."),
            ("http://a/p/:id/x", "."),
            ("http://a/p/.:id", "."),
            ("http://a/p/:id.", "."),
            ("http://a/p/:id", ""),
        ] {
            assert!(matches!(fill(url, &[("id", value)]), Err(LoadError::Request(_))), "{url} {value}");
        }
        assert_eq!(filled("http://a/p/:id", "..."), "/p/...");
        assert_eq!(filled("http://a/p?d=:id", ".."), "/p?d=..");
        assert_eq!(filled("http://a/p?d=:id", ""), "/p?d=");
        assert!(matches!(fill("http://a/:id", &[]), Err(LoadError::Request(_))));
    }
}
