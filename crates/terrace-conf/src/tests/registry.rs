//! The directive tables with a small builder that records what is set.

use std::rc::Rc;

use super::parse;
use crate::{Arity, ConfError, Contexts, Directive, Known, KnownKind, Node, Registry, Shape};

/// Records calls; holds the registry as a real builder does.
struct Builder {
    registry: Rc<Registry<Builder>>,
    calls: Vec<String>,
}

fn record(builder: &mut Builder, node: &Node) -> Result<(), ConfError> {
    builder.calls.push(node.args.iter().fold(node.name.clone(), |call, arg| format!("{call} {arg}")));
    Ok(())
}

fn refuse(_: &mut Builder, _: &Node) -> Result<(), ConfError> {
    Err(ConfError::new("no servers are inside upstream"))
}

fn http(builder: &mut Builder, node: &Node) -> Result<(), ConfError> {
    record(builder, node)?;
    let registry = Rc::clone(&builder.registry);
    registry.apply(builder, Contexts::HTTP, node.children())
}

fn upstream(builder: &mut Builder, node: &Node) -> Result<(), ConfError> {
    record(builder, node)?;
    let registry = Rc::clone(&builder.registry);
    registry.apply(builder, Contexts::UPSTREAM, node.children())
}

const OWN: Contexts = Contexts::from_bits_retain(1 << Contexts::USER_BIT_FIRST);

const fn row(
    name: &'static str,
    contexts: Contexts,
    arity: Arity,
    shape: Shape,
    set: fn(&mut Builder, &Node) -> Result<(), ConfError>,
) -> Directive<Builder> {
    Directive { name, contexts, arity, shape, default: None, doc: "", set }
}

static FIRST: &[Directive<Builder>] = &[
    row("http", Contexts::MAIN, Arity::Exactly(0), Shape::Block, http),
    row("server", Contexts::HTTP, Arity::Exactly(0), Shape::Block, record),
    row("sendfile", Contexts::HTTP.union(Contexts::SERVER), Arity::Flag, Shape::Simple, record),
    row("init_by_lua_block", Contexts::HTTP, Arity::Exactly(0), Shape::Raw, record),
    row("error_page", Contexts::HTTP, Arity::AtLeast(2), Shape::Simple, record),
];
static SECOND: &[Directive<Builder>] = &[
    row("upstream", Contexts::HTTP, Arity::Exactly(1), Shape::Block, upstream),
    row("server", Contexts::UPSTREAM, Arity::Between(1, 3), Shape::Simple, record),
    row("peer", OWN, Arity::Exactly(1), Shape::Simple, record),
    row("refused", Contexts::HTTP, Arity::Exactly(0), Shape::Simple, refuse),
];
static KNOWN: &[Known] = &[
    Known { name: "accept_mutex", kind: KnownKind::Tuning, doc: "" },
    Known { name: "gzip", kind: KnownKind::NotCarriedOut, doc: "" },
];

fn apply(text: &str) -> (Result<(), String>, Builder) {
    let registry = Rc::new(Registry::new(&[FIRST, SECOND], KNOWN).with_contexts(&[(OWN, "peers")]));
    let mut builder = Builder { registry: Rc::clone(&registry), calls: Vec::new() };
    let nodes = parse(text).unwrap();
    let result = registry.apply(&mut builder, Contexts::MAIN, &nodes);
    (result.map_err(|error| error.to_string()), builder)
}

fn error(text: &str) -> String {
    apply(text).0.unwrap_err()
}

#[test]
fn directives_are_set_in_order_and_by_context() {
    let (result, builder) = apply(
        "http { sendfile on; upstream u { server a; server b x y; } server { } init_by_lua_block { x = {} } }",
    );
    assert_eq!(result, Ok(()));
    assert_eq!(
        builder.calls,
        ["http", "sendfile on", "upstream u", "server a", "server b x y", "server", "init_by_lua_block"]
    );
}

#[test]
fn the_mechanism_checks_form_with_nginx_s_errors() {
    for (text, expected) in [
        ("http;", "directive \"http\" has no opening \"{\" in t.conf:1"),
        ("http { sendfile {} }", "directive \"sendfile\" is not terminated by \";\" in t.conf:1"),
        ("http { init_by_lua_block; }", "directive \"init_by_lua_block\" has no opening \"{\" in t.conf:1"),
        ("http {\n sendfile on off; }", "invalid number of arguments in \"sendfile\" directive in t.conf:2"),
        ("http { error_page 404; }", "invalid number of arguments in \"error_page\" directive in t.conf:1"),
        (
            "http { upstream u { server a b c d; } }",
            "invalid number of arguments in \"server\" directive in t.conf:1",
        ),
        (
            "http { sendfile yes; }",
            "invalid value \"yes\" in \"sendfile\" directive, it must be \"on\" or \"off\" in t.conf:1",
        ),
        (
            "sendfile on;",
            "\"sendfile\" directive is not allowed here in t.conf:1\nit belongs in: http, server",
        ),
        ("peer x;", "\"peer\" directive is not allowed here in t.conf:1\nit belongs in: peers"),
        ("http { refused; }", "no servers are inside upstream in t.conf:1"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn unknown_names_get_a_suggestion() {
    assert_eq!(error("htpt {}"), "unknown directive \"htpt\" in t.conf:1\ndid you mean \"http\"?");
    assert_eq!(
        error("http { upstraem u {} }"),
        "unknown directive \"upstraem\" in t.conf:1\ndid you mean \"upstream\"?"
    );
    assert_eq!(error("sendfil on;"), "unknown directive \"sendfil\" in t.conf:1\ndid you mean \"sendfile\"?");
    assert_eq!(error("quite_different;"), "unknown directive \"quite_different\" in t.conf:1");
    assert_eq!(
        error("http { init_by_lau_by_lua_block { '{' } }"),
        "unknown directive \"init_by_lau_by_lua_block\" in t.conf:1"
    );
}

#[test]
fn known_names() {
    assert_eq!(
        error("http {\n gzip on; }"),
        "the \"gzip\" directive is known but not carried out yet in t.conf:2"
    );
    let (result, builder) = apply("accept_mutex on;\nhttp { accept_mutex off; }");
    assert_eq!(result, Ok(()));
    let mut warnings = Vec::new();
    builder.registry.take_warnings(&mut |text| warnings.push(text));
    assert_eq!(warnings, ["the \"accept_mutex\" directive has no effect in t.conf:1"]);
    builder.registry.take_warnings(&mut |text| warnings.push(text));
    assert_eq!(warnings.len(), 1);
}

#[test]
fn the_reference_is_in_name_order() {
    let registry = Registry::new(&[FIRST, SECOND], KNOWN);
    let names: Vec<&str> = registry.directives().map(|row| row.name).collect();
    assert!(names.is_sorted());
    assert_eq!(names.len(), FIRST.len() + SECOND.len());
    assert_eq!(registry.known().count(), 2);
    assert!(registry.is_raw("init_by_lua_block"));
    assert!(registry.is_raw("unheard_of_by_lua_block"));
    assert!(!registry.is_raw("http"));
}
