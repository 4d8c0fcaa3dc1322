//! The path of a request target, brought into the form that locations are matched against.
//!
//! Escapes are decoded, dot segments resolved, runs of slashes merged, the fragment dropped and the query cut off, by
//! nginx's rules: an escaped slash or dot acts as one, an escaped `%`, `#` or `?` is an ordinary character, and a
//! target that climbs above the root, has a broken escape, a control character or an escaped NUL is refused. The
//! result starts with `/` and never names a segment `.` or `..`.

mod escape;

use thiserror::Error;

use crate::Span;

pub use escape::{escape_args, escape_path};

/// A target taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Where the normal path is.
    pub path: Path,
    /// The query as sent, without `?` and fragment; empty when nothing follows the `?`.
    pub args: Option<Span>,
}

/// Where a normal path is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// The path was sent in normal form: these bytes of the target.
    AsSent(Span),
    /// The path was rewritten into the output buffer.
    Rewritten,
}

impl Parts {
    /// The normal path; `target` and `out` are those of the call that gave the parts.
    #[inline]
    pub fn path<'a>(&self, target: &'a [u8], out: &'a [u8]) -> &'a [u8] {
        match self.path {
            Path::AsSent(span) => span.of(target),
            Path::Rewritten => out,
        }
    }
}

/// The target cannot be normalised; nginx answers 400 and logs these words.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("client sent invalid request")]
pub struct UriError;

/// Normalises a target that starts with `/` (or with `?`, which stands for an empty path).
///
/// Spans count from the start of `target`. A path in normal form is not copied and leaves `out` alone; otherwise
/// `out` is cleared and holds the path afterwards. `merge_slashes` is the directive of that name.
pub fn normalize(target: &[u8], out: &mut Vec<u8>, merge_slashes: bool) -> Result<Parts, UriError> {
    let scan = scan(target)?;
    if scan.len != target.len() {
        return Err(UriError);
    }
    let args = scan.args.map(|(start, end)| Span::new(start, end));
    if !scan.complex {
        return Ok(Parts { path: Path::AsSent(Span::new(0, scan.path_len)), args });
    }
    out.clear();
    rewrite(&target[..scan.path_len], out, merge_slashes)?;
    Ok(Parts { path: Path::Rewritten, args })
}

/// What one pass over a target tells.
#[derive(Debug)]
pub(crate) struct Scan {
    /// The length of the target: up to the first space.
    pub(crate) len: usize,
    /// The length of its path: up to `?` or `#`.
    pub(crate) path_len: usize,
    /// Start and end of the query.
    pub(crate) args: Option<(usize, usize)>,
    /// Whether the path is not in normal form.
    pub(crate) complex: bool,
}

/// Looks over the target at the start of `text`.
#[inline]
pub(crate) fn scan(text: &[u8]) -> Result<Scan, UriError> {
    if !matches!(text.first(), Some(b'/' | b'?')) {
        return Err(UriError);
    }
    let mut complex = false;
    let mut after_slash = false;
    for (at, &byte) in text.iter().enumerate() {
        match CLASSES[byte as usize] {
            USUAL => after_slash = false,
            SLASH => {
                complex |= after_slash;
                after_slash = true;
            }
            DOT => {
                complex |= after_slash;
                after_slash = false;
            }
            PERCENT => {
                complex = true;
                after_slash = false;
            }
            QUESTION => return scan_args(text, at, complex || at == 0),
            HASH => return scan_fragment(text, at, at, None, true),
            SPACE => return Ok(Scan { len: at, path_len: at, args: None, complex }),
            _ => return Err(UriError),
        }
    }
    Ok(Scan { len: text.len(), path_len: text.len(), args: None, complex })
}

