//! `rewrite regex replacement [flag]`.

use std::sync::Arc;

use terrace_base::log::Level;
use terrace_http::vars::VarIndex;
use terrace_http::{Outcome, Request, Value, special};
use terrace_http1::uri::escape_args;
use terrace_regex::Regex;

use super::program::{Run, log_match};

/// What follows a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// The next directive; in the end a location is found for the new URI.
    Next,
    /// `last`: a location is found for the new URI.
    Last,
    /// `break`: the request stays in its location.
    Break,
    /// A redirect of this status.
    Redirect(u16),
}

/// What a run came to.
pub(super) enum Next {
    /// The regex did not match: the next instruction.
    NoMatch,
    /// It matched: the next instruction.
    Instruction,
    /// No further instruction runs.
    End(Outcome),
}

/// A `rewrite`.
pub(super) struct Rewrite {
    pub(super) regex: Arc<Regex>,
    pub(super) names: Vec<(VarIndex, usize)>,
    /// The new path; for a redirect the whole replacement.
    pub(super) path: Value,
    /// The new arguments, where the replacement of a URI has any.
    pub(super) args: Option<Value>,
    /// Whether the replacement has a `?` before its end.
    pub(super) has_query: bool,
    /// Whether the request's arguments are kept: no `?` at the end.
    pub(super) keep_args: bool,
    pub(super) after: After,
}

impl Rewrite {
    pub(super) fn run(&self, r: &Request, run: &Run) -> Next {
        let matched = {
            let uri = r.uri();
            let matched = r.match_regex(&self.regex, &self.names, &uri);
            log_match(r, run, &self.regex, &uri, matched);
            matched
        };
        if !matched {
            return Next::NoMatch;
        }
        if let After::Redirect(status) = self.after {
            self.redirect(r, run);
            return Next::End(Outcome::Status(status));
        }
        r.internal.set(true);
        r.uri_changed.set(self.after != After::Break);
        if !self.change_uri(r, run) {
            return Next::End(Outcome::Status(500));
        }
        match self.after {
            After::Next => Next::Instruction,
            _ => Next::End(Outcome::Declined),
        }
    }

    fn redirect(&self, r: &Request, run: &Run) {
        let mut text = Vec::with_capacity(128);
        if is_escaped(r) {
            self.path.eval_captures_mapped(r, &mut text, escape_args);
        } else {
            self.path.eval(r, &mut text);
        }
        let mut to = unescape_redirect(&text);
        let args = r.args();
        if self.keep_args && !args.is_empty() {
            to.push(if self.has_query { b'&' } else { b'?' });
            to.extend_from_slice(&args);
        }
        if run.log {
            let to = String::from_utf8_lossy(&to);
            r.log(Level::Notice, format_args!("rewritten redirect: \"{to}\""));
        }
        special::set_location_header(r, &to);
    }

    /// False when the new URI is empty.
    fn change_uri(&self, r: &Request, run: &Run) -> bool {
        let uri = self.path.eval_bytes(r);
        match &self.args {
            Some(new) => {
                let mut args = Vec::with_capacity(64);
                if is_escaped(r) {
                    new.eval_captures_mapped(r, &mut args, escape_args);
                } else {
                    new.eval(r, &mut args);
                }
                if self.keep_args && !r.args().is_empty() {
                    args.push(b'&');
                    args.extend_from_slice(&r.args());
                }
                r.set_args(args);
            }
            None if !self.keep_args => r.set_args(""),
            None => {}
        }
        if run.log {
            let (uri, args) = (String::from_utf8_lossy(&uri), r.args().to_vec());
            let args = String::from_utf8_lossy(&args);
            r.log(Level::Notice, format_args!("rewritten data: \"{uri}\", args: \"{args}\""));
        }
        if uri.is_empty() {
            r.log(Level::Error, format_args!("the rewritten URI has a zero length"));
            return false;
        }
        r.set_uri(uri);
        true
    }
}

/// Whether captures are escaped where they get into arguments or redirects: the path was sent with `%` or `+`.
pub(super) fn is_escaped(r: &Request) -> bool {
    let mut target = Vec::with_capacity(128);
    r.target_as_sent(&mut target);
    let path = target.split(|b| *b == b'?').next().unwrap_or_default();
    memchr::memchr2(b'%', b'+', path).is_some()
}

/// Decodes the escapes of printable characters before the first `?` of a redirect, as nginx does; an escape that is
/// none loses its `%`.
fn unescape_redirect(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() + 64);
    let digit = |at: usize| text.get(at).and_then(|b| char::from(*b).to_digit(16));
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        if b == b'?' {
            out.extend_from_slice(&text[at..]);
            break;
        }
        if b != b'%' {
            out.push(b);
            at += 1;
            continue;
        }
        match (digit(at + 1), digit(at + 2)) {
            (Some(high), Some(low)) => {
                match (high * 16 + low) as u8 {
                    c @ b'&'..0x7f => out.push(c),
                    _ => out.extend_from_slice(&text[at..at + 3]),
                }
                at += 3;
            }
            // The `%` and a first digit are dropped, the byte that is no digit stays.
            (Some(_), None) => at += 2,
            (None, _) => at += 1,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::unescape_redirect;

    #[test]
    fn redirects_are_unescaped_up_to_the_query() {
        let cases: [(&[u8], &[u8]); 5] = [
            (b"/a%2Fb%20c", b"/a/b%20c"),
            (b"/a%41?x=%41", b"/aA?x=%41"),
            (b"/%zz", b"/zz"),
            (b"/%e9", b"/%e9"),
            (b"/x%", b"/x"),
        ];
        for (text, expected) in cases {
            assert_eq!(unescape_redirect(text), expected, "{}", String::from_utf8_lossy(text));
        }
    }
}
