//! From files to a tree: blocks, `include`, raw blocks, and the bounds that keep any input harmless.
//!
//! `include` is resolved here and not by a directive, because it may stand in any block, also in those whose
//! content is data. Relative names start at the directory of the main file, whatever file they stand in.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use terrace_base::OsError;

use crate::lexer::{Lexer, Token};
use crate::{Body, ConfError, Node, SourceFile, Tree};

/// How deep blocks may nest, those of including files counted.
pub const BLOCK_DEPTH_MAX: usize = 64;
/// How deep files may include files.
pub const INCLUDE_DEPTH_MAX: usize = 32;
/// How many files one configuration may include, each time counted.
pub const INCLUDES_MAX: usize = 100_000;
/// Largest configuration file in bytes.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// Parses the file `path` and everything it includes. `is_raw` tells the names of `*_by_lua_block` directives.
///
/// # Errors
/// The first fault in the files' grammar, a file that cannot be read, or an exceeded bound.
pub fn parse_file(path: &Path, is_raw: &dyn Fn(&str) -> bool) -> Result<Tree, ConfError> {
    let mut parser = Parser::new(is_raw, path.parent().unwrap_or(Path::new("")));
    let nodes = parser.file(path, None, 0)?;
    Ok(Tree { nodes, files: parser.files })
}

/// Parses `text` as if it were the content of a file called `name`; relative includes start at the current directory.
///
/// # Errors
/// As [`parse_file`].
pub fn parse_text(text: &[u8], name: &str, is_raw: &dyn Fn(&str) -> bool) -> Result<Vec<Node>, ConfError> {
    let mut lexer = Lexer::new(Bytes::copy_from_slice(text), Arc::from(name));
    Parser::new(is_raw, Path::new("")).directives(&mut lexer, 0, false)
}

/// Parses the text of the `-g` option: simple directives only. Relative includes start at `conf_dir`.
///
/// # Errors
/// As [`parse_file`]; the place of errors in the text itself is `command line`.
pub fn parse_parameter(text: &[u8], conf_dir: &Path) -> Result<Vec<Node>, ConfError> {
    let mut lexer = Lexer::parameter(Bytes::copy_from_slice(text));
    Parser::new(&|_| false, conf_dir).directives(&mut lexer, 0, false)
}

struct Parser<'a> {
    is_raw: &'a dyn Fn(&str) -> bool,
    /// Where relative includes start.
    conf_dir: &'a Path,
    files: Vec<SourceFile>,
    /// What has been read, so that a file that is included often is read and kept once.
    contents: HashMap<PathBuf, Bytes>,
    includes: usize,
    include_depth: usize,
}

impl<'a> Parser<'a> {
    fn new(is_raw: &'a dyn Fn(&str) -> bool, conf_dir: &'a Path) -> Self {
        Parser {
            is_raw,
            conf_dir,
            files: Vec::new(),
            contents: HashMap::new(),
            includes: 0,
            include_depth: 0,
        }
    }

    /// Parses a file on the block level `depth`; `from` is the directive that includes it.
    fn file(&mut self, path: &Path, from: Option<&Node>, depth: usize) -> Result<Vec<Node>, ConfError> {
        let name: Arc<str> = Arc::from(path.to_string_lossy());
        let content = match self.contents.get(path) {
            Some(content) => content.clone(),
            None => {
                let content = read(path).map_err(|error| match from {
                    Some(node) => error.or_at(&node.at),
                    None => error,
                })?;
                self.files.push(SourceFile { path: name.clone(), content: content.clone() });
                self.contents.insert(path.to_owned(), content.clone());
                content
            }
        };
        self.directives(&mut Lexer::new(content, name), depth, false)
    }

