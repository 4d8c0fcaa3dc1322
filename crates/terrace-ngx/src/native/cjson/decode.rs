//! Reading a document into a flat list of nodes, in plain Rust: all errors in the text are found here, before Lua is
//! touched.
//!
//! Invariant of the list: a container's node is followed by its members in order (keys and values by turns in an object),
//! and its count is right once parsing succeeded.

use std::ffi::CStr;

use super::config::DecodeSettings;
use super::number;

/// One value or key. Offsets and lengths fit `u32`, because LuaJIT's strings are shorter than 2 GiB.
#[derive(Clone, Copy)]
pub(super) enum Node {
    Null,
    Boolean(bool),
    Number(f64),
    /// A string without escapes: a range of the source.
    Plain(u32, u32),
    /// A string that had escapes: a range of [`Tape::text`].
    Unescaped(u32, u32),
    /// An array with so many elements.
    Array(u32),
    /// An object with so many pairs.
    Object(u32),
}

/// A document that was read, and the memory for it.
#[derive(Default)]
pub(super) struct Tape {
    pub nodes: Vec<Node>,
    /// The strings that had escapes, one after the other.
    pub text: Vec<u8>,
    /// Containers that are open while reading.
    open: Vec<Open>,
    /// The greatest depth of nesting.
    pub depth_max: u32,
    /// Where that depth was reached: bytes read until then.
    pub depth_max_at: usize,
}

struct Open {
    /// Index of the container's node.
    node: u32,
    count: u32,
    is_array: bool,
}

impl Tape {
    fn clear(&mut self) {
        self.nodes.clear();
        self.text.clear();
        self.open.clear();
        self.depth_max = 0;
        self.depth_max_at = 0;
    }

    /// Gives memory beyond `bytes_max` back.
    pub(super) fn shrink(&mut self, bytes_max: usize) {
        if self.nodes.capacity() * size_of::<Node>() > bytes_max || self.text.capacity() > bytes_max {
            *self = Self::default();
        }
    }
}

/// What is wrong with a document. A plain value, so that it may be alive when Lua unwinds.
#[derive(Clone, Copy)]
pub(super) enum DecodeError {
    /// `at` counts bytes from 0.
    Expected { what: &'static CStr, found: &'static CStr, at: usize },
    /// `at` is the number of bytes read.
    TooDeep { depth: u32, at: usize },
    /// The text is UTF-16 or UTF-32.
    WideCharacters,
}

/// Anything the grammar knows.
#[derive(Clone, Copy)]
enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Colon,
    Comma,
    End,
    Value(Node),
    Error(&'static CStr),
}

impl Token {
    /// How error messages call it.
    fn name(self) -> &'static CStr {
        match self {
            Self::ObjectBegin => c"T_OBJ_BEGIN",
            Self::ObjectEnd => c"T_OBJ_END",
            Self::ArrayBegin => c"T_ARR_BEGIN",
            Self::ArrayEnd => c"T_ARR_END",
            Self::Colon => c"T_COLON",
            Self::Comma => c"T_COMMA",
            Self::End => c"T_END",
            Self::Value(Node::Null) => c"T_NULL",
            Self::Value(Node::Boolean(_)) => c"T_BOOLEAN",
            Self::Value(Node::Number(_)) => c"T_NUMBER",
            Self::Value(_) => c"T_STRING",
            Self::Error(text) => text,
        }
    }
}

/// Reads `source` into `tape`, whose former content is lost. A zero byte ends the document, like the end itself.
pub(super) fn parse(source: &[u8], settings: &DecodeSettings, tape: &mut Tape) -> Result<(), DecodeError> {
    if let [0, _, ..] | [_, 0, ..] = source {
        return Err(DecodeError::WideCharacters);
    }
    tape.clear();
    let mut parser = Parser { source, at: 0, token_at: 0, settings, tape };
    parser.document()
}

struct Parser<'a> {
    source: &'a [u8],
    at: usize,
    /// Where the last token starts, or the place of the error in it.
    token_at: usize,
    settings: &'a DecodeSettings,
    tape: &'a mut Tape,
}

