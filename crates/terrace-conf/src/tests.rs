//! The crate through its public surface; one file per subject.

mod generated;
mod grammar;
mod include;
mod registry;
mod values;

use crate::{Body, Node};

/// Parses text in which names that end in `_by_lua_block` open raw blocks, as the file `t.conf`.
fn parse(text: &str) -> Result<Vec<Node>, String> {
    crate::parse_text(text.as_bytes(), "t.conf", &is_raw).map_err(|error| error.to_string())
}

fn is_raw(name: &str) -> bool {
    name.ends_with("_by_lua_block")
}

/// A tree in one line: words in `<>`, blocks in `{}`, raw text in `[]`.
fn brief(nodes: &[Node]) -> String {
    let mut out = String::new();
    for node in nodes {
        for word in std::iter::once(&node.key).chain(&node.args) {
            out += &format!("<{word}>");
        }
        match &node.body {
            Body::None => out.push(';'),
            Body::Block(children) => out += &format!("{{{}}}", brief(children)),
            Body::Raw(text) => out += &format!("[{}]", String::from_utf8_lossy(text)),
        }
    }
    out
}
