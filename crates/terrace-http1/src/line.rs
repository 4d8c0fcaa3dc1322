//! Finds the lines of a head, resuming where the last call stopped.
//!
//! A line ends in CRLF or, as nginx accepts, in a bare LF. The scanner looks at every byte once however the head is
//! split into reads, and owns the rule that no line of a head contains NUL or a CR without LF (RFC 9112 section 2.2).

use memchr::memchr3;

/// Where the next line starts and how far it has been searched for its end.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lines {
    start: usize,
    scanned: usize,
}

/// What the scanner found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A whole line: the offsets of its first byte and of its line end.
    Line { start: usize, end: usize },
    /// The line has not arrived whole.
    Partial,
    /// The line has no end within the bytes that it may take.
    TooLong,
    /// A NUL or a CR without LF stands at this offset.
    BadByte(usize),
}

impl Lines {
    /// Starts at `offset`.
    pub(crate) fn at(offset: usize) -> Self {
        Self { start: offset, scanned: offset }
    }

    /// The offset of the line that comes next.
    #[inline]
    pub(crate) fn start(&self) -> usize {
        self.start
    }

    /// Up to where the next line has been searched for its end.
    #[inline]
    pub(crate) fn scanned(&self) -> usize {
        self.scanned
    }

    /// The next line of `buf`, whose bytes past the offset `limit` are not looked at.
    #[inline]
    pub(crate) fn next(&mut self, buf: &[u8], limit: usize) -> Found {
        let window = &buf[..buf.len().min(limit)];
        let Some(unseen) = window.get(self.scanned..) else {
            return Found::TooLong;
        };
        let Some(found) = memchr3(b'\n', b'\r', 0, unseen) else {
            return self.unfinished(window.len(), limit);
        };
        let end = self.scanned + found;
        let next = match window[end] {
            b'\n' => end + 1,
            b'\r' => match window.get(end + 1) {
                Some(b'\n') => end + 2,
                Some(_) => return Found::BadByte(end),
                None if window.len() >= limit => return Found::TooLong,
                None => {
                    self.scanned = end;
                    return Found::Partial;
                }
            },
            _ => return Found::BadByte(end),
        };
        let start = self.start;
        *self = Self::at(next);
        Found::Line { start, end }
    }

    fn unfinished(&mut self, window_len: usize, limit: usize) -> Found {
        if window_len >= limit {
            return Found::TooLong;
        }
        self.scanned = window_len;
        Found::Partial
    }
}
