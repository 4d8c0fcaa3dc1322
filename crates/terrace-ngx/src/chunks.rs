//! Lua code of the configuration: inline or in a file, with the name that errors show.

use std::path::Path;

use bytes::Bytes;
use terrace_conf::{ConfError, Node};
use terrace_http::{Builder, Value};

use crate::settings::LuaMain;

/// Where the code is.
#[derive(Debug, Clone)]
pub enum Source {
    /// In the configuration.
    Inline(Bytes),
    /// In a file, whose path may have variables.
    File(Value),
}

/// The code of one directive.
#[derive(Debug, Clone)]
pub struct Code {
    /// Its number in the generation.
    pub id: usize,
    /// The code.
    pub source: Source,
    /// What errors show: `=content_by_lua(nginx.conf:12)`.
    pub chunk_name: String,
}

impl Code {
    /// Of `x_by_lua 'code'` and `x_by_lua_block { code }`.
    pub fn inline(b: &mut Builder, node: &Node, text: Bytes) -> Code {
        let directive = node.name.trim_end_matches("_block");
        let chunk_name = chunk_name(directive, &node.at.file, &b.paths.conf_dir, node.at.line);
        Code { id: next_id(b), source: Source::Inline(text), chunk_name }
    }

    /// Whether it is in a file of its own.
    pub fn is_file(&self) -> bool {
        matches!(self.source, Source::File(_))
    }

    /// Of `x_by_lua_file path`.
    pub fn file(b: &mut Builder, node: &Node) -> Result<Code, ConfError> {
        let path = Value::compile(b, node.arg(0)?)?;
        Ok(Code { id: next_id(b), source: Source::File(path), chunk_name: String::new() })
    }
}

/// The longest name of a chunk that LuaJIT shows whole, in bytes.
const NAME_BYTES_MAX: usize = 56;

/// The name as OpenResty makes it: `nginx.conf` by its name alone, files below the configuration's directory by their
/// path from there, all others by their whole path; of a long one the end counts.
fn chunk_name(directive: &str, file: &str, conf_dir: &Path, line: u32) -> String {
    let room = NAME_BYTES_MAX.saturating_sub(directive.len() + line.to_string().len());
    let below = || file.strip_prefix(conf_dir.to_str()?)?.strip_prefix('/');
    let shown = match file.rsplit_once('/') {
        Some((_, "nginx.conf")) => return format!("={directive}(nginx.conf:{line})"),
        _ => below().unwrap_or(file),
    };
    if shown.len() <= room {
        return format!("={directive}({shown}:{line})");
    }
    let mut start = shown.len().saturating_sub(room.saturating_sub(3));
    while !shown.is_char_boundary(start) {
        start += 1;
    }
    format!("={directive}(...{}:{line})", &shown[start..])
}

fn next_id(b: &mut Builder) -> usize {
    let state = b.state::<LuaMain>();
    state.codes += 1;
    state.codes - 1
}
