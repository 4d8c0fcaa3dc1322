//! What a socket has read and Lua has not taken yet, and how the forms of `receive` take it: a line, a count, up to a
//! pattern. Knows no socket but to be filled from one; what it holds is bounded by memory only, as scripts ask.

use std::borrow::Cow;
use std::io;

use super::transport::Transport;
use memchr::{memchr, memmem};

/// A buffer that grew beyond this is freed once it is empty and its connection goes to a pool.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// What a call wants to receive.
#[derive(Debug, Clone)]
pub enum Want<'a> {
    /// A line, without its end and without any carriage return.
    Line,
    /// So many bytes.
    Bytes(usize),
    /// What is there, at most so many bytes.
    Any(usize),
    /// Everything up to the end of the stream.
    All,
    /// Everything up to a pattern.
    Until(Until<'a>),
}

/// Up to a pattern.
#[derive(Debug, Clone)]
pub struct Until<'a> {
    /// Not empty.
    pub pattern: Cow<'a, [u8]>,
    /// Whether the pattern is a part of the result.
    pub inclusive: bool,
    /// Give pieces of so many bytes; 0 gives everything at once.
    pub piece: usize,
}

impl Want<'_> {
    /// The same, free of borrows.
    pub fn into_owned(self) -> Want<'static> {
        match self {
            Want::Line => Want::Line,
            Want::Bytes(n) => Want::Bytes(n),
            Want::Any(n) => Want::Any(n),
            Want::All => Want::All,
            Want::Until(u) => Want::Until(Until {
                pattern: Cow::Owned(u.pattern.into_owned()),
                inclusive: u.inclusive,
                piece: u.piece,
            }),
        }
    }
}

/// A part at the front of the input that satisfies a want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The bytes of the result.
    pub len: usize,
    /// The bytes that go from the input.
    pub used: usize,
    /// Whether the pattern was reached.
    pub reached: bool,
}