    /// Parses up to the end of the file or, `in_block`, up to the block's `}`.
    fn directives(
        &mut self,
        lexer: &mut Lexer,
        depth: usize,
        in_block: bool,
    ) -> Result<Vec<Node>, ConfError> {
        let mut nodes = Vec::new();
        loop {
            match lexer.token()? {
                Token::End if in_block => return Err(lexer.error("unexpected end of file, expecting \"}\"")),
                Token::BlockEnd if !in_block => return Err(lexer.error("unexpected \"}\"")),
                Token::End | Token::BlockEnd => return Ok(nodes),
                Token::Words { words, opens_block } => {
                    let mut words = words.into_iter();
                    // The lexer hands out at least one word.
                    let Some(key) = words.next() else { continue };
                    let name = String::from_utf8_lossy(&key.value).into_owned();
                    let at = lexer.position();
                    let end_line = at.line;
                    let mut node = Node { name, key, args: words.collect(), at, end_line, body: Body::None };
                    if node.name == "include" {
                        nodes.extend(self.include(&node, opens_block, depth)?);
                        continue;
                    }
                    if opens_block {
                        node.body = self.body(lexer, &node, depth)?;
                        node.end_line = lexer.position().line;
                    }
                    nodes.push(node);
                }
            }
        }
    }

    fn body(&mut self, lexer: &mut Lexer, node: &Node, depth: usize) -> Result<Body, ConfError> {
        if lexer.is_parameter() {
            return Err(node.error("block directives are not supported in -g option"));
        }
        if (self.is_raw)(&node.name) {
            return Ok(Body::Raw(lexer.raw_block()?));
        }
        if depth == BLOCK_DEPTH_MAX {
            return Err(node.error(format!("more than {BLOCK_DEPTH_MAX} nested blocks")));
        }
        Ok(Body::Block(self.directives(lexer, depth + 1, true)?))
    }

    /// The directives of the file, or the files, that `node` includes.
    fn include(&mut self, node: &Node, opens_block: bool, depth: usize) -> Result<Vec<Node>, ConfError> {
        if opens_block {
            return Err(node.error("directive \"include\" is not terminated by \";\""));
        }
        let [arg] = node.args.as_slice() else {
            return Err(node.error("invalid number of arguments in \"include\" directive"));
        };
        if self.include_depth == INCLUDE_DEPTH_MAX {
            return Err(node
                .error(format!("more than {INCLUDE_DEPTH_MAX} nested includes"))
                .with_hint("does a file include itself?"));
        }
        let name = Path::new(OsStr::from_bytes(&arg.value));
        let paths = if arg.value.iter().any(|byte| b"*?[".contains(byte)) {
            self.matching_files(node, name)?
        } else {
            vec![self.conf_dir.join(name)]
        };
        let mut nodes = Vec::new();
        self.include_depth += 1;
        for path in paths {
            self.includes += 1;
            if self.includes > INCLUDES_MAX {
                return Err(node.error(format!("more than {INCLUDES_MAX} included files")));
            }
            nodes.extend(self.file(&path, Some(node), depth)?);
        }
        self.include_depth -= 1;
        Ok(nodes)
    }

    /// The files that match the pattern, sorted by their bytes; none is no error.
    fn matching_files(&self, node: &Node, pattern: &Path) -> Result<Vec<PathBuf>, ConfError> {
        let failed = |reason: String| {
            node.error(format!("glob() \"{}\" failed ({reason})", self.conf_dir.join(pattern).display()))
        };
        let text = pattern.to_str().ok_or_else(|| failed("the name is not UTF-8".to_owned()))?;
        let full = if pattern.is_absolute() || self.conf_dir.as_os_str().is_empty() {
            text.to_owned()
        } else {
            // The directory is taken as it is, whatever its name contains.
            let dir =
                self.conf_dir.to_str().ok_or_else(|| failed("the directory is not UTF-8".to_owned()))?;
            format!("{}/{text}", glob::Pattern::escape(dir.trim_end_matches('/')))
        };
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let found = glob::glob_with(&full, options).map_err(|error| failed(error.msg.to_owned()))?;
        // As with glob(3), a directory that cannot be read holds no file.
        let mut paths: Vec<PathBuf> = found.filter_map(Result::ok).collect();
        paths.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
        Ok(paths)
    }
}

fn read(path: &Path) -> Result<Bytes, ConfError> {
    let failed = |call: &str, error: &std::io::Error| {
        ConfError::new(format!("{call}() \"{}\" failed {}", path.display(), OsError(error)))
    };
    let file = File::open(path).map_err(|error| failed("open", &error))?;
    let mut content = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(|error| failed("read", &error))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfError::new(format!("\"{}\" is larger than {FILE_BYTES_MAX} bytes", path.display())));
    }
    Ok(Bytes::from(content))
}
