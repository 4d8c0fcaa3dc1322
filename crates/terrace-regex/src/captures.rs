//! Where the groups of a match lie in the subject.

use std::ops::Range;

/// PCRE2's mark of a group which took no part in a match.
const UNSET: usize = usize::MAX;

/// The groups of the last successful match, group 0 being the whole match. Made to be reused: it keeps its memory from
/// match to match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captures {
    /// Start and end offsets by turns, two for each group up to the highest that took part.
    offsets: Vec<usize>,
}

impl Captures {
    /// Without any group, and without memory.
    pub const fn new() -> Self {
        Self { offsets: Vec::new() }
    }

    /// The byte range of group `index` in the subject; `None` when the group took no part in the match or does not exist.
    /// Never runs backwards.
    pub fn range(&self, index: usize) -> Option<Range<usize>> {
        let at = index.checked_mul(2)?;
        let (&start, &end) = (self.offsets.get(at)?, self.offsets.get(at + 1)?);
        (start != UNSET && end != UNSET).then(|| start.min(end)..end)
    }

    /// How many groups can be asked for: one more than the highest group that took part, 0 without a match.
    pub fn len(&self) -> usize {
        self.offsets.len() / 2
    }

    /// Whether there is no group at all, as before the first match and after a failed one.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.offsets.clear();
    }

    pub(crate) fn set(&mut self, offsets: &[usize]) {
        self.offsets.clear();
        self.offsets.extend_from_slice(offsets);
    }
}
