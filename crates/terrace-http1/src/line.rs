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

    /// Takes an empty line that ends in CRLF, if one comes next within `limit`. A cheaper look than [`next`](Self::next)
    /// at what ends nearly every head.
    #[inline]
    pub(crate) fn take_empty(&mut self, buf: &[u8], limit: usize) -> bool {
        let is_empty = buf.get(self.start..self.start + 2) == Some(b"\r\n") && self.start + 2 <= limit;
        if is_empty {
            *self = Self::at(self.start + 2);
        }
        is_empty
    }

    /// The next line of `buf`, whose bytes past the offset `limit` are not looked at.
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "runs once a line; what it finds need not go through memory")]
    pub(crate) fn next(&mut self, buf: &[u8], limit: usize) -> Found {
        let window = &buf[..buf.len().min(limit)];
        let Some(unseen) = window.get(self.scanned..) else {
            return Found::TooLong;
        };
        let Some(found) = line_end(unseen) else {
            return self.unfinished(window.len(), window.len(), limit);
        };
        let end = self.scanned + found;
        let next = match &unseen[found..] {
            [b'\r', b'\n', ..] => end + 2,
            [b'\n', ..] => end + 1,
            [b'\r'] => return self.unfinished(end, window.len(), limit),
            _ => return Found::BadByte(end),
        };
        let start = self.start;
        *self = Self::at(next);
        Found::Line { start, end }
    }

    /// The line goes on behind `scanned`, or is too long.
    #[cold]
    fn unfinished(&mut self, scanned: usize, window_len: usize, limit: usize) -> Found {
        if window_len >= limit {
            return Found::TooLong;
        }
        self.scanned = scanned;
        Found::Partial
    }
}

/// How many words of a line are searched one by one: short lines are over before a call of `memchr` would pay.
const NEAR_WORDS: usize = 8;

/// The offset of the first LF, CR or NUL.
fn line_end(text: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::MAX / 0xff;
    let (words, rest) = text.as_chunks::<8>();
    for (index, word) in words.iter().take(NEAR_WORDS).enumerate() {
        let word = u64::from_le_bytes(*word);
        // The high bit of each byte below 0x0e. A borrow can only set bits of the bytes behind the first such byte.
        let mut low = word.wrapping_sub(ONES * 0x0e) & !word & (ONES * 0x80);
        while low != 0 {
            let shift = low.trailing_zeros() & !7;
            if is_line_end((word >> shift) as u8) {
                return Some(index * 8 + shift as usize / 8);
            }
            low &= low - 1;
        }
    }
    let near = NEAR_WORDS * 8;
    if text.len() >= near {
        return memchr3(b'\n', b'\r', 0, &text[near..]).map(|found| near + found);
    }
    let searched = text.len() - rest.len();
    rest.iter().position(|byte| is_line_end(*byte)).map(|found| searched + found)
}

#[inline]
fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\n' | b'\r' | 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_are_found_at_every_offset() {
        for len in 0..100 {
            let mut text: Vec<u8> =
                (0..len as u8).map(|i| [b'\t', 0x0e, 0x8d, b'a', 0xff, 1][i as usize % 6]).collect();
            assert_eq!(line_end(&text), None, "{len}");
            for at in 0..len {
                let usual = text[at];
                for end in [b'\n', b'\r', 0] {
                    text[at] = end;
                    assert_eq!(line_end(&text), Some(at), "{end} at {at} of {len}");
                }
                text[at] = usual;
            }
        }
    }
}
