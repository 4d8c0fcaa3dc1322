//! Words, `;` and braces: nginx's tokens, with its quoting and its limits.
//!
//! The rules, which are older than any document: quotes count only at the beginning of a word; a backslash keeps
//! the next byte from ending the word, and both stay unless the pair is one of `\" \' \\ \t \r \n`; after a closing
//! quote only a blank, `;`, `{` or `)` may stand; `{` right behind `$` belongs to the word.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use memchr::memchr;

use crate::lua_block::{Unclosed, end_of_block};
use crate::{Arg, ConfError, Position};

/// Longest word in bytes, with its escapes and without its quotes. It is the size of nginx's buffer, which makes a
/// forgotten closing quote an error near its beginning and not at the end of the file.
pub const WORD_BYTES_MAX: usize = 4096;

/// What the lexer hands out at a time.
#[derive(Debug)]
pub(crate) enum Token {
    /// One word or more, ended by `;` or, when `opens_block`, by `{`.
    Words { words: Vec<Arg>, opens_block: bool },
    /// `}`
    BlockEnd,
    /// Nothing is left.
    End,
}

pub(crate) struct Lexer {
    text: Bytes,
    at: usize,
    line: u32,
    file: Arc<str>,
    /// Whether this is the `-g` option's text, of which nginx counts no lines.
    is_parameter: bool,
}

impl Lexer {
    pub(crate) fn new(text: Bytes, file: Arc<str>) -> Lexer {
        Lexer { text, at: 0, line: 1, file, is_parameter: false }
    }

    pub(crate) fn parameter(text: Bytes) -> Lexer {
        Lexer { is_parameter: true, ..Lexer::new(text, Arc::from("command line")) }
    }

    pub(crate) fn is_parameter(&self) -> bool {
        self.is_parameter
    }

    /// The line of the byte read last.
    pub(crate) fn position(&self) -> Position {
        self.position_at(self.line)
    }

    pub(crate) fn error(&self, message: impl Into<String>) -> ConfError {
        ConfError::at(&self.position(), message)
    }

    /// The next directive's words, or the end of the block or file.
    pub(crate) fn token(&mut self) -> Result<Token, ConfError> {
        let mut words = Vec::new();
        loop {
            self.skip_blanks_and_comments();
            let Some(&byte) = self.text.get(self.at) else {
                return if words.is_empty() { Ok(Token::End) } else { Err(self.unexpected_end()) };
            };
            let end = match byte {
                b';' | b'{' if words.is_empty() => return Err(self.unexpected(byte)),
                b';' | b'{' => {
                    self.at += 1;
                    Some(byte)
                }
                b'}' if words.is_empty() => {
                    self.at += 1;
                    return Ok(Token::BlockEnd);
                }
                b'}' => return Err(self.unexpected(byte)),
                b'"' | b'\'' => self.quoted_word(byte, &mut words)?,
                _ => self.bare_word(&mut words)?,
            };
            if let Some(end) = end {
                return Ok(Token::Words { words, opens_block: end == b'{' });
            }
        }
    }

    /// The inside of a `*_by_lua_block` whose `{` has just been read; its `}` is read as well.
    pub(crate) fn raw_block(&mut self) -> Result<Bytes, ConfError> {
        let start = self.at;
        match end_of_block(&self.text[start..]) {
            Ok(length) => {
                let raw = self.text.slice(start..start + length);
                self.line += line_feeds(&raw);
                self.at = start + length + 1;
                Ok(raw)
            }
            Err(Unclosed::Block { last_brace }) => {
                let line = self.line + line_feeds(&self.text[start..start + last_brace.unwrap_or(0)]);
                let message = "unexpected end of file, expecting terminating characters for lua code block";
                Err(ConfError::at(&self.position_at(line), message))
            }
            Err(Unclosed::LongBracket { at, bracket }) => {
                let line = self.line + line_feeds(&self.text[start..start + at]);
                let message = format!(
                    "Lua code block missing the closing long bracket \"{bracket}\", \
                     the inlined Lua code may be too long"
                );
                Err(ConfError::at(&self.position_at(line), message))
            }
        }
    }

    fn skip_blanks_and_comments(&mut self) {
        while let Some(&byte) = self.text.get(self.at) {
            match byte {
                b'\n' => {
                    self.line += 1;
                    self.at += 1;
                }
                b' ' | b'\t' | b'\r' => self.at += 1,
                // The line feed is left for the next turn, which counts it.
                b'#' => self.at += memchr(b'\n', &self.text[self.at..]).unwrap_or(self.text.len() - self.at),
                _ => return,
            }
        }
    }

