//! Generated input: the parser never panics, and what is printed parses to the same tree.
//!
//! Each case is made from a number that is part of the failure's message.

use bytes::Bytes;

use super::is_raw;
use crate::{Arg, Body, Node, Position, parse_text, print};

/// A small generator of pseudo-random numbers (xorshift).
struct Seed(u64);

impl Seed {
    fn new(case: u64) -> Seed {
        Seed(case.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 33) as usize % bound
    }
}

/// What the lexers look at, and a little that they do not.
const PIECES: [&[u8]; 32] = [
    b";",
    b"{",
    b"}",
    b" ",
    b"\n",
    b"\t",
    b"\r",
    b"#",
    b"'",
    b"\"",
    b"\\",
    b"$",
    b"${",
    b")",
    b"(",
    b"a",
    b"name",
    b"\xff",
    b"x_by_lua_block {",
    b"y_by_lua_block",
    b"[[",
    b"]]",
    b"[==[",
    b"]==]",
    b"--",
    b"--[[",
    b"include",
    b"include x;",
    b"\\n",
    b"\\\"",
    b"=",
    b"\0",
];

#[test]
fn any_input_is_survived() {
    for case in 0..20_000 {
        let mut seed = Seed::new(case);
        let mut text = Vec::new();
        for _ in 0..seed.below(40) {
            text.extend_from_slice(PIECES[seed.below(PIECES.len())]);
        }
        if let Ok(nodes) = parse_text(&text, "t.conf", &is_raw) {
            assert_reparses(&nodes, case);
        }
    }
}

#[test]
fn every_tree_survives_printing() {
    for case in 0..3_000 {
        let mut seed = Seed::new(case);
        let nodes = level(&mut seed, 0);
        assert_reparses(&nodes, case);
    }
}

fn assert_reparses(nodes: &[Node], case: u64) {
    let text = print(nodes);
    let shown = String::from_utf8_lossy(&text);
    let again = parse_text(&text, "t.conf", &is_raw);
    let again = again.unwrap_or_else(|error| panic!("case {case}: {error}\n{shown}"));
    assert!(same(nodes, &again), "case {case}: another tree from\n{shown}");
}

/// Equal but for places, and for quotes that printing may add.
fn same(a: &[Node], b: &[Node]) -> bool {
    let same_word = |a: &Arg, b: &Arg| a.value == b.value && (!a.quoted || b.quoted);
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            same_word(&a.key, &b.key)
                && a.args.len() == b.args.len()
                && a.args.iter().zip(&b.args).all(|(a, b)| same_word(a, b))
                && match (&a.body, &b.body) {
                    (Body::Block(a), Body::Block(b)) => same(a, b),
                    (a, b) => a == b,
                }
        })
}

fn level(seed: &mut Seed, depth: usize) -> Vec<Node> {
    (0..seed.below(5)).map(|_| node(seed, depth)).collect()
}

fn node(seed: &mut Seed, depth: usize) -> Node {
    let (key, body) = match seed.below(4) {
        0 if depth < 4 => (word(seed), Body::Block(level(seed, depth + 1))),
        1 => {
            const SCRIPTS: [&[u8]; 4] = [b"", b" t = {} ", b" s = [[ } ]] ", b" -- }\n s = '}' "];
            let raw = Bytes::from_static(SCRIPTS[seed.below(SCRIPTS.len())]);
            (bare(Bytes::from_static(b"a_by_lua_block")), Body::Raw(raw))
        }
        _ => (word(seed), Body::None),
    };
    let name = String::from_utf8_lossy(&key.value).into_owned();
    let args = (0..seed.below(4)).map(|_| word(seed)).collect();
    Node { name, key, args, at: place(), end_line: 1, body }
}

fn word(seed: &mut Seed) -> Arg {
    const BYTES: &[u8] = b"abc\\\\\"'{}; \n\t\r#$()\xff\0tnr";
    let value: Vec<u8> = (0..seed.below(8)).map(|_| BYTES[seed.below(BYTES.len())]).collect();
    Arg { quoted: seed.below(2) == 0, ..bare(Bytes::from(value)) }
}

fn bare(value: Bytes) -> Arg {
    Arg { value, quoted: false, at: place() }
}

fn place() -> Position {
    Position { file: "t.conf".into(), line: 1 }
}
