//! The references in `docs/` say what the tables in the code say.

#[path = "../examples/references/pages.rs"]
mod pages;

use std::path::Path;

#[test]
fn the_references_are_up_to_date() {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    for (name, text) in pages::all() {
        let written = std::fs::read_to_string(docs.join(name)).unwrap_or_default();
        assert!(written == text, "docs/{name} is not up to date: run `make references`");
    }
}

#[test]
fn every_directive_says_where_it_belongs_and_what_it_does() {
    let registry = terrace_server::registry();
    for row in registry.directives() {
        let named = registry.context_names(row.contexts).count();
        assert_eq!(
            named,
            row.contexts.bits().count_ones() as usize,
            "\"{}\": a context without a name",
            row.name
        );
        assert!(row.doc.ends_with('.'), "\"{}\": no sentence says what it does", row.name);
    }
}
