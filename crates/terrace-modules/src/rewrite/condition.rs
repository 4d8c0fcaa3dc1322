//! The condition of `if (…)`.

use std::sync::Arc;

use terrace_conf::{Arg, ConfError, Node};
use terrace_http::vars::VarIndex;
use terrace_http::{Builder, Request, Value};
use terrace_regex::Regex;

use super::program::{Run, log_match};
use crate::file_test::FileTest;

/// A condition.
pub(super) enum Condition {
    /// `if ($v)`: neither empty nor `0`.
    True(VarIndex),
    /// `=` and `!=`.
    Equal { var: VarIndex, to: Value, negated: bool },
    /// `~`, `~*`, `!~`, `!~*`.
    Matches { var: VarIndex, regex: Arc<Regex>, names: Vec<(VarIndex, usize)>, negated: bool },
    /// `-f`, `-d`, `-e`, `-x` and their negations.
    File { path: Value, test: FileTest, negated: bool },
}

impl Condition {
    /// Compiles the words between `if` and `{`, which the parentheses may touch or not.
    pub(super) fn compile(b: &mut Builder, node: &Node) -> Result<Condition, ConfError> {
        let words = words(node)?;
        let Some(first) = words.first() else {
            return Err(node.error(format!("invalid condition \"{}\"", node.arg(0)?)));
        };
        let invalid = || node.error(format!("invalid condition \"{first}\""));
        if first.value.len() > 1 && first.value[0] == b'$' {
            return match words.as_slice() {
                [_] => Ok(Condition::True(variable(b, first))),
                [_, operator, value] => Self::compare(b, node, first, operator, value),
                _ => Err(invalid()),
            };
        }
        let negated = first.value.first() == Some(&b'!');
        let test = match &first.value[usize::from(negated)..] {
            b"-f" => FileTest::File,
            b"-d" => FileTest::Directory,
            b"-e" => FileTest::Exists,
            b"-x" => FileTest::Executable,
            _ => return Err(invalid()),
        };
        match words.as_slice() {
            [_, path] => Ok(Condition::File { path: Value::compile(b, path)?, test, negated }),
            _ => Err(invalid()),
        }
    }

    fn compare(
        b: &mut Builder,
        node: &Node,
        var: &Arg,
        operator: &Arg,
        value: &Arg,
    ) -> Result<Condition, ConfError> {
        let var = variable(b, var);
        let negated = operator.value.first() == Some(&b'!');
        match &operator.value[usize::from(negated)..] {
            b"=" => Ok(Condition::Equal { var, to: Value::compile(b, value)?, negated }),
            o @ (b"~" | b"~*") => {
                let (regex, names) = b.regex(&value.value, o == b"~*", &value.at)?;
                Ok(Condition::Matches { var, regex, names, negated })
            }
            _ => Err(node.error(format!("unexpected \"{operator}\" in condition"))),
        }
    }

    /// Whether the request meets it.
    pub(super) fn holds(&self, r: &Request, run: &mut Run) -> bool {
        let mut text = run.take_scratch();
        let holds = match self {
            Condition::True(var) => {
                r.append_var(*var, &mut text);
                !text.is_empty() && text != b"0"
            }
            Condition::Equal { var, to, negated } => {
                r.append_var(*var, &mut text);
                let equal = match to.as_literal() {
                    Some(to) => text == to,
                    None => {
                        let len = text.len();
                        run.eval(r, to, &mut text);
                        text[..len] == text[len..]
                    }
                };
                equal != *negated
            }
            Condition::Matches { var, regex, names, negated } => {
                r.append_var(*var, &mut text);
                let matched = r.match_regex(regex, names, &text);
                log_match(r, run, regex, &text, matched);
                matched != *negated
            }
            Condition::File { path, test, negated } => {
                run.eval(r, path, &mut text);
                test.holds(r, &text) != *negated
            }
        };
        run.give_scratch(text);
        holds
    }
}

fn variable(b: &mut Builder, arg: &Arg) -> VarIndex {
    b.vars.reference(&arg.value[1..], &arg.at)
}

/// The words without the parentheses.
fn words(node: &Node) -> Result<Vec<Arg>, ConfError> {
    let mut words = node.args.clone();
    let invalid = |arg: &Arg| Err(node.error(format!("invalid condition \"{arg}\"")));
    match words.first_mut() {
        Some(first) if first.value.starts_with(b"(") => first.value = first.value.slice(1..),
        Some(first) => return invalid(first),
        None => return Err(node.invalid_arity()),
    }
    if words.len() > 1 && words[0].value.is_empty() {
        words.remove(0);
    }
    match words.last_mut() {
        Some(last) if last.value.ends_with(b")") => last.value.truncate(last.value.len() - 1),
        Some(last) => return invalid(last),
        None => {}
    }
    if words.len() > 1 && words.last().is_some_and(|w| w.value.is_empty()) {
        // `)` stood alone. An empty word in quotes keeps its `)`: `if ($x = "")`.
        let alone = node.args.last().is_some_and(|w| &w.value[..] == b")" && !w.quoted);
        if alone {
            words.pop();
        }
    }
    Ok(words)
}
