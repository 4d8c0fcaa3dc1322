//! The list of instructions and how it runs. Runs without waiting unless a step of another module waits.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;
use terrace_base::log::Level;
use terrace_http::location_tree::LocationIndex;
use terrace_http::vars::VarIndex;
use terrace_http::{Handler, Outcome, Request, Step, Value, special, status};
use terrace_http1::uri::escape_args;
use terrace_regex::Regex;

use super::condition::Condition;
use super::replace::{Next, Rewrite, is_escaped};

/// One instruction.
pub(super) enum Instruction {
    Rewrite(Box<Rewrite>),
    Return(Return),
    Set {
        var: VarIndex,
        value: Value,
    },
    /// The next `len` instructions are the block's; `location` has its settings.
    If {
        condition: Condition,
        location: Option<LocationIndex>,
        len: usize,
    },
    /// A variable gets what a function makes of its arguments.
    Compute(Box<Compute>),
    Break,
    /// A step of another module.
    Step(Arc<dyn Handler>),
}

/// A block's instructions.
pub(super) struct Program(Arc<Code>);

struct Code {
    instructions: Vec<Instruction>,
    log: bool,
}

/// What one request's run of a program carries from instruction to instruction.
pub(super) struct Run {
    next: usize,
    /// nginx escapes captures in values until the first `rewrite` of the block has matched.
    escapes: bool,
    pub(super) log: bool,
    scratch: Vec<u8>,
}

impl Run {
    /// Appends a value's text.
    pub(super) fn eval(&self, r: &Request, value: &Value, out: &mut Vec<u8>) {
        if self.escapes && value.uses_captures() && is_escaped(r) {
            value.eval_captures_mapped(r, out, escape_args);
        } else {
            value.eval(r, out);
        }
    }

    /// An empty buffer, to be given back.
    pub(super) fn take_scratch(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.scratch)
    }

    pub(super) fn give_scratch(&mut self, mut scratch: Vec<u8>) {
        scratch.clear();
        self.scratch = scratch;
    }
}

/// `rewrite_log`'s line about a regex.
pub(super) fn log_match(r: &Request, run: &Run, regex: &Regex, subject: &[u8], matched: bool) {
    if run.log {
        let pattern = String::from_utf8_lossy(regex.pattern());
        let does = if matched { "matches" } else { "does not match" };
        let subject = String::from_utf8_lossy(subject);
        r.log(Level::Notice, format_args!("\"{pattern}\" {does} \"{subject}\""));
    }
}

impl Program {
    pub(super) fn new(instructions: Vec<Instruction>, log: bool) -> Program {
        Program(Arc::new(Code { instructions, log }))
    }
}

impl Handler for Program {
    fn handle(&self, r: &Rc<Request>) -> Step {
        if let Some(Instruction::Return(ret)) = self.0.instructions.first() {
            return ret.run(r);
        }
        let mut run = Run { next: 0, escapes: true, log: self.0.log, scratch: Vec::new() };
        let mut waiting = match self.0.go_on(r, &mut run) {
            Step::Ready(outcome) => return Step::Ready(outcome),
            Step::Wait(f) => f,
        };
        let (code, r) = (Arc::clone(&self.0), Rc::clone(r));
        Step::wait(async move {
            loop {
                let outcome: Outcome = waiting.await;
                if !goes_on(outcome) {
                    return outcome;
                }
                waiting = match code.go_on(&r, &mut run) {
                    Step::Ready(outcome) => return outcome,
                    Step::Wait(f) => f,
                };
            }
        })
    }
}

fn goes_on(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Declined | Outcome::Satisfied)
}

impl Code {
    /// Runs up to the end or the next instruction that waits. What waits and ends in `Declined` goes on behind.
    fn go_on(&self, r: &Rc<Request>, run: &mut Run) -> Step {
        while let Some(instruction) = self.instructions.get(run.next) {
            run.next += 1;
            match instruction {
                Instruction::Set { var, value } => set(r, run, *var, value),
                Instruction::Compute(compute) => {
                    if !compute.run(r, run) {
                        return Step::Ready(Outcome::Status(status::INTERNAL));
                    }
                }
                Instruction::If { condition, location, len } => {
                    if !condition.holds(r, run) {
                        run.next += len;
                    } else if let Some(l) = location {
                        r.set_location(*l);
                    }
                }
                Instruction::Return(ret) => return ret.run(r),
                Instruction::Rewrite(rewrite) => match rewrite.run(r, run) {
                    Next::NoMatch => {}
                    Next::Instruction => run.escapes = false,
                    Next::End(outcome) => return Step::Ready(outcome),
                },
                Instruction::Break => {
                    r.uri_changed.set(false);
                    break;
                }
                Instruction::Step(step) => match step.handle(r) {
                    Step::Ready(outcome) if goes_on(outcome) => {}
                    other => return other,
                },
            }
        }
        Step::Ready(Outcome::Declined)
    }
}

fn set(r: &Request, run: &mut Run, var: VarIndex, value: &Value) {
    let text = match value.as_literal_bytes() {
        Some(text) => text,
        None => {
            let mut text = Vec::new();
            run.eval(r, value, &mut text);
            text.into()
        }
    };
    r.generation().vars.set(r, var, Some(text));
}

/// What a directive such as `set_md5` makes of its arguments.
pub(crate) trait VarFunction: Send + Sync {
    /// Appends the variable's new value. False, the cause being logged, ends the request with a 500.
    fn call(&self, r: &Request, args: &[Vec<u8>], out: &mut Vec<u8>) -> bool;
}

/// A variable and the function whose value it gets.
pub(super) struct Compute {
    pub(super) var: VarIndex,
    pub(super) args: Vec<Value>,
    pub(super) function: Box<dyn VarFunction>,
}

impl Compute {
    /// False when the function failed.
    fn run(&self, r: &Request, run: &Run) -> bool {
        let evaluated = |value: &Value| {
            let mut text = Vec::new();
            run.eval(r, value, &mut text);
            text
        };
        let args: SmallVec<[Vec<u8>; 3]> = self.args.iter().map(evaluated).collect();
        let mut out = Vec::new();
        let done = self.function.call(r, &args, &mut out);
        if done {
            r.generation().vars.set(r, self.var, Some(out.into()));
        }
        done
    }
}

/// `return`.
pub(super) struct Return {
    status: u16,
    /// The body, or where to redirect to.
    text: Option<Value>,
}

impl Return {
    pub(super) fn new(status: u16, text: Option<Value>) -> Return {
        Return { status, text: text.filter(|t| !t.is_empty()) }
    }

    fn run(&self, r: &Rc<Request>) -> Step {
        let Some(text) = &self.text else { return self.run_without_text(r) };
        // Known to the text itself (`$status`).
        r.headers_out.status.set(self.status);
        if is_redirect(self.status) {
            special::set_location_header(r, &text.eval_bytes(r));
            return Step::Ready(Outcome::Status(self.status));
        }
        done(match text.as_one_literal() {
            Some(body) => r.respond_with(body),
            None => r.respond(text.eval_bytes(r)),
        })
    }

    fn run_without_text(&self, r: &Rc<Request>) -> Step {
        if is_redirect(self.status) {
            special::set_location_header(r, &[]);
        }
        if is_redirect(self.status) || self.status >= 400 {
            return Step::Ready(Outcome::Status(self.status));
        }
        r.headers_out.status.set(self.status);
        done(r.respond(Bytes::new()))
    }
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// `Done`, once the response is sent.
fn done(sent: Step<bool>) -> Step {
    sent.map(|_| Outcome::Done)
}
