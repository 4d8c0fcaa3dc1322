//! nginx's rewrite module: `rewrite`, `return`, `set`, `if`, `break`.
//!
//! The directives of a block are compiled into one list of instructions that runs in the order written; those of an
//! `if` block stand inline in the list of the block around it. Other modules add steps of their own with
//! [`push_instruction`]. A block without such directives adds no handler.

mod compile;
mod condition;
mod program;
mod replace;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use terrace_conf::{Arg, Arity, ConfError, Contexts, Directive, Node};
use terrace_http::conf::table::{block, simple};
use terrace_http::{Builder, Handler, LocationBuilder, Merge, MergeContext, Module, Phase, Value, settings};

pub(crate) use program::VarFunction;
use program::{Compute, Instruction, Program};

/// The module.
pub struct Rewrite;

/// Where the directives may stand: `server`, `location`, and `if` in both.
pub const REWRITE_CONTEXTS: Contexts =
    Contexts::SERVER.union(Contexts::SERVER_IF).union(Contexts::LOCATION).union(Contexts::LOCATION_IF);
const ALL: Contexts = REWRITE_CONTEXTS.union(Contexts::HTTP);

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("rewrite", REWRITE_CONTEXTS, Arity::Between(2, 3), "", "Replaces a URI that matches a regex.", compile::set_rewrite),
    simple("return", REWRITE_CONTEXTS, Arity::Between(1, 2), "", "Ends the request with a status, text or redirect.", compile::set_return),
    simple("set", REWRITE_CONTEXTS, Arity::Exactly(2), "", "Gives a variable a value.", compile::set_set),
    simple("break", REWRITE_CONTEXTS, Arity::Exactly(0), "", "Ends the rewrite directives of this block.", compile::set_break),
    block("if", Contexts::SERVER.union(Contexts::LOCATION), Arity::AtLeast(1), "Holds directives for requests that meet a condition.", compile::set_if),
    simple("rewrite_log", ALL, Arity::Flag, "off", "Whether rewrites are logged at the notice level.", set_log),
    simple("uninitialized_variable_warn", ALL, Arity::Flag, "on", "Whether reading a variable that was not set is logged.", set_warn),
];

impl Module for Rewrite {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let code = std::mem::take(&mut location.settings.of::<Instructions>().0);
        if code.is_empty() {
            return Ok(());
        }
        let log = location.settings.of::<RewriteConf>().rewrite_log();
        let phase = if location.is_server { Phase::ServerRewrite } else { Phase::Rewrite };
        location.add(phase, Program::new(code, log));
        Ok(())
    }
}

settings! {
    /// The settings that are inherited.
    pub(crate) struct RewriteConf {
        /// `rewrite_log`.
        rewrite_log: bool = false,
        /// `uninitialized_variable_warn`.
        uninitialized_variable_warn: bool = true,
    }
}

/// The instructions of a block; they are its own.
#[derive(Default)]
struct Instructions(Vec<Instruction>);

impl Merge for Instructions {
    fn merge(&mut self, _: &Self, _: MergeContext) {}
}

/// The instructions of the `if` blocks being read, innermost last.
#[derive(Default)]
struct OpenIfs(Vec<Vec<Instruction>>);

fn push(b: &mut Builder, instruction: Instruction) {
    match b.state::<OpenIfs>().0.last_mut() {
        Some(code) => code.push(instruction),
        None => b.conf::<Instructions>().0.push(instruction),
    }
}

/// Adds a step to the block being read, to run in its place among the `set`s and `rewrite`s around it. An outcome
/// other than `Declined` and `Satisfied` ends the block's instructions with it. Directives that call this belong in
/// [`REWRITE_CONTEXTS`].
pub fn push_instruction(b: &mut Builder, step: Arc<dyn Handler>) {
    push(b, Instruction::Step(step));
}

/// Has the variable that the directive's first word names get, in its place among the `set`s around it, what `function`
/// makes of `args`.
pub(crate) fn push_function(
    b: &mut Builder,
    node: &Node,
    args: &[Arg],
    function: impl VarFunction + 'static,
) -> Result<(), ConfError> {
    let var = compile::define(b, node, node.arg(0)?)?;
    let args = args.iter().map(|arg| Value::compile(b, arg)).collect::<Result<_, _>>()?;
    push(b, Instruction::Compute(Box::new(Compute { var, args, function: Box::new(function) })));
    Ok(())
}

fn set_log(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let on = node.flag(0)?;
    node.set_once(&mut b.conf::<RewriteConf>().rewrite_log, on)
}

fn set_warn(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let on = node.flag(0)?;
    node.set_once(&mut b.conf::<RewriteConf>().uninitialized_variable_warn, on)
}
