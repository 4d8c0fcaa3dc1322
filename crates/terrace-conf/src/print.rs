//! Writes a tree as text that parses to the same tree.
//!
//! Words that were quoted stay quoted, and others are quoted where they would not survive bare.

use crate::{Arg, Body, Node};

const INDENT: &[u8] = b"    ";

/// Renders directives, indented by four blanks per level. Comments and `include`s are gone: the tree has none.
#[must_use]
pub fn print(nodes: &[Node]) -> Vec<u8> {
    let mut out = Vec::new();
    print_level(&mut out, nodes, 0);
    out
}

fn print_level(out: &mut Vec<u8>, nodes: &[Node], level: usize) {
    for node in nodes {
        indent(out, level);
        print_word(out, &node.key);
        for arg in &node.args {
            out.push(b' ');
            print_word(out, arg);
        }
        match &node.body {
            Body::None => out.extend_from_slice(b";\n"),
            Body::Raw(text) => {
                out.extend_from_slice(b" {");
                out.extend_from_slice(text);
                out.extend_from_slice(b"}\n");
            }
            Body::Block(children) => {
                out.extend_from_slice(b" {\n");
                print_level(out, children, level + 1);
                indent(out, level);
                out.extend_from_slice(b"}\n");
            }
        }
    }
}

fn indent(out: &mut Vec<u8>, level: usize) {
    for _ in 0..level {
        out.extend_from_slice(INDENT);
    }
}

fn print_word(out: &mut Vec<u8>, word: &Arg) {
    let needs_quotes = |byte: &u8| {
        matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{' | b'}' | b'#' | b'\\' | b'"' | b'\'')
    };
    if !word.quoted && !word.value.is_empty() && !word.value.iter().any(needs_quotes) {
        out.extend_from_slice(&word.value);
        return;
    }
    out.push(b'"');
    for &byte in &word.value {
        if matches!(byte, b'"' | b'\\') {
            out.push(b'\\');
        }
        out.push(byte);
    }
    out.push(b'"');
}
