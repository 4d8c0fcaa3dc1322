//! `location [modifier] uri { … }`.

use terrace_conf::{Arg, ConfError, Contexts, Node};

use crate::Builder;
use crate::conf::DraftKind;
use crate::location_tree::Matcher;

pub(super) fn set_location(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let (name, matcher) = match node.args.as_slice() {
        [modifier, uri] => (uri, with_modifier(b, modifier, uri)?),
        [uri] => joined(b, uri)?,
        _ => return Err(node.invalid_arity()),
    };
    check_nesting(b, node, name, matcher.as_ref())?;
    let text = match &matcher {
        Some(Matcher::Exact(t) | Matcher::Prefix { text: t, .. }) => t.to_vec(),
        _ => name.value.to_vec(),
    };
    b.block(DraftKind::Location(matcher), Contexts::LOCATION, &text, node).map(|_| ())
}

fn with_modifier(b: &mut Builder, modifier: &Arg, uri: &Arg) -> Result<Option<Matcher>, ConfError> {
    let text: Box<[u8]> = uri.value[..].into();
    Ok(Some(match &modifier.value[..] {
        b"=" => Matcher::Exact(text),
        b"^~" => Matcher::Prefix { text, is_final: true },
        b"~" => Matcher::Pattern(b.regex(&text, false, &uri.at)?.0),
        b"~*" => Matcher::Pattern(b.regex(&text, true, &uri.at)?.0),
        _ => return Err(modifier.error(format!("invalid location modifier \"{modifier}\""))),
    }))
}

/// One argument: the modifier may stand right before the URI (`=/path`, `~regex`).
fn joined<'a>(b: &mut Builder, uri: &'a Arg) -> Result<(&'a Arg, Option<Matcher>), ConfError> {
    let v = &uri.value[..];
    let matcher = if let Some(rest) = v.strip_prefix(b"=") {
        Some(Matcher::Exact(rest.into()))
    } else if let Some(rest) = v.strip_prefix(b"^~") {
        Some(Matcher::Prefix { text: rest.into(), is_final: true })
    } else if let Some(rest) = v.strip_prefix(b"~*") {
        Some(Matcher::Pattern(b.regex(rest, true, &uri.at)?.0))
    } else if let Some(rest) = v.strip_prefix(b"~") {
        Some(Matcher::Pattern(b.regex(rest, false, &uri.at)?.0))
    } else if v.first() == Some(&b'@') {
        None
    } else {
        Some(Matcher::Prefix { text: v.into(), is_final: false })
    };
    Ok((uri, matcher))
}

/// nginx's rules for nested locations.
fn check_nesting(b: &Builder, node: &Node, name: &Arg, inner: Option<&Matcher>) -> Result<(), ConfError> {
    let Some((outer, outer_is_regex)) = b.location_name() else { return Ok(()) };
    let shown = String::from_utf8_lossy(outer).into_owned();
    if b.is_named() {
        return Err(
            node.error(format!("location \"{name}\" cannot be inside the named location \"{shown}\""))
        );
    }
    if b.is_exact() {
        return Err(
            node.error(format!("location \"{name}\" cannot be inside the exact location \"{shown}\""))
        );
    }
    match inner {
        None => Err(node.error(format!("named location \"{name}\" can be on the server level only"))),
        Some(Matcher::Exact(t) | Matcher::Prefix { text: t, .. })
            if !outer_is_regex && !t.starts_with(outer) =>
        {
            Err(node.error(format!("location \"{name}\" is outside location \"{shown}\"")))
        }
        _ => Ok(()),
    }
}
