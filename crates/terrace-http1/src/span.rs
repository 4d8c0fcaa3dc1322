//! A range of bytes in the caller's buffer.
//!
//! Heads hold offsets rather than slices so that they borrow nothing: the caller may keep the head and the buffer
//! side by side, grow the buffer between two calls, and cut shared slices from it afterwards.

use std::ops::Range;

/// A range of bytes, counted from the start of the buffer that was handed to the parser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The span from `start` up to, but not including, `end`.
    ///
    /// Offsets past `u32::MAX` do not occur in a head, whose size limits are 32 bits wide.
    #[inline]
    pub fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self { start: start as u32, end: end as u32 }
    }

    /// The offset of the first byte.
    #[inline]
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// The offset after the last byte.
    #[inline]
    pub fn end(self) -> usize {
        self.end as usize
    }

    /// The number of bytes.
    #[inline]
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether the span has no bytes.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The span as a range, for `Bytes::slice`.
    #[inline]
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes of the span in `buf`; empty when `buf` is shorter than the span reaches.
    #[inline]
    pub fn of(self, buf: &[u8]) -> &[u8] {
        buf.get(self.range()).unwrap_or_default()
    }
}
