//! `proxy_redirect` and the `proxy_cookie_*` directives: rewriting of `Location`, `Refresh` and `Set-Cookie`.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use terrace_conf::{Arg, ConfError, Node};
use terrace_http::vars::VarIndex;
use terrace_http::{Builder, Request, Value};
use terrace_regex::Regex;

use super::ProxyLists;
use super::settings::Settings;
use super::target::PassConf;

/// What a rule looks for.
#[derive(Clone)]
enum Pattern {
    /// Text, with variables.
    Text(Value),
    /// `~regex` and `~*regex`.
    Regex(Arc<Regex>, Vec<(VarIndex, usize)>),
}

/// One `proxy_redirect`.
#[derive(Clone)]
pub(super) enum RedirectRule {
    /// `default`: from the URL of `proxy_pass` to the location.
    Default,
    /// `off`
    Off,
    /// From, to.
    Pair(Rewrite),
}

/// Replaces what a pattern finds.
#[derive(Clone)]
pub(super) struct Rewrite {
    pattern: Pattern,
    replacement: Value,
}

/// One `proxy_cookie_domain` or `proxy_cookie_path`.
#[derive(Clone)]
pub(super) struct CookieRewrite(Rewrite);

/// One `proxy_cookie_flags`.
#[derive(Clone)]
pub(super) struct CookieFlags {
    name: Pattern,
    flags: Vec<Flag>,
}

