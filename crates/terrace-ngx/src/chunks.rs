//! Lua code of the configuration: inline or in a file, with the name that errors show.

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
        let file = node.at.file.rsplit('/').next().unwrap_or_default();
        let directive = node.name.trim_end_matches("_block");
        let chunk_name = format!("={directive}({file}:{})", node.at.line);
        Code { id: next_id(b), source: Source::Inline(text), chunk_name }
    }

    /// Of `x_by_lua_file path`.
    pub fn file(b: &mut Builder, node: &Node) -> Result<Code, ConfError> {
        let path = Value::compile(b, node.arg(0)?)?;
        Ok(Code { id: next_id(b), source: Source::File(path), chunk_name: String::new() })
    }
}

fn next_id(b: &mut Builder) -> usize {
    let state = b.state::<LuaMain>();
    state.codes += 1;
    state.codes - 1
}
