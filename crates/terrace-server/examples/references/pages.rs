//! The pages of the references as text: directives and variables.
//!
//! The same tables give the same text on every machine, so that a test can tell whether the pages are up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;

use terrace_conf::{Arity, Directive, KnownKind, Registry, Shape};
use terrace_http::conf::Paths;
use terrace_http::persistent::Persistent;
use terrace_http::{Builder, Module};

/// How a page says where it comes from.
const ORIGIN: &str = "<!-- Written by `make references` from the tables in the code; do not edit. -->";

/// All pages: the file's name in `docs/`, and its text.
pub fn all() -> [(&'static str, String); 2] {
    [("directives.md", directives()), ("variables.md", variables())]
}

fn directives() -> String {
    let registry = terrace_server::registry();
    let mut rows: BTreeMap<&str, Vec<&Directive<Builder>>> = BTreeMap::new();
    for row in registry.directives() {
        rows.entry(row.name).or_default().push(row);
    }
    let mut out = format!(
        "{ORIGIN}\n\n# Directives\n\n\
         {} directives, and {} more that Terrace [knows by name only](#known-by-name-only). A directive that is also \
         nginx's means what it means there; [differences.md](differences.md) lists where Terrace differs, \
         [tiered-cache.md](tiered-cache.md) explains the cache.\n\n\
         In the syntax lines `…` stands for as many more words as you like, `[ ]` for what may be left out, and \
         `{{ … }}` for a block.\n\n## All names\n\n",
        rows.len(),
        registry.known().filter(|row| !is_carried_out(&registry, row.name)).count(),
    );
    index(&mut out, rows.keys().copied());
    for (name, rows) in &rows {
        append(&mut out, "\n## ", &[name, "\n"]);
        for row in rows {
            directive(&mut out, &registry, row);
        }
    }
    known(&mut out, &registry);
    out
}

/// Links to the names, a paragraph for each first letter.
fn index<'a>(out: &mut String, names: impl Iterator<Item = &'a str>) {
    let mut letter = None;
    for name in names {
        let first = name.chars().next();
        let gap = match letter {
            None => "",
            Some(_) if letter == Some(first) => " ·\n",
            Some(_) => "\n\n",
        };
        letter = Some(first);
        append(out, gap, &["[", name, "](#", name, ")"]);
    }
    out.push('\n');
}

fn directive(out: &mut String, registry: &Registry<Builder>, row: &Directive<Builder>) {
    let contexts: Vec<&str> = registry.context_names(row.contexts).collect();
    append(out, "\n    ", &[&syntax(row), "\n\n", row.doc, "  \nin: ", &contexts.join(", ")]);
    if let Some(default) = row.default {
        append(out, "  \ndefault: `", &[default, "`"]);
    }
    out.push('\n');
}

/// The directive as it is written, with a placeholder for each word.
fn syntax(row: &Directive<Builder>) -> String {
    let words = |count: u8| " value".repeat(usize::from(count));
    let mut text = row.name.to_owned();
    match row.arity {
        Arity::Flag => text.push_str(" on | off"),
        Arity::Exactly(count) => text.push_str(&words(count)),
        Arity::AtLeast(0) => text.push_str(" [value …]"),
        Arity::AtLeast(count) => append(&mut text, &words(count), &[" …"]),
        Arity::Between(least, most) => {
            let more = usize::from(most.saturating_sub(least));
            append(&mut text, &words(least), &[&" [value".repeat(more), &"]".repeat(more)]);
        }
    }
    text.push_str(match row.shape {
        Shape::Simple => ";",
        Shape::Block => " { … }",
        Shape::Raw => " { script }",
    });
    text
}

fn known(out: &mut String, registry: &Registry<Builder>) {
    out.push_str("\n## Known by name only\n");
    let kinds = [
        (
            KnownKind::Tuning,
            "Accepted without effect",
            "These tune nginx's own machinery. They may stand anywhere, and a warning says once that they do nothing.",
        ),
        (
            KnownKind::NotCarriedOut,
            "Not carried out yet",
            "A configuration with one of these is refused, since its author relies on what the directive does.",
        ),
        (
            KnownKind::Foreign,
            "Of modules that nginx itself does not have",
            "Unknown, as to an nginx without the module; the error says what to use instead.",
        ),
    ];
    for (kind, title, about) in kinds {
        append(out, "\n### ", &[title, "\n\n", about, "\n\n| why | directives |\n|---|---|\n"]);
        let mut reasons: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for row in registry.known().filter(|row| row.kind == kind && !is_carried_out(registry, row.name)) {
            reasons.entry(row.doc).or_default().push(format!("`{}`", row.name));
        }
        for (reason, names) in reasons {
            append(out, "| ", &[reason, " | ", &names.join(", "), " |\n"]);
        }
    }
}

fn is_carried_out(registry: &Registry<Builder>, name: &str) -> bool {
    registry.directives().any(|row| row.name == name)
}

fn variables() -> String {
    let paths = Paths { prefix: "/".into(), conf_dir: "/".into(), error_log: None, test_only: true };
    let modules: &'static [&'static dyn Module] = terrace_server::modules();
    let builder = Builder::new(terrace_server::registry(), modules, paths, Arc::new(Persistent::default()));
    let names: BTreeSet<(String, bool)> = builder
        .vars
        .names()
        .map(|(name, is_changeable)| (String::from_utf8_lossy(name).into_owned(), is_changeable))
        .collect();
    let mut out = format!(
        "{ORIGIN}\n\n# Variables\n\n\
         The variables that are there without being defined. Names that are also nginx's mean what they mean there; \
         those that begin with `tiered_cache_` are explained in [tiered-cache.md](tiered-cache.md). `set`, `map`, \
         `geo` and named groups of regular expressions define more.\n\n"
    );
    for (name, is_changeable) in &names {
        append(&mut out, "- `$", &[name, if *is_changeable { "`, which may be set\n" } else { "`\n" }]);
    }
    out.push_str("\n## Families\n\nAny name that begins with one of these is a variable.\n\n");
    let prefixes: BTreeSet<&str> = builder.vars.prefixes().collect();
    for prefix in prefixes {
        // Writing to a String does not fail.
        let _ = writeln!(out, "- `${prefix}`*name*");
    }
    out
}

fn append(out: &mut String, first: &str, rest: &[&str]) {
    out.push_str(first);
    rest.iter().for_each(|text| out.push_str(text));
}