fn scan_args(text: &[u8], path_len: usize, complex: bool) -> Result<Scan, UriError> {
    let start = path_len + 1;
    for (at, &byte) in text.iter().enumerate().skip(start) {
        match CLASSES[byte as usize] {
            HASH => return scan_fragment(text, at, path_len, Some((start, at)), complex),
            SPACE => return Ok(Scan { len: at, path_len, args: Some((start, at)), complex }),
            REFUSED => return Err(UriError),
            _ => {}
        }
    }
    Ok(Scan { len: text.len(), path_len, args: Some((start, text.len())), complex })
}

#[cold]
fn scan_fragment(
    text: &[u8],
    hash: usize,
    path_len: usize,
    args: Option<(usize, usize)>,
    complex: bool,
) -> Result<Scan, UriError> {
    let rest = &text[hash..];
    let len = hash + rest.iter().position(|&byte| byte == b' ').unwrap_or(rest.len());
    if text[hash..len].iter().any(|&byte| CLASSES[byte as usize] == REFUSED) {
        return Err(UriError);
    }
    Ok(Scan { len, path_len, args, complex })
}

/// What the bytes written last mean for the next one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Usual,
    /// A slash.
    Slash,
    /// A slash and a dot.
    Dot,
    /// A slash and two dots.
    DotDot,
}

/// Writes the normal form of `path`, which has no query and no fragment.
fn rewrite(path: &[u8], out: &mut Vec<u8>, merge_slashes: bool) -> Result<(), UriError> {
    out.reserve(path.len().max(1));
    let mut state = State::Usual;
    let mut at = 0;
    if path.is_empty() {
        out.push(b'/');
    }
    while let Some(&sent) = path.get(at) {
        let byte = if sent == b'%' { unescape(path, at)? } else { sent };
        at += if sent == b'%' { 3 } else { 1 };
        state = match (byte, state) {
            (b'/', State::Usual) => {
                out.push(b'/');
                State::Slash
            }
            (b'/', State::Slash) => {
                if !merge_slashes {
                    out.push(b'/');
                }
                State::Slash
            }
            (b'/', dots) => {
                drop_dots(dots, out)?;
                State::Slash
            }
            (b'.', State::Slash) => {
                out.push(b'.');
                State::Dot
            }
            (b'.', State::Dot) => {
                out.push(b'.');
                State::DotDot
            }
            _ => {
                out.push(byte);
                State::Usual
            }
        };
    }
    drop_dots(state, out)
}

/// The byte that the escape at `at` stands for.
fn unescape(path: &[u8], at: usize) -> Result<u8, UriError> {
    let digit = |offset: usize| path.get(at + offset).and_then(|&byte| (byte as char).to_digit(16));
    match (digit(1), digit(2)) {
        (Some(high), Some(low)) if high + low > 0 => Ok((high * 16 + low) as u8),
        _ => Err(UriError),
    }
}

/// Resolves the dot segment at the end of `out`, if there is one; the slash before it stays.
fn drop_dots(state: State, out: &mut Vec<u8>) -> Result<(), UriError> {
    match state {
        State::Usual | State::Slash => {}
        State::Dot => out.truncate(out.len() - 1),
        State::DotDot => {
            let parent = out.len() - "/..".len();
            let slash = out[..parent].iter().rposition(|&byte| byte == b'/').ok_or(UriError)?;
            out.truncate(slash + 1);
        }
    }
    Ok(())
}

const USUAL: u8 = 0;
const SLASH: u8 = 1;
const DOT: u8 = 2;
const PERCENT: u8 = 3;
const QUESTION: u8 = 4;
const HASH: u8 = 5;
const SPACE: u8 = 6;
const REFUSED: u8 = 7;

static CLASSES: [u8; 256] = {
    let mut classes = [USUAL; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'/' => SLASH,
            b'.' => DOT,
            b'%' => PERCENT,
            b'?' => QUESTION,
            b'#' => HASH,
            b' ' => SPACE,
            0..0x20 | 0x7f => REFUSED,
            _ => USUAL,
        };
        byte += 1;
    }
    classes
};

#[cfg(test)]
mod tests;
