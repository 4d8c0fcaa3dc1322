//! How an expression is compiled and how much work a match may do.

/// The choices at compile time. The default is what nginx uses for `~`: bytes, case-sensitive, backtracking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Options {
    /// Match only at the start offset (`a`).
    pub anchored: bool,
    /// Ignore case (`i`, and nginx's `~*`).
    pub caseless: bool,
    /// Use the DFA algorithm: the longest match, no captures but the whole (`d`).
    pub dfa: bool,
    /// Several groups may share a name (`D`).
    pub dup_names: bool,
    /// Behave like JavaScript for `\u`, `\x`, `[]` and unset back references (`J`).
    pub javascript: bool,
    /// `^` and `$` also match at line ends inside the subject (`m`).
    pub multiline: bool,
    /// `.` also matches a newline (`s`).
    pub dotall: bool,
    /// Pattern and subject are UTF-8; an invalid subject is a [`MatchError`](crate::MatchError) (`u`).
    pub utf: bool,
    /// Like `utf`, but an invalid subject is no error: no character matches across the invalid bytes (`U`).
    ///
    /// OpenResty skips the check here and leaves an invalid subject undefined. That could read outside the subject, so
    /// PCRE2's own mode for invalid UTF takes its place; the DFA algorithm has no such mode and checks as with `utf`.
    pub utf_lenient: bool,
    /// Ignore white space and `#` comments in the pattern (`x`).
    pub extended: bool,
}

/// A flag that `ngx.re.*` does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown flag \"{flag}\" (flags \"{flags}\")")]
pub struct UnknownFlag {
    /// The offending character.
    pub flag: char,
    /// All flags, as given; bytes which are not UTF-8 show as U+FFFD.
    pub flags: String,
}

impl Options {
    /// Reads the flags of `ngx.re.*`. `o` (compile once) and `j` (JIT) are accepted and change nothing here: the caller
    /// caches, and the JIT is always tried.
    pub fn from_flags(flags: &[u8]) -> Result<Self, UnknownFlag> {
        let mut options = Self::default();
        for &flag in flags {
            match flag {
                b'a' => options.anchored = true,
                b'd' => options.dfa = true,
                b'D' => options.dup_names = true,
                b'i' => options.caseless = true,
                b'j' | b'o' => {}
                b'J' => options.javascript = true,
                b'm' => options.multiline = true,
                b's' => options.dotall = true,
                b'u' => options.utf = true,
                b'U' => options.utf_lenient = true,
                b'x' => options.extended = true,
                _ => {
                    let flags = String::from_utf8_lossy(flags).into_owned();
                    return Err(UnknownFlag { flag: char::from(flag), flags });
                }
            }
        }
        Ok(options)
    }
}

/// The bounds of one match. Reaching any of them is a [`MatchError`](crate::MatchError) for which
/// [`is_limit`](crate::MatchError::is_limit) holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How often the matcher may enter its inner function (`lua_regex_match_limit`). Counted by the JIT too, which needs
    /// fewer steps for the same work. Default: 10 million, as in PCRE2.
    pub match_limit: u32,
    /// How deep the interpreter may nest backtracking points. Not used by the JIT. Default: 10 million, as in PCRE2.
    pub depth_limit: u32,
    /// How much heap, in KiB, the interpreter and the DFA algorithm may use; a thread keeps what was used once. Not used
    /// by the JIT, whose stack has its own bound. Default: 20,000 KiB (PCRE2's own default is a thousand times as much).
    pub heap_limit_kib: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { match_limit: 10_000_000, depth_limit: 10_000_000, heap_limit_kib: 20_000 }
    }
}
