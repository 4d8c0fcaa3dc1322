//! A `log_format`, compiled.

use bytes::Bytes;
use terrace_conf::{Arg, ConfError, Node};
use terrace_http::vars::VarIndex;
use terrace_http::{Builder, Request};

use super::escape::Escape;

/// A compiled format.
#[derive(Debug)]
pub(super) struct Format {
    escape: Escape,
    parts: Vec<Part>,
}

#[derive(Debug)]
enum Part {
    Literal(Bytes),
    Variable(VarIndex),
}

impl Format {
    /// Compiles the words of a format, which follow each other without a space between.
    pub(super) fn compile(
        b: &mut Builder,
        node: &Node,
        escape: Escape,
        words: &[Arg],
    ) -> Result<Format, ConfError> {
        let mut parts = Vec::new();
        for word in words {
            let mut rest = &word.value[..];
            while !rest.is_empty() {
                let dollar = memchr::memchr(b'$', rest).unwrap_or(rest.len());
                if dollar > 0 {
                    parts.push(Part::Literal(word.value.slice_ref(&rest[..dollar])));
                }
                rest = &rest[dollar..];
                if rest.is_empty() {
                    break;
                }
                let (name, len) = variable(rest).ok_or_else(|| {
                    node.error(format!("invalid parameter \"{}\"", String::from_utf8_lossy(rest)))
                })?;
                parts.push(Part::Variable(b.vars.reference(name, &node.at)));
                rest = &rest[len..];
            }
        }
        Ok(Format { escape, parts })
    }

    /// Appends the line, without its end. `value` is a buffer to use.
    pub(super) fn render(&self, r: &Request, line: &mut Vec<u8>, value: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => line.extend_from_slice(text),
                Part::Variable(index) => {
                    value.clear();
                    if r.append_var(*index, value) {
                        self.escape.append(value, line);
                    } else {
                        self.escape.append_missing(line);
                    }
                }
            }
        }
    }
}

/// The name of the variable that `text` begins with, and the length of all of it.
fn variable(text: &[u8]) -> Option<(&[u8], usize)> {
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    let behind = &text[1..];
    if let Some(inner) = behind.strip_prefix(b"{") {
        let len = inner.iter().take_while(|b| is_name(b)).count();
        return (len > 0 && inner.get(len) == Some(&b'}')).then(|| (&inner[..len], len + 3));
    }
    let len = behind.iter().take_while(|b| is_name(b)).count();
    (len > 0).then(|| (&behind[..len], len + 1))
}

#[cfg(test)]
mod tests {
    use super::variable;

    #[test]
    fn names() {
        for (text, expected) in [
            ("$a_1-", Some(("a_1", 4))),
            ("${ab}c", Some(("ab", 5))),
            ("${ab", None),
            ("${}", None),
            ("$", None),
            ("$ ", None),
        ] {
            let expected = expected.map(|(name, len)| (name.as_bytes(), len));
            assert_eq!(variable(text.as_bytes()), expected, "{text}");
        }
    }
}
