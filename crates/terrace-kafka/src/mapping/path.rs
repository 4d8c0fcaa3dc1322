//! Where a field is in a message: `productId`, or dotted for what lies deeper: `payload.after.id`.
//!
//! A path that meets a list goes on in each of its elements, so one message may name several keys. A segment that is a
//! number picks one element instead.

use serde_json::Value;

use super::MappingError;

/// Number of segments that a path may have.
pub const SEGMENTS_MAX: usize = 16;

/// The place of a field in a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    text: Box<str>,
    segments: Vec<Box<str>>,
}

/// A list that a path goes through, and the element that was chosen of it. Lists are told apart by where they stand.
#[derive(Clone, Copy)]
pub(super) struct Choice<'v> {
    pub list: &'v [Value],
    pub index: usize,
}

/// What stands at a path.
pub(super) enum Place<'v> {
    /// A value that is no list.
    Value(&'v Value),
    /// A list of which no element is chosen yet.
    List(&'v [Value]),
    /// Nothing.
    Missing,
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// When it is empty, has an empty segment, or more than [`SEGMENTS_MAX`].
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        let segments: Vec<Box<str>> = text.split('.').map(Box::from).collect();
        if segments.iter().any(|s| s.is_empty()) || segments.len() > SEGMENTS_MAX {
            return Err(MappingError::Path(text.into()));
        }
        Ok(Self { text: text.into(), segments })
    }

    /// The path as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Follows the path from `root`, through lists as `choices` says.
    pub(super) fn follow<'v>(&self, root: &'v Value, choices: &[Choice<'v>]) -> Place<'v> {
        let mut at = root;
        let mut rest = self.segments.iter();
        loop {
            if let Value::Array(list) = at {
                let index = rest.as_slice().first().and_then(|segment| segment.parse::<usize>().ok());
                if index.is_some() {
                    rest.next();
                }
                let chosen =
                    || choices.iter().find(|c| std::ptr::eq(c.list, list.as_slice())).map(|c| c.index);
                match index.or_else(chosen) {
                    Some(index) => match list.get(index) {
                        Some(element) => at = element,
                        None => return Place::Missing,
                    },
                    None => return Place::List(list),
                }
                continue;
            }
            let Some(segment) = rest.next() else { return Place::Value(at) };
            match at.get(segment.as_ref()) {
                Some(field) => at = field,
                None => return Place::Missing,
            }
        }
    }
}
