//! From URIs to paths, and the fields of requests that name or qualify them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use terrace_base::log::Level;
use terrace_http::core::location_conf::Alias;
use terrace_http::{Request, status};
use terrace_http1::KnownHeader;

use super::refuse;

/// The path of a URI, with several slashes in a row as one. A URI that an `alias` would turn into a path out of its
/// directory is refused.
pub(super) fn of_uri(r: &Request, uri: &[u8]) -> Result<PathBuf, u16> {
    let root = &r.location().core.root;
    let shown = || String::from_utf8_lossy(uri).into_owned();
    if root.alias.is_some() && !r.is_uri_of_location() {
        let text = format_args!("\"alias\" cannot be used where the URI \"{}\" was rewritten", shown());
        r.log(Level::Alert, text);
        return Err(status::INTERNAL);
    }
    let path = r.filename(uri);
    // What the configuration says itself is for the administrator to know.
    let configured = root.path.as_literal().map_or(0, climbs);
    if climbs(&path) > configured || path.contains(&0) {
        return Err(refuse(r, 403, &format!("unsafe URI \"{}\" was detected", shown())));
    }
    let mut merged = path;
    merged.dedup_by(|a, b| *a == b'/' && *b == b'/');
    Ok(PathBuf::from(OsString::from_vec(merged)))
}

/// How many steps up a path has.
fn climbs(path: &[u8]) -> usize {
    path.split(|b| *b == b'/').filter(|element| *element == b"..").count()
}

/// Whether a URI's path has at least so many elements; the error is how many slashes it has.
pub(super) fn is_deep(uri: &[u8], min: usize) -> Result<(), usize> {
    let slashes = memchr::memchr_iter(b'/', uri);
    let mut depth = 0;
    for at in slashes {
        depth += 1;
        if depth >= min && at + 1 < uri.len() {
            return Ok(());
        }
    }
    if min == 0 { Ok(()) } else { Err(depth) }
}

/// `Depth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// It was not sent.
    None,
    Zero,
    One,
    Infinity,
    /// It was sent and is none of these.
    Invalid,
}

impl Depth {
    pub(super) fn of(r: &Request) -> Depth {
        let Some(value) = r.header(KnownHeader::Depth) else { return Depth::None };
        match &value[..] {
            b"0" => Depth::Zero,
            b"1" => Depth::One,
            b"infinity" => Depth::Infinity,
            other => {
                let other = String::from_utf8_lossy(other);
                refuse(r, 400, &format!("client sent invalid \"Depth\" header: \"{other}\""));
                Depth::Invalid
            }
        }
    }
}

/// `Overwrite`, which stands for yes where it was not sent.
pub(super) fn overwrites(r: &Request) -> Result<bool, u16> {
    match r.header(KnownHeader::Overwrite).as_deref() {
        None | Some(b"T" | b"t") => Ok(true),
        Some(b"F" | b"f") => Ok(false),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            Err(refuse(r, 400, &format!("client sent invalid \"Overwrite\" header: \"{other}\"")))
        }
    }
}

/// `Destination`.
pub(super) struct Destination {
    /// The path of its URI, decoded and normalised.
    pub(super) uri: Vec<u8>,
    /// As sent, for the log.
    pub(super) sent: String,
}

/// Where a COPY or MOVE goes. The error is a status.
pub(super) fn destination(r: &Request) -> Result<Destination, u16> {
    let Some(value) = r.header(KnownHeader::Destination) else {
        return Err(refuse(r, 400, "client sent no \"Destination\" header"));
    };
    let sent = String::from_utf8_lossy(&value).into_owned();
    let path = if value.first() == Some(&b'/') { &value[..] } else { after_host(r, &value, &sent)? };
    let uri = normal(path).filter(|uri| match r.location().core.root.alias {
        Some(Alias::Prefix(len)) => uri.len() >= len,
        _ => true,
    });
    match uri {
        Some(uri) => Ok(Destination { uri, sent }),
        None => Err(invalid(r, &sent)),
    }
}

fn invalid(r: &Request, sent: &str) -> u16 {
    refuse(r, 400, &format!("client sent invalid \"Destination\" header: \"{sent}\""))
}

/// The path of an absolute URI, which must be of this server.
fn after_host<'a>(r: &Request, value: &'a [u8], sent: &str) -> Result<&'a [u8], u16> {
    let host = r.host();
    if host.is_empty() {
        return Err(refuse(r, 400, "client sent no \"Host\" header"));
    }
    let rest = value.strip_prefix(r.scheme().as_bytes()).and_then(|rest| rest.strip_prefix(b"://"));
    let rest = rest.ok_or_else(|| invalid(r, sent))?;
    let is_same = rest.get(..host.len()).is_some_and(|named| named.eq_ignore_ascii_case(&host));
    let behind = rest.get(host.len()..).unwrap_or_default();
    if !is_same || !matches!(behind.first(), None | Some(b'/' | b':')) {
        let text =
            format!("\"Destination\" URI \"{sent}\" is handled by different repository than the source URI");
        return Err(refuse(r, 400, &text));
    }
    let path = memchr::memchr(b'/', behind).ok_or_else(|| invalid(r, sent))?;
    Ok(&behind[path..])
}

/// A path decoded and normalised; `None` for one that is malformed or has a step up.
pub(super) fn normal(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let parts = terrace_http1::uri::normalize(text, &mut out, true).ok()?;
    let path = parts.path(text, &out).to_vec();
    // A normal path has no step up any more, but may have had one.
    let raw = &text[..memchr::memchr2(b'?', b'#', text).unwrap_or(text.len())];
    let decoded = decoded(raw)?;
    (climbs(&decoded) == 0 && !decoded.contains(&0)).then_some(path)
}

fn decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(*bytes.next()?).to_digit(16);
        out.push(if *byte == b'%' { (digit()? * 16 + digit()?) as u8 } else { *byte });
    }
    Some(out)
}
