//! The rewrite module's directives turned into instructions.

use terrace_conf::{Arg, ConfError, Contexts, Node};
use terrace_http::conf::DraftKind;
use terrace_http::vars::VarIndex;
use terrace_http::{Builder, Request, Value};

use terrace_base::log::Level;

use super::condition::Condition;
use super::program::{Instruction, Return};
use super::replace::{After, Rewrite};
use super::{OpenIfs, RewriteConf, push};

/// What makes a text a URL to redirect to.
fn is_url(text: &[u8]) -> bool {
    [&b"http://"[..], b"https://", b"$scheme"].iter().any(|p| text.starts_with(p))
}

/// A part of an argument as an argument.
fn part(arg: &Arg, range: std::ops::Range<usize>) -> Arg {
    Arg { value: arg.value.slice(range), quoted: arg.quoted, at: arg.at.clone() }
}

pub(super) fn set_rewrite(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let (pattern, replacement) = (node.arg(0)?, node.arg(1)?);
    if replacement.value.is_empty() {
        return Err(node.error("empty replacement"));
    }
    let (regex, names) = b.regex(&pattern.value, false, &pattern.at)?;
    let keep_args = !replacement.value.ends_with(b"?");
    let end = replacement.value.len() - usize::from(!keep_args);
    let mut after = if is_url(&replacement.value) { After::Redirect(302) } else { After::Next };
    if let Some(flag) = node.args.get(2) {
        let redirects = matches!(after, After::Redirect(_));
        after = match &flag.value[..] {
            b"redirect" => After::Redirect(302),
            b"permanent" => After::Redirect(301),
            // The flags of a URI do not undo the redirect to a URL.
            b"last" | b"break" if redirects => after,
            b"last" => After::Last,
            b"break" => After::Break,
            _ => return Err(node.invalid_parameter(flag)),
        };
    }
    let query = memchr::memchr(b'?', &replacement.value[..end]);
    let (path, args) = match (after, query) {
        (After::Redirect(_), _) | (_, None) => (part(replacement, 0..end), None),
        (_, Some(at)) => (part(replacement, 0..at), Some(part(replacement, at + 1..end))),
    };
    let path = Value::compile(b, &path)?;
    let args = args.map(|a| Value::compile(b, &a)).transpose()?;
    let rewrite = Rewrite { regex, names, path, args, has_query: query.is_some(), keep_args, after };
    push(b, Instruction::Rewrite(Box::new(rewrite)));
    Ok(())
}

pub(super) fn set_return(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let first = node.arg(0)?;
    let invalid = || node.error(format!("invalid return code \"{first}\""));
    let code = terrace_base::units::parse_number(&first.value);
    let (status, text) = match (code, node.args.get(1)) {
        (Some(code), text) => {
            let status = u16::try_from(code).ok().filter(|s| *s <= 999).ok_or_else(invalid)?;
            (status, text.map(|t| Value::compile(b, t)).transpose()?)
        }
        (None, None) if is_url(&first.value) => (302, Some(Value::compile(b, first)?)),
        (None, _) => return Err(invalid()),
    };
    push(b, Instruction::Return(Return::new(status, text)));
    Ok(())
}

pub(super) fn set_set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let var = define(b, node, node.arg(0)?)?;
    let value = Value::compile(b, node.arg(1)?)?;
    push(b, Instruction::Set { var, value });
    Ok(())
}

/// The variable that a directive gives a value, which it defines.
pub(super) fn define(b: &mut Builder, node: &Node, name: &Arg) -> Result<VarIndex, ConfError> {
    let Some(bare) = name.value.strip_prefix(b"$").filter(|n| !n.is_empty()) else {
        return Err(node.error(format!("invalid variable name \"{name}\"")));
    };
    let var = b.vars.define_stored(bare).map_err(|e| node.error(e))?;
    b.vars.report_unset(var, warn_unset);
    Ok(var)
}

fn warn_unset(r: &Request, name: &[u8]) {
    if r.settings::<RewriteConf>().is_none_or(RewriteConf::uninitialized_variable_warn) {
        let name = String::from_utf8_lossy(name);
        r.log(Level::Warn, format_args!("using uninitialized \"{name}\" variable"));
    }
}

pub(super) fn set_break(b: &mut Builder, _: &Node) -> Result<(), ConfError> {
    push(b, Instruction::Break);
    Ok(())
}

pub(super) fn set_if(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let condition = Condition::compile(b, node)?;
    let name = b.location_name().map(|(name, _)| name.to_vec());
    b.state::<OpenIfs>().0.push(Vec::new());
    let read = match name {
        // An `if` of a server has no settings of its own.
        None => b.nested(Contexts::SERVER_IF, node).map(|()| None),
        Some(name) => b.block(DraftKind::Inner, Contexts::LOCATION_IF, &name, node).map(Some),
    };
    let inner = b.state::<OpenIfs>().0.pop().unwrap_or_default();
    let location = read?;
    push(b, Instruction::If { condition, location, len: inner.len() });
    inner.into_iter().for_each(|i| push(b, i));
    Ok(())
}
