//! The one error of configuration: what is wrong, where, and what may help.

use std::fmt;

use crate::Position;

/// Why a configuration cannot be used. Displays as nginx would say it, with the hint on a line of its own:
/// `unknown directive "proxy_pas" in conf/nginx.conf:12` and then `did you mean "proxy_pass"?`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{}", Place(at.as_ref()), HintLine(hint.as_deref()))]
pub struct ConfError {
    /// What is wrong, in nginx's words where nginx has any.
    pub message: String,
    /// Where it was noticed; `None` when no place in a file is to blame.
    pub at: Option<Position>,
    /// What the author may have meant.
    pub hint: Option<String>,
}

impl ConfError {
    /// An error that no place in a file is to blame for.
    #[must_use]
    pub fn new(message: impl Into<String>) -> ConfError {
        ConfError { message: message.into(), at: None, hint: None }
    }

    /// An error noticed at `at`.
    #[must_use]
    pub fn at(at: &Position, message: impl Into<String>) -> ConfError {
        ConfError { message: message.into(), at: Some(at.clone()), hint: None }
    }

    /// The same error with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> ConfError {
        self.hint = Some(hint.into());
        self
    }

    /// The same error, placed at `at` when it has no place yet.
    #[must_use]
    pub fn or_at(mut self, at: &Position) -> ConfError {
        self.at.get_or_insert_with(|| at.clone());
        self
    }
}

struct Place<'a>(Option<&'a Position>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |at| write!(f, " in {at}"))
    }
}

struct HintLine<'a>(Option<&'a str>);

impl fmt::Display for HintLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |hint| write!(f, "\n{hint}"))
    }
}
