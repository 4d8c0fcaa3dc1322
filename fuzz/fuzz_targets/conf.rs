//! Configurations: no input panics, and what parses parses to the same tree when it is printed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use terrace_conf::{Arg, Body, Node, parse_parameter, parse_text, print};

fn is_raw(name: &str) -> bool {
    name.ends_with("_by_lua_block")
}

/// Equal but for places, and for quotes that printing may add.
fn is_same(a: &[Node], b: &[Node]) -> bool {
    let is_same_word = |a: &Arg, b: &Arg| a.value == b.value && (!a.quoted || b.quoted);
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            is_same_word(&a.key, &b.key)
                && a.args.len() == b.args.len()
                && a.args.iter().zip(&b.args).all(|(a, b)| is_same_word(a, b))
                && match (&a.body, &b.body) {
                    (Body::Block(a), Body::Block(b)) => is_same(a, b),
                    (a, b) => a == b,
                }
        })
}

/// Calls the readers of typed values, which must refuse what they do not understand.
fn read_values(nodes: &[Node]) {
    for node in nodes {
        for index in 0..=node.args.len() {
            let _ = (node.text(index), node.flag(index), node.size(index));
            let _ = (node.time_ms(index), node.time_secs(index), node.number::<u16>(index));
        }
        for param in node.params(0) {
            let _ = (param.text(), param.size(), param.time_ms(), param.number::<u32>());
        }
        read_values(node.children());
    }
}

fuzz_target!(|text: &[u8]| {
    // Files are not this target's matter.
    if text.windows(7).any(|word| word == b"include") {
        return;
    }
    let _ = parse_parameter(text, "/nonexistent".as_ref());
    let Ok(nodes) = parse_text(text, "fuzz.conf", &is_raw) else { return };
    read_values(&nodes);
    let printed = print(&nodes);
    let again = parse_text(&printed, "fuzz.conf", &is_raw).expect("what was printed parses");
    assert!(is_same(&nodes, &again), "another tree from {}", printed.escape_ascii());
});