#[derive(Clone, Copy)]
enum Flag {
    Add(&'static str),
    Remove(&'static str),
    SameSite(&'static str),
}

fn pattern(b: &mut Builder, arg: &Arg) -> Result<Pattern, ConfError> {
    let text = &arg.value;
    if let Some(rest) = text.strip_prefix(b"~*") {
        let (regex, names) = b.regex(rest, true, &arg.at)?;
        return Ok(Pattern::Regex(regex, names));
    }
    if let Some(rest) = text.strip_prefix(b"~") {
        let (regex, names) = b.regex(rest, false, &arg.at)?;
        return Ok(Pattern::Regex(regex, names));
    }
    Ok(Pattern::Text(Value::compile(b, arg)?))
}

pub(super) fn set_redirect(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let rule = match (&node.arg(0)?.value[..], node.args.get(1)) {
        (b"off", None) => RedirectRule::Off,
        (b"default", None) => {
            match b.conf::<ProxyLists>().pass.as_ref().map(|p| p.uri().is_some()) {
                Some(true) => {}
                Some(false) => {
                    return Err(node.error(
                        "\"proxy_redirect default\" cannot be used with \"proxy_pass\" directive with variables",
                    ));
                }
                None => {
                    return Err(node.error(
                        "\"proxy_redirect default\" should be placed after the \"proxy_pass\" directive",
                    ));
                }
            }
            RedirectRule::Default
        }
        (_, None) => return Err(node.invalid_parameter(&node.args[0])),
        (_, Some(to)) => {
            let pattern = pattern(b, &node.args[0])?;
            RedirectRule::Pair(Rewrite { pattern, replacement: Value::compile(b, to)? })
        }
    };
    push(&mut b.conf::<ProxyLists>().redirects, rule);
    Ok(())
}

fn push<T: Clone>(list: &mut Option<Arc<Vec<T>>>, item: T) {
    Arc::make_mut(list.get_or_insert_default()).push(item);
}

fn cookie_rewrite(b: &mut Builder, node: &Node) -> Result<Option<CookieRewrite>, ConfError> {
    let Some(to) = node.args.get(1) else {
        return match &node.arg(0)?.value[..] {
            b"off" => Ok(None),
            _ => Err(node.invalid_parameter(&node.args[0])),
        };
    };
    let pattern = pattern(b, &node.args[0])?;
    Ok(Some(CookieRewrite(Rewrite { pattern, replacement: Value::compile(b, to)? })))
}

pub(super) fn set_cookie_domain(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let rule = cookie_rewrite(b, node)?;
    add_cookie_rule(&mut b.conf::<ProxyLists>().cookie_domains, rule, node)
}

pub(super) fn set_cookie_path(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let rule = cookie_rewrite(b, node)?;
    add_cookie_rule(&mut b.conf::<ProxyLists>().cookie_paths, rule, node)
}

fn add_cookie_rule<T: Clone>(
    list: &mut Option<Arc<Vec<T>>>,
    rule: Option<T>,
    node: &Node,
) -> Result<(), ConfError> {
    match rule {
        Some(rule) => push(list, rule),
        None if list.is_some() => return Err(node.duplicate()),
        None => *list = Some(Arc::default()),
    }
    Ok(())
}

pub(super) fn set_cookie_flags(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let first = node.arg(0)?;
    let rule = if node.args.len() == 1 {
        if &first.value[..] != b"off" {
            return Err(node.invalid_parameter(first));
        }
        None
    } else {
        let mut flags = Vec::new();
        for arg in &node.args[1..] {
            flags.push(match &arg.value.to_ascii_lowercase()[..] {
                b"secure" => Flag::Add("Secure"),
                b"nosecure" => Flag::Remove("Secure"),
                b"httponly" => Flag::Add("HttpOnly"),
                b"nohttponly" => Flag::Remove("HttpOnly"),
                b"samesite=strict" => Flag::SameSite("Strict"),
                b"samesite=lax" => Flag::SameSite("Lax"),
                b"samesite=none" => Flag::SameSite("None"),
                b"nosamesite" => Flag::Remove("SameSite"),
                _ => return Err(node.invalid_parameter(arg)),
            });
        }
        Some(CookieFlags { name: pattern(b, first)?, flags })
    };
    add_cookie_rule(&mut b.conf::<ProxyLists>().cookie_flags, rule, node)
}

/// The rules that apply at a location; without any, `default` where the URL of `proxy_pass` is known.
pub(super) fn resolve_redirects(rules: Option<&[RedirectRule]>, pass: &PassConf) -> Vec<RedirectRule> {
    let rules = rules.unwrap_or(&[RedirectRule::Default]);
    let mut out = Vec::new();
    for rule in rules {
        match rule {
            RedirectRule::Off => return Vec::new(),
            RedirectRule::Default => out.extend(default_rule(pass)),
            RedirectRule::Pair(_) => out.push(rule.clone()),
        }
    }
    out
}

fn default_rule(pass: &PassConf) -> Option<RedirectRule> {
    let uri = pass.uri()?;
    let (from, to) = if uri.is_empty() {
        let mut from = pass.text.to_vec();
        from.push(b'/');
        (Bytes::from(from), Bytes::from_static(b"/"))
    } else {
        (pass.text.clone(), pass.location.clone())
    };
    let pattern = Pattern::Text(Value::literal(from));
    Some(RedirectRule::Pair(Rewrite { pattern, replacement: Value::literal(to) }))
}

/// The URL in `value` behind `at`, rewritten by the first rule that matches, with what stands before it.
pub(super) fn redirect(s: &Settings, r: &Rc<Request>, value: &[u8], at: usize) -> Option<Vec<u8>> {
    let (before, url) = value.split_at(at);
    for rule in &s.redirects {
        let RedirectRule::Pair(Rewrite { pattern, replacement }) = rule else { continue };
        let rest = match pattern {
            Pattern::Regex(regex, names) => {
                if !r.match_regex(regex, names, url) {
                    continue;
                }
                &[][..]
            }
            Pattern::Text(text) => match url.strip_prefix(&text.eval_bytes(r)[..]) {
                Some(rest) => rest,
                None => continue,
            },
        };
        let mut out = before.to_vec();
        replacement.eval(r, &mut out);
        out.extend_from_slice(rest);
        return Some(out);
    }
    None
}

/// A cookie after all rules; `None` when none applies.
pub(super) fn cookie(s: &Settings, r: &Rc<Request>, value: &[u8]) -> Option<Vec<u8>> {
    let (domains, paths, flags) = (&s.cookie_domains, &s.cookie_paths, &s.cookie_flags);
    if domains.is_none() && paths.is_none() && flags.is_none() {
        return None;
    }
    let mut parts = value.split(|b| *b == b';');
    let first = parts.next().unwrap_or_default();
    let mut attributes: Vec<Vec<u8>> = Vec::new();
    for part in parts {
        let part = part.trim_ascii();
        let (name, value) = split_pair(part);
        let rewritten = if name.eq_ignore_ascii_case(b"domain") {
            rewritten_domain(domains.as_deref().map_or(&[], |v| v), r, value)
        } else if name.eq_ignore_ascii_case(b"path") {
            rewritten_path(paths.as_deref().map_or(&[], |v| v), r, value)
        } else {
            None
        };
        attributes.push(match rewritten {
            Some(v) => [name, b"=", &v].concat(),
            None => part.to_vec(),
        });
    }
    let (cookie_name, _) = split_pair(first.trim_ascii());
    let rules = flags.as_deref().map_or(&[][..], |v| &v[..]);
    if let Some(rule) = rules.iter().find(|f| names_cookie(&f.name, r, cookie_name)) {
        rule.flags.iter().for_each(|f| f.apply(&mut attributes));
    }
    let mut out = first.to_vec();
    for a in &attributes {
        out.extend_from_slice(b"; ");
        out.extend_from_slice(a);
    }
    Some(out)
}

fn split_pair(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b'=', text) {
        Some(i) => (&text[..i], &text[i + 1..]),
        None => (text, &[]),
    }
}

/// Domains match whole and in any case. A dot before the cookie's domain stays; one before the rule's texts says
/// nothing.
fn rewritten_domain(rules: &[CookieRewrite], r: &Rc<Request>, value: &[u8]) -> Option<Vec<u8>> {
    let dotless = |v: &'_ Bytes| v.strip_prefix(b".").map_or_else(|| v.clone(), |rest| v.slice_ref(rest));
    let (dot, domain) = value.split_at(usize::from(value.first() == Some(&b'.')));
    rules.iter().find_map(|CookieRewrite(rule)| {
        let (matches, replacement) = match &rule.pattern {
            Pattern::Regex(regex, names) => {
                let matches = r.match_regex(regex, names, domain);
                (matches, matches.then(|| rule.replacement.eval_bytes(r))?)
            }
            Pattern::Text(t) => {
                let matches = dotless(&t.eval_bytes(r)).eq_ignore_ascii_case(domain);
                (matches, dotless(&rule.replacement.eval_bytes(r)))
            }
        };
        matches.then(|| [dot, &replacement].concat())
    })
}

/// Paths match by their beginning.
fn rewritten_path(rules: &[CookieRewrite], r: &Rc<Request>, value: &[u8]) -> Option<Vec<u8>> {
    rules.iter().find_map(|CookieRewrite(rule)| {
        let rest = match &rule.pattern {
            Pattern::Regex(regex, names) => r.match_regex(regex, names, value).then_some(&[][..])?,
            Pattern::Text(t) => value.strip_prefix(&t.eval_bytes(r)[..])?,
        };
        let mut out = rule.replacement.eval_bytes(r).to_vec();
        out.extend_from_slice(rest);
        Some(out)
    })
}

fn names_cookie(pattern: &Pattern, r: &Rc<Request>, name: &[u8]) -> bool {
    match pattern {
        Pattern::Regex(regex, names) => r.match_regex(regex, names, name),
        Pattern::Text(t) => t.eval_bytes(r).eq_ignore_ascii_case(name),
    }
}

impl Flag {
    fn apply(self, attributes: &mut Vec<Vec<u8>>) {
        let named = |a: &[u8], name: &str| split_pair(a).0.eq_ignore_ascii_case(name.as_bytes());
        match self {
            Flag::Add(name) => {
                if !attributes.iter().any(|a| named(a, name)) {
                    attributes.push(name.into());
                }
            }
            Flag::Remove(name) => attributes.retain(|a| !named(a, name)),
            Flag::SameSite(value) => {
                attributes.retain(|a| !named(a, "SameSite"));
                attributes.push(format!("SameSite={value}").into());
            }
        }
    }
}
