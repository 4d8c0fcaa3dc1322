//! The request line: method, target and version (RFC 9112 section 3), read as nginx reads it.
//!
//! Accepted beyond the RFC, as nginx does: several spaces between the parts and after the version. Refused beyond
//! nginx: HTTP/0.9 requests.

use crate::{RequestError, Span, host, uri};

/// A request method; the name as sent is [`RequestLine::method_name`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    /// GET
    #[default]
    Get,
    /// HEAD
    Head,
    /// POST
    Post,
    /// PUT
    Put,
    /// DELETE
    Delete,
    /// MKCOL
    MkCol,
    /// COPY
    Copy,
    /// MOVE
    Move,
    /// OPTIONS
    Options,
    /// PROPFIND
    PropFind,
    /// PROPPATCH
    PropPatch,
    /// LOCK
    Lock,
    /// UNLOCK
    Unlock,
    /// PATCH
    Patch,
    /// TRACE
    Trace,
    /// CONNECT
    Connect,
    /// Any other method.
    Other,
}

impl Method {
    /// The method with this name; names are case-sensitive.
    #[inline]
    pub fn from_name(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"MKCOL" => Self::MkCol,
            b"COPY" => Self::Copy,
            b"MOVE" => Self::Move,
            b"OPTIONS" => Self::Options,
            b"PROPFIND" => Self::PropFind,
            b"PROPPATCH" => Self::PropPatch,
            b"LOCK" => Self::Lock,
            b"UNLOCK" => Self::Unlock,
            b"PATCH" => Self::Patch,
            b"TRACE" => Self::Trace,
            b"CONNECT" => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// The protocol version of a message, as far as it matters for its handling.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1, and any higher minor version.
    #[default]
    Http11,
}

/// A request line taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestLine {
    /// The whole line without its line end (`$request`).
    pub whole: Span,
    /// The method.
    pub method: Method,
    /// The method as sent.
    pub method_name: Span,
    /// The target as sent (`$request_uri`), of an absolute target the part after the authority. It starts with `/`,
    /// or with `?` when an absolute target has no path.
    pub target: Span,
    /// The path as sent: the target up to `?` or `#`.
    pub path: Span,
    /// The query as sent, without `?` and up to `#`; empty when the target ends in `?`.
    pub args: Option<Span>,
    /// Whether the path must be normalised before use; if not, `path` is already what [`uri::normalize`] gives.
    pub complex: bool,
    /// The scheme of an absolute target.
    pub scheme: Option<Span>,
    /// The authority of an absolute target, with its port.
    pub authority: Option<Span>,
    /// The protocol as sent (`$server_protocol`).
    pub protocol: Span,
    /// The protocol version.
    pub version: Version,
}

/// Whether a method may have this byte; nginx's set.
#[inline]
pub(crate) fn is_method_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte == b'_' || byte == b'-'
}

/// Takes apart the request line at `start..end` of `buf` (without its line end); `parsed` is fresh.
pub(crate) fn parse(
    parsed: &mut RequestLine,
    buf: &[u8],
    start: usize,
    end: usize,
) -> Result<(), RequestError> {
    let line = &buf[start..end];
    let (method, method_len) = if line.starts_with(b"GET ") { (Method::Get, 3) } else { method(line)? };
    parsed.whole = Span::new(start, end);
    parsed.method = method;
    parsed.method_name = Span::new(start, start + method_len);
    let mut at = skip_spaces(line, method_len);
    if method == Method::Connect {
        // The target is an authority; the method is refused once the head is whole.
        at += line[at..].iter().position(|&byte| byte == b' ').ok_or(RequestError::InvalidRequest)?;
    } else {
        match line.get(at) {
            Some(b'/') => {}
            Some(byte) if byte.is_ascii_alphabetic() => at = absolute(parsed, line, start, at)?,
            _ => return Err(RequestError::InvalidRequest),
        }
        at = target(parsed, line, start, at)?;
    }
    if line[at..] == *b" HTTP/1.1" {
        parsed.version = Version::Http11;
        parsed.protocol = Span::new(start + at + 1, end);
        return Ok(());
    }
    protocol(parsed, line, start, at)
}

/// The method at the start of the line, and its length.
fn method(line: &[u8]) -> Result<(Method, usize), RequestError> {
    let len = line.iter().position(|&byte| !is_method_byte(byte)).unwrap_or(line.len());
    if len == 0 || line.get(len) != Some(&b' ') {
        return Err(RequestError::InvalidMethod);
    }
    Ok((Method::from_name(&line[..len]), len))
}

