//! `limit_except`: settings for requests whose method is not among those named.
//!
//! The block is a location of its own, which takes over the settings and the content of the one around it; a request
//! with another method goes there before the rewrite phase's other handlers.

use std::rc::Rc;
use std::sync::Arc;

use terrace_conf::{Arity, ConfError, Contexts, Directive, Node};
use terrace_http::conf::DraftKind;
use terrace_http::conf::table::block;
use terrace_http::location_tree::LocationIndex;
use terrace_http::{
    Builder, Handler, LocationBuilder, Merge, MergeContext, Module, Outcome, Phase, Request, Step,
};

/// The module; it stands before that of `rewrite`.
pub struct LimitExcept;

/// The methods that may be named.
const METHODS: [&str; 15] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "MKCOL",
    "COPY",
    "MOVE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
    "PATCH",
    "CONNECT",
];

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    block("limit_except", Contexts::LOCATION, Arity::AtLeast(1), "Settings for requests with other methods than these; GET stands for HEAD too.", set),
];

impl Module for LimitExcept {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        if let Some(limit) = location.settings.of::<Limit>().0.clone() {
            location.add(Phase::Rewrite, limit);
        }
        Ok(())
    }
}

/// The block of a location; it is its own.
#[derive(Default)]
struct Limit(Option<Elsewhere>);

impl Merge for Limit {
    fn merge(&mut self, _: &Self, _: MergeContext) {}
}

fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let mut methods: Vec<&'static str> = Vec::with_capacity(node.args.len() + 1);
    for (i, arg) in node.args.iter().enumerate() {
        let name = node.text(i)?;
        let known = METHODS.iter().find(|it| it.eq_ignore_ascii_case(name));
        methods.push(known.ok_or_else(|| arg.error(format!("invalid method \"{name}\"")))?);
    }
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    let name = b.location_name().map(|(name, _)| name.to_vec()).unwrap_or_default();
    let block = b.block(DraftKind::Inner, Contexts::LIMIT_EXCEPT, &name, node)?;
    node.set_once(&mut b.conf::<Limit>().0, Elsewhere { methods: methods.into(), block })
}

/// Sends requests with other methods to the block.
#[derive(Clone)]
struct Elsewhere {
    methods: Arc<[&'static str]>,
    block: LocationIndex,
}

impl Handler for Elsewhere {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let is_named = {
            let method = r.method();
            self.methods.iter().any(|it| it.as_bytes() == &method[..])
        };
        if !is_named {
            r.set_location(self.block);
        }
        Outcome::Declined.into()
    }
}