impl Parser<'_> {
    /// The byte at `at`, zero at the end.
    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.source.get(at).copied().unwrap_or(0)
    }

    fn document(&mut self) -> Result<(), DecodeError> {
        let mut token = self.token();
        loop {
            // A value is due, and `token` is its first token.
            match token {
                Token::Value(node) => self.tape.nodes.push(node),
                Token::ArrayBegin | Token::ObjectBegin => {
                    let is_array = matches!(token, Token::ArrayBegin);
                    self.open(is_array)?;
                    token = self.token();
                    let is_empty = match token {
                        Token::ArrayEnd => is_array,
                        Token::ObjectEnd => !is_array,
                        _ => false,
                    };
                    if !is_empty {
                        if !is_array {
                            token = self.key(token)?;
                        }
                        continue;
                    }
                    self.close(0);
                }
                _ => return self.expected(c"value", token),
            }
            // A value is complete; it may complete the containers around it.
            loop {
                let Some(open) = self.tape.open.last_mut() else {
                    return match self.token() {
                        Token::End => Ok(()),
                        token => self.expected(c"the end", token),
                    };
                };
                open.count += 1;
                let (is_array, count) = (open.is_array, open.count);
                token = self.token();
                match token {
                    Token::Comma => {
                        token = self.token();
                        if !is_array {
                            token = self.key(token)?;
                        }
                        break;
                    }
                    Token::ArrayEnd if is_array => self.close(count),
                    Token::ObjectEnd if !is_array => self.close(count),
                    _ if is_array => return self.expected(c"comma or array end", token),
                    _ => return self.expected(c"comma or object end", token),
                }
            }
        }
    }

    fn open(&mut self, is_array: bool) -> Result<(), DecodeError> {
        let tape = &mut *self.tape;
        let depth = tape.open.len() as u32 + 1;
        if depth > tape.depth_max {
            tape.depth_max = depth;
            tape.depth_max_at = self.at;
            if depth > self.settings.max_depth as u32 {
                return Err(DecodeError::TooDeep { depth, at: self.at });
            }
        }
        let node = tape.nodes.len() as u32;
        tape.nodes.push(if is_array { Node::Array(0) } else { Node::Object(0) });
        tape.open.push(Open { node, count: 0, is_array });
        Ok(())
    }

    fn close(&mut self, members: u32) {
        let tape = &mut *self.tape;
        if let Some(open) = tape.open.pop()
            && let Some(Node::Array(count) | Node::Object(count)) = tape.nodes.get_mut(open.node as usize)
        {
            *count = members;
        }
    }

    /// Takes `token` for a key, then the colon; the first token of the value.
    #[inline]
    fn key(&mut self, token: Token) -> Result<Token, DecodeError> {
        match token {
            Token::Value(node @ (Node::Plain(..) | Node::Unescaped(..))) => self.tape.nodes.push(node),
            _ => return self.expected(c"object key string", token),
        }
        if self.byte(self.at) == b':' {
            self.at += 1;
        } else {
            let token = self.token();
            if !matches!(token, Token::Colon) {
                return self.expected(c"colon", token);
            }
        }
        Ok(self.token())
    }

    #[cold]
    fn expected<T>(&self, what: &'static CStr, token: Token) -> Result<T, DecodeError> {
        Err(DecodeError::Expected { what, found: token.name(), at: self.token_at })
    }

    #[cold]
    fn error(&mut self, text: &'static CStr, at: usize) -> Token {
        self.token_at = at;
        Token::Error(text)
    }

    /// The next token, after white space and, where allowed, comments.
    #[inline]
    fn token(&mut self) -> Token {
        while matches!(self.byte(self.at), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        if self.byte(self.at) == b'/' && self.settings.allow_comment && !self.comments() {
            return self.error(c"unclosed multi-line comment", self.at);
        }
        self.token_at = self.at;
        let single = match self.byte(self.at) {
            b'"' => return self.string(),
            b'-' | b'0'..=b'9' => return self.number(),
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b',' => Token::Comma,
            b':' => Token::Colon,
            0 => return Token::End,
            _ => return self.word(),
        };
        self.at += 1;
        single
    }

    /// Skips comments and white space; false when a comment is not closed.
    fn comments(&mut self) -> bool {
        loop {
            match (self.byte(self.at), self.byte(self.at + 1)) {
                (b' ' | b'\t' | b'\n' | b'\r', _) => self.at += 1,
                (b'/', b'/') => {
                    while !matches!(self.byte(self.at), 0 | b'\n') {
                        self.at += 1;
                    }
                }
                (b'/', b'*') => {
                    self.at += 2;
                    while (self.byte(self.at), self.byte(self.at + 1)) != (b'*', b'/') {
                        if self.byte(self.at) == 0 {
                            return false;
                        }
                        self.at += 1;
                    }
                    self.at += 2;
                }
                _ => return true,
            }
        }
    }

    fn word(&mut self) -> Token {
        let rest = self.source.get(self.at..).unwrap_or_default();
        let (node, len) = if rest.starts_with(b"true") {
            (Node::Boolean(true), 4)
        } else if rest.starts_with(b"false") {
            (Node::Boolean(false), 5)
        } else if rest.starts_with(b"null") {
            (Node::Null, 4)
        } else if self.settings.invalid_numbers
            && matches!(rest.first(), Some(b'+' | b'i' | b'I' | b'n' | b'N'))
            && number::is_invalid_json(rest)
        {
            return self.unusual_number();
        } else {
            return self.error(c"invalid token", self.at);
        };
        self.at += len;
        Token::Value(node)
    }

    fn number(&mut self) -> Token {
        let rest = self.source.get(self.at..).unwrap_or_default();
        if !self.settings.invalid_numbers && number::is_invalid_json(rest) {
            return self.error(c"invalid number", self.at);
        }
        match number::parse(rest) {
            Some((value, len)) => {
                self.at += len;
                Token::Value(Node::Number(value))
            }
            None => self.unusual_number(),
        }
    }

    /// Hexadecimal, NaN, infinities, a leading plus: whatever C's `strtod` takes.
    fn unusual_number(&mut self) -> Token {
        let rest = self.source.get(self.at..).unwrap_or_default();
        match number::parse_like_c(rest) {
            Some((value, len)) => {
                self.at += len;
                Token::Value(Node::Number(value))
            }
            None => self.error(c"invalid number", self.at),
        }
    }

    #[inline]
    fn string(&mut self) -> Token {
        let start = self.at + 1;
        self.at = special_from(self.source, start);
        if self.byte(self.at) == b'"' {
            let len = self.at - start;
            self.at += 1;
            return Token::Value(Node::Plain(start as u32, len as u32));
        }
        self.escaped_string(start)
    }

    /// A string from `start` that has an escape, or no end, at the current place.
    fn escaped_string(&mut self, start: usize) -> Token {
        let text_start = self.tape.text.len();
        let mut run_start = start;
        loop {
            self.tape.text.extend_from_slice(self.source.get(run_start..self.at).unwrap_or_default());
            match self.byte(self.at) {
                b'"' => break,
                b'\\' => {}
                _ => return self.error(c"unexpected end of string", self.at),
            }
            let plain = match self.byte(self.at + 1) {
                same @ (b'"' | b'\\' | b'/') => same,
                b'b' => 8,
                b't' => b'\t',
                b'n' => b'\n',
                b'f' => 12,
                b'r' => b'\r',
                b'u' => {
                    let Some((character, len)) = self.unicode_escape() else {
                        return self.error(c"invalid unicode escape code", self.at);
                    };
                    let mut utf8 = [0; 4];
                    self.tape.text.extend_from_slice(character.encode_utf8(&mut utf8).as_bytes());
                    self.at += len;
                    run_start = self.at;
                    self.at = special_from(self.source, run_start);
                    continue;
                }
                _ => return self.error(c"invalid escape code", self.at),
            };
            self.tape.text.push(plain);
            run_start = self.at + 2;
            self.at = special_from(self.source, run_start);
        }
        self.at += 1;
        let len = self.tape.text.len() - text_start;
        Token::Value(Node::Unescaped(text_start as u32, len as u32))
    }

    /// The character of the `\u` escape at the current place, and the length of the escape, which for a surrogate pair is
    /// that of both.
    fn unicode_escape(&self) -> Option<(char, usize)> {
        let first = self.hex4(self.at + 2)?;
        if first & 0xf800 != 0xd800 {
            return Some((char::from_u32(first)?, 6));
        }
        if (self.byte(self.at + 6), self.byte(self.at + 7)) != (b'\\', b'u') {
            return None;
        }
        let second = self.hex4(self.at + 8)?;
        if first & 0x400 != 0 || second & 0xfc00 != 0xdc00 {
            return None;
        }
        Some((char::from_u32(0x10000 + ((first & 0x3ff) << 10 | second & 0x3ff))?, 12))
    }

    fn hex4(&self, at: usize) -> Option<u32> {
        (0..4).try_fold(0, |value, i| Some(value << 4 | char::from(self.byte(at + i)).to_digit(16)?))
    }
}

/// The first place from `at` on with a quote, a backslash or a zero byte; the end when there is none.
#[inline]
fn special_from(source: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // The lowest set high bit marks the first zero byte of `word`; higher ones may be false.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    while let Some(chunk) = source.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let backslashes = zeros(word ^ (ONES * u64::from(b'\\')));
        let found = zeros(word) | quotes | backslashes;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(byte) = source.get(at) {
        if matches!(byte, b'"' | b'\\' | 0) {
            break;
        }
        at += 1;
    }
    at
}