/// Reads what follows the target, from `at` on.
fn protocol(parsed: &mut RequestLine, line: &[u8], start: usize, at: usize) -> Result<(), RequestError> {
    let protocol = skip_spaces(line, at);
    let len = line[protocol..].iter().position(|&byte| byte == b' ').unwrap_or(line.len() - protocol);
    parsed.version = version(&line[protocol..protocol + len])?;
    parsed.protocol = Span::new(start + protocol, start + protocol + len);
    if skip_spaces(line, protocol + len) != line.len() {
        return Err(RequestError::InvalidRequest);
    }
    Ok(())
}

#[inline]
fn skip_spaces(line: &[u8], from: usize) -> usize {
    let mut at = from;
    while line.get(at) == Some(&b' ') {
        at += 1;
    }
    at
}

/// Reads scheme and authority of an absolute target at `from`; gives the offset after them, which may be a space.
#[cold]
fn absolute(parsed: &mut RequestLine, line: &[u8], start: usize, from: usize) -> Result<usize, RequestError> {
    let is_scheme_byte = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let scheme_len = line[from..].iter().take_while(|byte| is_scheme_byte(byte)).count();
    let rest = &line[from + scheme_len..];
    let Some(rest) = rest.strip_prefix(b"://") else {
        return Err(RequestError::InvalidRequest);
    };
    let authority = from + scheme_len + 3;
    let authority_len =
        rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b' ')).ok_or(RequestError::Http09)?;
    if host::parse(&rest[..authority_len]).is_none() {
        return Err(RequestError::InvalidHostInRequestLine);
    }
    parsed.scheme = Some(Span::new(start + from, start + from + scheme_len));
    parsed.authority = Some(Span::new(start + authority, start + authority + authority_len));
    Ok(authority + authority_len)
}

/// Reads the target at `from` up to the space after it; gives the offset of that space.
#[inline]
fn target(parsed: &mut RequestLine, line: &[u8], start: usize, from: usize) -> Result<usize, RequestError> {
    if line[from] == b' ' {
        // An absolute target without path: the path is "/", for which the second slash after the scheme stands in.
        let slash = parsed.authority.map_or(start, |authority| authority.start() - 1);
        parsed.target = Span::new(slash, slash + 1);
        parsed.path = parsed.target;
        return Ok(from);
    }
    let scan = uri::scan(&line[from..]).map_err(|_| RequestError::InvalidRequest)?;
    let base = start + from;
    if from + scan.len == line.len() {
        return Err(RequestError::Http09);
    }
    parsed.target = Span::new(base, base + scan.len);
    parsed.path = Span::new(base, base + scan.path_len);
    parsed.args = scan.args.map(|(first, end)| Span::new(base + first, base + end));
    parsed.complex = scan.complex;
    Ok(from + scan.len)
}

#[inline]
fn version(protocol: &[u8]) -> Result<Version, RequestError> {
    match protocol {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        b"" => Err(RequestError::Http09),
        _ => other_version(protocol),
    }
}

/// Any other spelling: 505 for a major version above 1, 400 for the rest.
#[cold]
fn other_version(protocol: &[u8]) -> Result<Version, RequestError> {
    let Some((major, minor)) = split_version(protocol) else {
        return Err(RequestError::InvalidRequest);
    };
    match major {
        1 if minor == 0 => Ok(Version::Http10),
        1 => Ok(Version::Http11),
        _ => Err(RequestError::InvalidVersion),
    }
}

/// Major and minor version of `HTTP/major.minor`; no leading zero in the major version, at most three digits each.
pub(crate) fn split_version(protocol: &[u8]) -> Option<(u32, u32)> {
    let numbers = protocol.strip_prefix(b"HTTP/")?;
    let dot = numbers.iter().position(|&byte| byte == b'.')?;
    let (major, minor) = (&numbers[..dot], &numbers[dot + 1..]);
    if major.first() == Some(&b'0') {
        return None;
    }
    Some((small_number(major)?, small_number(minor)?))
}

fn small_number(digits: &[u8]) -> Option<u32> {
    if !(1..=3).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(digits.iter().fold(0, |number, &digit| number * 10 + u32::from(digit - b'0')))
}
