//! The syntax tree: directives with their words, bodies and places.
//!
//! Words are slices of the file they came from, unescaped; a copy is made only of words with escapes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::ConfError;

/// A line of a file. Line 0 stands for the file as a whole, as for the `-g` option.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Position {
    /// The file's path as it was opened.
    pub file: Arc<str>,
    /// Counted from 1.
    pub line: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { f.write_str(&self.file) } else { write!(f, "{}:{}", self.file, self.line) }
    }
}

/// One word of a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// The word without its quotes and escapes.
    pub value: Bytes,
    /// Whether it stood in quotes.
    pub quoted: bool,
    /// Where it begins.
    pub at: Position,
}

impl Arg {
    /// The word as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub fn text(&self) -> Result<&str, ConfError> {
        std::str::from_utf8(&self.value).map_err(|_| self.error(format!("\"{self}\" is not valid UTF-8")))
    }

    /// An error at the line where the word begins.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> ConfError {
        ConfError::at(&self.at, message)
    }
}

/// For messages: bytes that are no UTF-8 are replaced.
impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.value))
    }
}

/// What follows the words of a directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// `;`
    None,
    /// `{ ... }` with directives, those of included files in place of their `include`.
    Block(Vec<Node>),
    /// The text between the braces of a `*_by_lua_block`.
    Raw(Bytes),
}

/// A directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The first word as text; bytes that are no UTF-8 are replaced.
    pub name: String,
    /// The first word as it was written: in blocks such as `map` it is a value rather than a name.
    pub key: Arg,
    /// The other words.
    pub args: Vec<Arg>,
    /// Where nginx would place an error of this directive: the line of its `;` or `{`.
    pub at: Position,
    /// The line of the closing `}`, or that of `at`.
    pub end_line: u32,
    /// What follows the words.
    pub body: Body,
}

impl Node {
    /// The directives of the block; none without a block.
    #[must_use]
    pub fn children(&self) -> &[Node] {
        match &self.body {
            Body::Block(nodes) => nodes,
            Body::None | Body::Raw(_) => &[],
        }
    }

    /// The text of a raw block.
    ///
    /// # Errors
    /// When the directive has no raw block.
    pub fn raw(&self) -> Result<&Bytes, ConfError> {
        match &self.body {
            Body::Raw(text) => Ok(text),
            Body::None | Body::Block(_) => Err(self.has_no_opening()),
        }
    }

    /// An error of this directive.
    #[must_use]
    pub fn error(&self, message: impl Into<String>) -> ConfError {
        ConfError::at(&self.at, message)
    }

    /// An error that nginx notices at the end of the block.
    #[must_use]
    pub fn end_error(&self, message: impl Into<String>) -> ConfError {
        ConfError::at(&Position { file: self.at.file.clone(), line: self.end_line }, message)
    }

    /// An error in nginx's form for a directive's complaint about itself: `"name" directive message`.
    #[must_use]
    pub fn directive_error(&self, message: impl fmt::Display) -> ConfError {
        self.error(format!("\"{}\" directive {message}", self.name))
    }

    pub(crate) fn has_no_opening(&self) -> ConfError {
        self.error(format!("directive \"{}\" has no opening \"{{\"", self.name))
    }
}

/// A file that was read, for `-T`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Its path as it was opened.
    pub path: Arc<str>,
    /// All of it.
    pub content: Bytes,
}

/// A configuration with all its files.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// The directives of the main level.
    pub nodes: Vec<Node>,
    /// Every file once, in order of inclusion.
    pub files: Vec<SourceFile>,
}

impl Tree {
    /// All files as `-T` prints them.
    #[must_use]
    pub fn dump(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for file in &self.files {
            out.extend_from_slice(format!("# configuration file {}:\n", file.path).as_bytes());
            out.extend_from_slice(&file.content);
            out.push(b'\n');
        }
        out
    }
}
