//! The directive tables and how a tree is applied to them.
//!
//! A module states its directives as a static table of [`Directive`]s; the server joins the tables into one
//! [`Registry`]. The registry owns what holds for every directive: name, context, shape and number of words are
//! checked before `set` is called, with nginx's errors, and an unknown name gets a suggestion.

use std::collections::BTreeMap;

use bitflags::bitflags;
use parking_lot::Mutex;

use crate::suggest::nearest;
use crate::{Body, ConfError, Node};

bitflags! {
    /// Where a directive may stand. Bits from [`Contexts::USER_BIT_FIRST`] on are free for other crates:
    /// `const MINE: Contexts = Contexts::from_bits_retain(1 << Contexts::USER_BIT_FIRST);`
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct Contexts: u32 {
        /// Outside of all blocks.
        const MAIN = 1;
        /// `events`
        const EVENTS = 1 << 1;
        /// `http`
        const HTTP = 1 << 2;
        /// `server`
        const SERVER = 1 << 3;
        /// `location`
        const LOCATION = 1 << 4;
        /// `if` in `server`
        const SERVER_IF = 1 << 5;
        /// `if` in `location`
        const LOCATION_IF = 1 << 6;
        /// `limit_except`
        const LIMIT_EXCEPT = 1 << 7;
        /// `upstream`
        const UPSTREAM = 1 << 8;
        /// `map`
        const MAP = 1 << 9;
        /// `types`
        const TYPES = 1 << 10;
        const _ = !0;
    }
}

impl Contexts {
    /// The lowest bit this crate will not use itself.
    pub const USER_BIT_FIRST: u32 = 16;
}

/// How many words a directive takes behind its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arity {
    /// This many.
    Exactly(u8),
    /// From the first to the second, both included.
    Between(u8, u8),
    /// This many or more.
    AtLeast(u8),
    /// One, `on` or `off`, which is checked before `set` is called.
    Flag,
}

impl Arity {
    fn admits(self, count: usize) -> bool {
        match self {
            Arity::Exactly(exact) => count == usize::from(exact),
            Arity::Between(least, most) => (usize::from(least)..=usize::from(most)).contains(&count),
            Arity::AtLeast(least) => count >= usize::from(least),
            Arity::Flag => count == 1,
        }
    }
}

/// How a directive ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// `;`
    Simple,
    /// `{ ... }` with directives or data.
    Block,
    /// `{ ... }` with a script: a `*_by_lua_block`.
    Raw,
}

/// A row of a module's table. `C` is what the directives build.
pub struct Directive<C: 'static> {
    /// The name in the file.
    pub name: &'static str,
    /// Where it may stand. Several rows may share a name when their contexts differ.
    pub contexts: Contexts,
    /// How many words it takes.
    pub arity: Arity,
    /// How it ends.
    pub shape: Shape,
    /// The value that holds without it, as it would be written; for the reference only.
    pub default: Option<&'static str>,
    /// What it does, in one line, for the reference.
    pub doc: &'static str,
    /// Applies one occurrence. Blocks call [`Registry::apply`] for their children.
    pub set: fn(&mut C, &Node) -> Result<(), ConfError>,
}

/// What becomes of a directive of nginx that no table has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownKind {
    /// Advice about resources that has no meaning here: accepted anywhere, with one warning.
    Tuning,
    /// A feature that is missing: an error, since the file's author relies on it.
    NotCarriedOut,
    /// Of a module that nginx itself does not have: unknown, as to an nginx without it, with the doc as the hint.
    Foreign,
}

/// A directive of nginx that is known by name only.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The name in the file.
    pub name: &'static str,
    /// What becomes of it.
    pub kind: KnownKind,
    /// Why, in one line, for the reference.
    pub doc: &'static str,
}

/// The contexts of [`Contexts`] as users call them.
const CONTEXT_NAMES: &[(Contexts, &str)] = &[
    (Contexts::MAIN, "main"),
    (Contexts::EVENTS, "events"),
    (Contexts::HTTP, "http"),
    (Contexts::SERVER, "server"),
    (Contexts::LOCATION, "location"),
    (Contexts::SERVER_IF, "if in server"),
    (Contexts::LOCATION_IF, "if in location"),
    (Contexts::LIMIT_EXCEPT, "limit_except"),
    (Contexts::UPSTREAM, "upstream"),
    (Contexts::MAP, "map"),
    (Contexts::TYPES, "types"),
];

/// All tables of a program, by name.
pub struct Registry<C: 'static> {
    directives: BTreeMap<&'static str, Vec<&'static Directive<C>>>,
    known: BTreeMap<&'static str, &'static Known>,
    context_names: Vec<(Contexts, &'static str)>,
    /// Warnings about tuning directives since they were last taken, one for each name.
    warnings: Mutex<BTreeMap<&'static str, String>>,
}

