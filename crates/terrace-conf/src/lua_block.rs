//! Finds the end of a `*_by_lua_block`, which takes knowing where Lua's strings and comments are.
//!
//! This is no Lua parser: it counts braces outside of strings and comments and leaves the rest to Lua. A short
//! string ends at a line feed that is not escaped, since it is an error in Lua anyhow and must not swallow the file.

use memchr::{memchr, memmem};

/// Why a block has no end. Offsets are into the scanned text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unclosed {
    /// The text ends before the block does; the offset is that of the last `{`, if there is one.
    Block { last_brace: Option<usize> },
    /// A long string or comment is never closed by `bracket`.
    LongBracket { at: usize, bracket: String },
}

/// The offset of the `}` that closes the block whose inside `text` begins with.
pub(crate) fn end_of_block(text: &[u8]) -> Result<usize, Unclosed> {
    let mut level = 0usize;
    let mut last_brace = None;
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'{' => {
                level += 1;
                last_brace = Some(at);
            }
            b'}' if level == 0 => return Ok(at),
            b'}' => level -= 1,
            b'"' | b'\'' => {
                at = end_of_string(text, at);
                continue;
            }
            b'[' => {
                if let Some(inside) = long_bracket(text, at) {
                    at = end_of_long_bracket(text, at, inside)?;
                    continue;
                }
            }
            b'-' if text.get(at + 1) == Some(&b'-') => {
                at = end_of_comment(text, at)?;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    Err(Unclosed::Block { last_brace })
}

/// The offset behind the short string that begins at `at`.
fn end_of_string(text: &[u8], at: usize) -> usize {
    let quote = text[at];
    let mut at = at + 1;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'\\' => at += 1,
            b'\n' => return at + 1,
            _ if byte == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// The offset behind the comment that begins at `at`.
fn end_of_comment(text: &[u8], at: usize) -> Result<usize, Unclosed> {
    let bracket = at + 2;
    if let Some(inside) = long_bracket(text, bracket) {
        return end_of_long_bracket(text, bracket, inside);
    }
    Ok(memchr(b'\n', &text[bracket..]).map_or(text.len(), |length| bracket + length + 1))
}

/// When `[`, any number of `=`, and `[` stand at `at`: the offset behind them.
fn long_bracket(text: &[u8], at: usize) -> Option<usize> {
    let rest = text.get(at..)?.strip_prefix(b"[")?;
    let level = rest.iter().take_while(|&&byte| byte == b'=').count();
    (rest.get(level) == Some(&b'[')).then_some(at + level + 2)
}

fn end_of_long_bracket(text: &[u8], at: usize, inside: usize) -> Result<usize, Unclosed> {
    let bracket = format!("]{}]", "=".repeat(inside - at - 2));
    match memmem::find(&text[inside..], bracket.as_bytes()) {
        Some(length) => Ok(inside + length + bracket.len()),
        None => Err(Unclosed::LongBracket { at, bracket }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_closing_brace() {
        for (text, rest) in [
            ("} after", " after"),
            (" local t = {{}, {}} } x", " x"),
            (" s = '}' } x", " x"),
            (" s = \"\\\"}\" } x", " x"),
            (" s = '\\\\' } x", " x"),
            (" s = 'a\\\n}' } x", " x"),
            (" s = [[ } ]] } x", " x"),
            (" s = [==[ } ]] ]=] ]==] } x", " x"),
            (" -- } it's\n } x", " x"),
            (" --[[ } \n } ]] } x", " x"),
            (" --[=[ } ]] ]=] } x", " x"),
            (" --[= }\n } x", " x"),
            (" t[t[1]] = 2 } x", " x"),
            (" a = b - -1 } x", " x"),
            (" s = 'open\n } x", " x"),
            (" t[ [[}]] ] = 1 } x", " x"),
        ] {
            let end = end_of_block(text.as_bytes());
            assert_eq!(end.map(|at| &text[at + 1..]), Ok(rest), "{text:?}");
        }
    }

    #[test]
    fn says_what_is_not_closed() {
        assert_eq!(end_of_block(b" if {"), Err(Unclosed::Block { last_brace: Some(4) }));
        assert_eq!(end_of_block(b" '}"), Err(Unclosed::Block { last_brace: None }));
        assert_eq!(end_of_block(b" '\\"), Err(Unclosed::Block { last_brace: None }));
        assert_eq!(
            end_of_block(b"  [==[ ]=] }"),
            Err(Unclosed::LongBracket { at: 2, bracket: "]==]".to_owned() })
        );
    }
}