    /// Reads a word without quotes. Returns the `;` or `{` that ended it, `None` after a blank.
    fn bare_word(&mut self, words: &mut Vec<Arg>) -> Result<Option<u8>, ConfError> {
        let (start, at) = (self.at, self.position());
        let mut behind_dollar = false;
        loop {
            let byte = self.byte_of_word(start, &at, None)?;
            if byte == b'{' && behind_dollar {
                continue;
            }
            behind_dollar = byte == b'$';
            match byte {
                b'\\' => {
                    self.byte_of_word(start, &at, None)?;
                }
                b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' => {
                    let value = unescape(self.text.slice(start..self.at - 1));
                    words.push(Arg { value, quoted: false, at });
                    return Ok(matches!(byte, b';' | b'{').then_some(byte));
                }
                _ => {}
            }
        }
    }

    /// Reads a word in quotes and what must follow it. Returns as [`Lexer::bare_word`] does.
    fn quoted_word(&mut self, quote: u8, words: &mut Vec<Arg>) -> Result<Option<u8>, ConfError> {
        let at = self.position();
        self.at += 1;
        let start = self.at;
        loop {
            match self.byte_of_word(start, &at, Some(quote))? {
                b'\\' => {
                    self.byte_of_word(start, &at, Some(quote))?;
                }
                byte if byte == quote => break,
                _ => {}
            }
        }
        let value = unescape(self.text.slice(start..self.at - 1));
        words.push(Arg { value, quoted: true, at });
        match self.text.get(self.at) {
            None => Err(self.unexpected_end()),
            // Left for the caller: blanks are skipped and `)` begins the next word.
            Some(b' ' | b'\t' | b'\r' | b'\n' | b')') => Ok(None),
            Some(&byte @ (b';' | b'{')) => {
                self.at += 1;
                Ok(Some(byte))
            }
            Some(&byte) => Err(self.unexpected(byte)),
        }
    }

    /// Takes a byte of the word that begins at the offset `start` and the place `at`.
    fn byte_of_word(&mut self, start: usize, at: &Position, quote: Option<u8>) -> Result<u8, ConfError> {
        let Some(&byte) = self.text.get(self.at) else {
            return Err(self.unexpected_end());
        };
        if self.at - start == WORD_BYTES_MAX {
            let message = match quote {
                Some(quote) => {
                    let quote = char::from(quote);
                    format!("too long parameter, probably missing terminating \"{quote}\" character")
                }
                None => {
                    let beginning = String::from_utf8_lossy(&self.text[start..start + 10]);
                    format!("too long parameter \"{beginning}...\" started")
                }
            };
            return Err(ConfError::at(at, message));
        }
        self.at += 1;
        self.line += u32::from(byte == b'\n');
        Ok(byte)
    }

    fn position_at(&self, line: u32) -> Position {
        Position { file: self.file.clone(), line: if self.is_parameter { 0 } else { line } }
    }

    fn unexpected(&self, byte: u8) -> ConfError {
        self.error(format!("unexpected \"{}\"", String::from_utf8_lossy(&[byte])))
    }

    fn unexpected_end(&self) -> ConfError {
        self.error(if self.is_parameter {
            "unexpected end of parameter, expecting \";\""
        } else {
            "unexpected end of file, expecting \";\" or \"}\""
        })
    }
}

fn line_feeds(text: &[u8]) -> u32 {
    memchr::memchr_iter(b'\n', text).count() as u32
}

fn unescape(raw: Bytes) -> Bytes {
    if memchr(b'\\', &raw).is_none() {
        return raw;
    }
    let mut value = BytesMut::with_capacity(raw.len());
    let mut rest: &[u8] = &raw;
    while let [byte, tail @ ..] = rest {
        let escaped = match (byte, tail.first()) {
            (b'\\', Some(&kept @ (b'"' | b'\'' | b'\\'))) => Some(kept),
            (b'\\', Some(b't')) => Some(b'\t'),
            (b'\\', Some(b'r')) => Some(b'\r'),
            (b'\\', Some(b'n')) => Some(b'\n'),
            _ => None,
        };
        value.extend_from_slice(&[escaped.unwrap_or(*byte)]);
        rest = if escaped.is_some() { &tail[1..] } else { tail };
    }
    value.freeze()
}
