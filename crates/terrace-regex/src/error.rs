//! What can go wrong: a pattern which does not compile, a match which was given up.
//!
//! The texts follow nginx and OpenResty, because configurations and scripts (and their tests) look for them.

use pcre2_sys::{
    PCRE2_ERROR_DEPTHLIMIT, PCRE2_ERROR_HEAPLIMIT, PCRE2_ERROR_JIT_STACKLIMIT, PCRE2_ERROR_MATCHLIMIT,
    PCRE2_ERROR_UTF8_ERR1, PCRE2_ERROR_UTF8_ERR21,
};

/// Why a pattern could not become a [`Regex`](crate::Regex). The fault of whoever wrote the pattern, except
/// [`RegexError::NoMemory`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegexError {
    /// The pattern is wrong. Displays as nginx writes it:
    /// `pcre2_compile() failed: <message> in "<pattern>" at "<rest>"`, without the `at` part when the error lies at the
    /// end of the pattern. Bytes which are not UTF-8 show as U+FFFD.
    #[error("pcre2_compile() failed: {message} in \"{}\"{}", lossy(.pattern), rest(.pattern, *.offset))]
    Compile {
        /// The library's text, such as `missing closing parenthesis`.
        message: String,
        /// The whole pattern.
        pattern: Vec<u8>,
        /// Offset in bytes of the error in the pattern.
        offset: usize,
    },
    /// The library could not allocate.
    #[error("regex \"{}\" compilation failed: no memory", lossy(.0))]
    NoMemory(
        /// The whole pattern.
        Vec<u8>,
    ),
}

/// Why a match was given up before an answer was found. A subject which simply does not match is not an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("pcre2_match() failed: {code}")]
pub struct MatchError {
    code: i32,
}

impl MatchError {
    pub(crate) fn new(code: i32) -> Self {
        Self { code }
    }

    /// PCRE2's negative error number, which `ngx.re.*` shows as `pcre_exec() failed: <code>`.
    pub fn code(self) -> i32 {
        self.code
    }

    /// Whether one of the [`Limits`](crate::Limits) or the bound of the JIT stack was hit.
    pub fn is_limit(self) -> bool {
        matches!(
            self.code,
            PCRE2_ERROR_MATCHLIMIT
                | PCRE2_ERROR_DEPTHLIMIT
                | PCRE2_ERROR_HEAPLIMIT
                | PCRE2_ERROR_JIT_STACKLIMIT
        )
    }

    /// Whether the subject was not valid UTF-8 although the expression asked for it.
    pub fn is_invalid_utf8(self) -> bool {
        (PCRE2_ERROR_UTF8_ERR21..=PCRE2_ERROR_UTF8_ERR1).contains(&self.code)
    }
}

fn lossy(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn rest(pattern: &[u8], offset: usize) -> String {
    match pattern.get(offset..) {
        Some(tail) if !tail.is_empty() => format!(" at \"{}\"", lossy(tail)),
        _ => String::new(),
    }
}