/// Bytes read and not yet taken.
#[derive(Debug, Default)]
pub struct Input {
    /// All of it may be written to; what is held lies in `start..end`.
    data: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// Nothing read yet; no memory taken.
    pub const fn new() -> Input {
        Input { data: Vec::new(), start: 0, end: 0 }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn held(&self) -> &[u8] {
        self.data.get(self.start..self.end).unwrap_or_default()
    }

    /// The part that satisfies `want`, if it is there. `scanned` is how much has been searched in vain before; begin
    /// with 0 and pass it on until something is taken.
    pub fn find(&self, want: &Want<'_>, scanned: &mut usize) -> Option<Found> {
        let held = self.held();
        match want {
            Want::Line => {
                let from = (*scanned).min(held.len());
                *scanned = held.len();
                let len = from + memchr(b'\n', held.get(from..)?)?;
                Some(Found { len, used: len + 1, reached: true })
            }
            Want::Bytes(n) => (held.len() >= *n).then_some(Found { len: *n, used: *n, reached: true }),
            Want::Any(max) => {
                let len = held.len().min(*max);
                (len > 0).then_some(Found { len, used: len, reached: true })
            }
            Want::All => None,
            Want::Until(until) => until.find(held, scanned),
        }
    }

    /// Takes what was found. The bytes stay where they are until the next fill.
    pub fn take(&mut self, want: &Want<'_>, found: Found) -> Cow<'_, [u8]> {
        let from = self.start;
        self.start = (from + found.used).min(self.end);
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        let bytes = self.data.get(from..from + found.len).unwrap_or_default();
        if matches!(want, Want::Line) { without_returns(bytes) } else { Cow::Borrowed(bytes) }
    }

    /// Takes what a call that fails has received. A pattern that may go on is kept unless nothing can follow.
    pub fn take_partial(&mut self, want: &Want<'_>, ended: bool) -> Cow<'_, [u8]> {
        let len = match want {
            Want::Until(u) if !ended => u.certain(self.held()),
            _ => self.held().len(),
        };
        self.take(want, Found { len, used: len, reached: false })
    }

    /// Reads once what the stream has; 0 at its end. `buffer_bytes` is the least that a read asks for.
    pub fn fill(&mut self, stream: &Transport, buffer_bytes: usize) -> io::Result<usize> {
        let room = self.room(buffer_bytes.max(1));
        let n = stream.try_read(room)?;
        self.end += n;
        Ok(n)
    }

    /// Room behind what is held: moves it to the front, or doubles the buffer.
    fn room(&mut self, least: usize) -> &mut [u8] {
        if self.data.len() - self.end < least && self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.data.len() - self.end < least {
            let len = (self.data.len() * 2).max(self.end + least);
            self.data.resize(len, 0);
        }
        self.data.get_mut(self.end..).unwrap_or_default()
    }

    /// Gives memory back that only a large response needed.
    pub fn shrink(&mut self) {
        if self.data.len() > KEPT_BYTES_MAX && self.is_empty() {
            *self = Input::new();
        }
    }

    #[cfg(test)]
    fn push(&mut self, bytes: &[u8]) {
        self.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }
}

impl Until<'_> {
    fn find(&self, held: &[u8], scanned: &mut usize) -> Option<Found> {
        let from = (*scanned).min(held.len());
        let at = memmem::find(held.get(from..)?, &self.pattern).map(|i| from + i);
        // The last bytes may be the pattern's beginning: they are searched again.
        *scanned = held.len().saturating_sub(self.pattern.len() - 1).max(from);
        match at {
            Some(at) if self.piece == 0 || at < self.piece => {
                let used = at + self.pattern.len();
                Some(Found { len: if self.inclusive { used } else { at }, used, reached: true })
            }
            Some(_) => Some(self.piece()),
            None if self.piece == 0 => None,
            None => (self.certain(held) >= self.piece).then(|| self.piece()),
        }
    }

    fn piece(&self) -> Found {
        Found { len: self.piece, used: self.piece, reached: false }
    }

    /// How much of `held` is certainly before the pattern: all but an end that may be the pattern's beginning.
    fn certain(&self, held: &[u8]) -> usize {
        let most = held.len().min(self.pattern.len() - 1);
        let begun = (1..=most).rev().find(|&n| self.pattern.get(..n).is_some_and(|p| held.ends_with(p)));
        held.len() - begun.unwrap_or(0)
    }
}

/// A line's bytes without carriage returns; nearly always there is one at most, at the end.
fn without_returns(line: &[u8]) -> Cow<'_, [u8]> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if memchr(b'\r', line).is_none() {
        return Cow::Borrowed(line);
    }
    Cow::Owned(line.iter().copied().filter(|b| *b != b'\r').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receive(input: &mut Input, want: &Want<'_>) -> Option<Vec<u8>> {
        let found = input.find(want, &mut 0)?;
        Some(input.take(want, found).into_owned())
    }

    fn until(pattern: &'static [u8], inclusive: bool, piece: usize) -> Want<'static> {
        Want::Until(Until { pattern: Cow::Borrowed(pattern), inclusive, piece })
    }

    #[test]
    fn lines_lose_their_end_and_all_carriage_returns() {
        let mut input = Input::new();
        input.push(b"one\r\nt\rwo\n\r\nrest");
        assert_eq!(receive(&mut input, &Want::Line).unwrap(), b"one");
        assert_eq!(receive(&mut input, &Want::Line).unwrap(), b"two");
        assert_eq!(receive(&mut input, &Want::Line).unwrap(), b"");
        assert_eq!(receive(&mut input, &Want::Line), None);
        assert_eq!(&*input.take_partial(&Want::Line, false), b"rest");
        assert!(input.is_empty());
    }

    #[test]
    fn a_line_in_pieces_is_searched_only_once() {
        let (mut input, mut scanned) = (Input::new(), 0);
        input.push(b"abc");
        assert_eq!(input.find(&Want::Line, &mut scanned), None);
        assert_eq!(scanned, 3);
        input.push(b"d\ne");
        let found = input.find(&Want::Line, &mut scanned).unwrap();
        assert_eq!(&*input.take(&Want::Line, found), b"abcd");
        assert_eq!(input.held(), b"e");
    }

    #[test]
    fn counts() {
        let mut input = Input::new();
        input.push(b"abcdef");
        assert_eq!(receive(&mut input, &Want::Bytes(4)).unwrap(), b"abcd");
        assert_eq!(receive(&mut input, &Want::Bytes(3)), None);
        assert_eq!(receive(&mut input, &Want::Any(1)).unwrap(), b"e");
        assert_eq!(receive(&mut input, &Want::Any(10)).unwrap(), b"f");
        assert_eq!(receive(&mut input, &Want::Any(10)), None);
        assert_eq!(receive(&mut input, &Want::All), None);
    }

    #[test]
    fn up_to_a_pattern_across_reads() {
        let (mut input, mut scanned) = (Input::new(), 0);
        let want = until(b"--end", false, 0);
        input.push(b"body--e");
        assert_eq!(input.find(&want, &mut scanned), None);
        input.push(b"nd tail");
        let found = input.find(&want, &mut scanned).unwrap();
        assert_eq!(&*input.take(&want, found), b"body");
        assert_eq!(input.held(), b" tail");
        input.push(b"--end");
        assert_eq!(receive(&mut input, &until(b"--end", true, 0)).unwrap(), b" tail--end");
    }

    #[test]
    fn pieces_stop_before_what_may_be_the_pattern() {
        let mut input = Input::new();
        let want = until(b"--x", false, 4);
        input.push(b"hell");
        assert_eq!(receive(&mut input, &want).unwrap(), b"hell");
        input.push(b"abc-");
        assert_eq!(receive(&mut input, &want), None);
        input.push(b"-");
        assert_eq!(receive(&mut input, &want), None);
        input.push(b"-x!");
        let found = input.find(&want, &mut 0).unwrap();
        assert_eq!(found, Found { len: 4, used: 4, reached: false });
        assert_eq!(&*input.take(&want, found), b"abc-");
        let found = input.find(&want, &mut 0).unwrap();
        assert!(found.reached && found.len == 0);
        input.take(&want, found);
        assert_eq!(input.held(), b"!");
    }

    #[test]
    fn a_timeout_keeps_a_begun_pattern() {
        let mut input = Input::new();
        let want = until(b"--end", false, 0);
        input.push(b"data--e");
        assert_eq!(&*input.take_partial(&want, false), b"data");
        input.push(b"nd");
        assert_eq!(receive(&mut input, &want).unwrap(), b"");
        input.push(b"x--");
        assert_eq!(&*input.take_partial(&want, true), b"x--");
    }

    #[test]
    fn a_buffer_grown_large_is_given_back() {
        let mut input = Input::new();
        input.push(&[7; KEPT_BYTES_MAX + 1]);
        input.shrink();
        assert_eq!(input.held().len(), KEPT_BYTES_MAX + 1);
        input.take_partial(&Want::All, true);
        input.shrink();
        assert_eq!(input.data.len(), 0);
    }
}