impl<C: 'static> Registry<C> {
    /// Joins `tables`, and `known` for the names that no table has.
    #[must_use]
    pub fn new(tables: &[&'static [Directive<C>]], known: &'static [Known]) -> Registry<C> {
        let mut directives: BTreeMap<&'static str, Vec<&'static Directive<C>>> = BTreeMap::new();
        for directive in tables.iter().flat_map(|table| table.iter()) {
            let rows = directives.entry(directive.name).or_default();
            debug_assert!(
                rows.iter().all(|row| !row.contexts.intersects(directive.contexts)),
                "\"{}\" stands twice in the same context",
                directive.name
            );
            rows.push(directive);
        }
        let known = known.iter().map(|entry| (entry.name, entry)).collect();
        let context_names = CONTEXT_NAMES.to_vec();
        Registry { directives, known, context_names, warnings: Mutex::new(BTreeMap::new()) }
    }

    /// Names contexts of other crates, for hints and the reference.
    #[must_use]
    pub fn with_contexts(mut self, names: &[(Contexts, &'static str)]) -> Registry<C> {
        self.context_names.extend_from_slice(names);
        self
    }

    /// Applies `nodes`, which stand in `context`, to `ctx` in their order.
    ///
    /// # Errors
    /// The first directive that is unknown, misplaced or malformed, or whose `set` refuses it.
    pub fn apply(&self, ctx: &mut C, context: Contexts, nodes: &[Node]) -> Result<(), ConfError> {
        for node in nodes {
            if let Some(directive) = self.look_up(context, node)? {
                check_form(directive, node)?;
                (directive.set)(ctx, node).map_err(|error| error.or_at(&node.at))?;
            }
        }
        Ok(())
    }

    /// Hands the warnings of all [`Registry::apply`] calls since the last time to `warn`, one for each name.
    pub fn take_warnings(&self, warn: &mut dyn FnMut(String)) {
        let warnings = std::mem::take(&mut *self.warnings.lock());
        warnings.into_values().for_each(warn);
    }

    /// All rows in the order of their names, for the reference.
    pub fn directives(&self) -> impl Iterator<Item = &'static Directive<C>> + '_ {
        self.directives.values().flatten().copied()
    }

    /// The names that are known only, in their order, for the reference.
    pub fn known(&self) -> impl Iterator<Item = &'static Known> + '_ {
        self.known.values().copied()
    }

    /// The names of `contexts`: those of this crate in the order of their bits, then the others.
    pub fn context_names(&self, contexts: Contexts) -> impl Iterator<Item = &'static str> + '_ {
        self.context_names.iter().filter(move |(it, _)| contexts.contains(*it)).map(|(_, name)| *name)
    }

    /// Whether the block of the directive `name` is a script. True as well for unknown names with the usual ending,
    /// so that a mistyped name is reported and not the script behind it.
    #[must_use]
    pub fn is_raw(&self, name: &str) -> bool {
        match self.directives.get(name) {
            Some(rows) => rows.iter().any(|row| row.shape == Shape::Raw),
            None => name.ends_with("_by_lua_block"),
        }
    }

    /// The row that `node` is for; `None` for one that is accepted without effect.
    fn look_up(&self, context: Contexts, node: &Node) -> Result<Option<&'static Directive<C>>, ConfError> {
        let name = node.name.as_str();
        if let Some(rows) = self.directives.get(name) {
            let row = rows.iter().find(|row| row.contexts.intersects(context));
            return row.copied().map(Some).ok_or_else(|| self.misplaced(node, rows));
        }
        match self.known.get(name) {
            Some(Known { kind: KnownKind::Tuning, name, .. }) => {
                let mut warnings = self.warnings.lock();
                let text = || format!("the \"{name}\" directive has no effect in {}", node.at);
                warnings.entry(name).or_insert_with(text);
                Ok(None)
            }
            // What is turned off needs not be carried out.
            Some(Known { kind: KnownKind::NotCarriedOut, .. }) if is_off(node) => Ok(None),
            Some(Known { kind: KnownKind::NotCarriedOut, .. }) => {
                Err(node.error(format!("the \"{name}\" directive is known but not carried out yet")))
            }
            Some(Known { kind: KnownKind::Foreign, doc, .. }) => {
                Err(node.error(format!("unknown directive \"{name}\"")).with_hint(*doc))
            }
            None => Err(self.unknown(context, node)),
        }
    }

    fn misplaced(&self, node: &Node, rows: &[&Directive<C>]) -> ConfError {
        let error = node.directive_error("is not allowed here");
        let allowed = rows.iter().fold(Contexts::empty(), |all, row| all | row.contexts);
        let names: Vec<&str> = self.context_names(allowed).collect();
        if names.is_empty() { error } else { error.with_hint(format!("it belongs in: {}", names.join(", "))) }
    }

    fn unknown(&self, context: Contexts, node: &Node) -> ConfError {
        let error = node.error(format!("unknown directive \"{}\"", node.name));
        let here = self.directives().filter(|row| row.contexts.intersects(context)).map(|row| row.name);
        let anywhere = || self.directives.keys().chain(self.known.keys()).copied();
        match nearest(&node.name, here).or_else(|| nearest(&node.name, anywhere())) {
            Some(name) => error.with_hint(format!("did you mean \"{name}\"?")),
            None => error,
        }
    }
}

fn is_off(node: &Node) -> bool {
    matches!((node.args.as_slice(), &node.body), ([arg], Body::None) if &arg.value[..] == b"off")
}

fn check_form<C>(directive: &Directive<C>, node: &Node) -> Result<(), ConfError> {
    match (directive.shape, &node.body) {
        (Shape::Simple, Body::None) | (Shape::Block, Body::Block(_)) | (Shape::Raw, Body::Raw(_)) => {}
        (Shape::Simple, _) => {
            return Err(node.error(format!("directive \"{}\" is not terminated by \";\"", node.name)));
        }
        (Shape::Block | Shape::Raw, _) => return Err(node.has_no_opening()),
    }
    if !directive.arity.admits(node.args.len()) {
        return Err(node.invalid_arity());
    }
    if directive.arity == Arity::Flag {
        node.flag(0)?;
    }
    Ok(())
}
