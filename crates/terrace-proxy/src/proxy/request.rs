//! The request as sent to the server: its head, and its body where it is small.

use bytes::BufMut;
use terrace_http::Request;
use terrace_http::body::Stored;
use terrace_http1::{Framing, KnownHeader, Span, Version, encode};

use super::exchange::Exchange;
use super::settings::{HeaderValue, Settings};

/// Bodies up to this size leave in one write with the head.
const INLINE_BODY_BYTES_MAX: usize = 8 * 1024;

/// Where the body is that follows the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// Everything is in the buffer.
    Nothing,
    /// The client's body follows.
    Body,
}

/// Writes the request into the exchange's buffer.
pub(super) fn write(s: &Settings, r: &Request, x: &Exchange) -> Rest {
    let mut out = x.request.borrow_mut();
    out.clear();
    match &s.method {
        Some(m) => m.eval(r, &mut out),
        None => out.extend_from_slice(&r.method()),
    }
    out.push(b' ');
    let start = out.len();
    s.pass.write_uri(&x.target, r, &mut out);
    harmless(&mut out, start);
    x.uri.set(Span::new(start, out.len()));
    out.extend_from_slice(match s.version {
        Version::Http10 => b" HTTP/1.0\r\n",
        Version::Http11 => b" HTTP/1.1\r\n",
    });
    let body = s.set_body.as_ref().map(|b| b.eval_bytes(r));
    for (name, value) in &s.set_headers {
        write_set_header(r, x, name, value, body.as_ref().map(bytes::Bytes::len), &mut out);
    }
    if s.passes_headers {
        r.headers_in.for_each(|name, value, id| {
            if !s.dropped.contains(id, name) {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        });
    }
    out.extend_from_slice(b"\r\n");
    if let Some(body) = body {
        out.extend_from_slice(&body);
        return Rest::Nothing;
    }
    if !s.passes_body {
        return Rest::Nothing;
    }
    match &*r.body.stored().borrow() {
        Stored::Empty => Rest::Nothing,
        Stored::Memory(m) if m.len() <= INLINE_BODY_BYTES_MAX => {
            out.extend_from_slice(m);
            Rest::Nothing
        }
        Stored::Memory(_) | Stored::File(_) => Rest::Body,
    }
}

fn write_set_header(
    r: &Request,
    x: &Exchange,
    name: &[u8],
    value: &HeaderValue,
    set_body_len: Option<usize>,
    out: &mut Vec<u8>,
) {
    let before = out.len();
    out.put_slice(name);
    out.put_slice(b": ");
    let start = out.len();
    match value {
        HeaderValue::Text(v) => v.eval(r, out),
        HeaderValue::ProxyHost => out.put_slice(&x.target.host),
        HeaderValue::ContentLength => {
            if let Some(n) = set_body_len {
                encode::write_number(out, n as u64);
            } else if r.body.framing() != Framing::None
                || !r.body.is_empty()
                || r.headers_in.has(KnownHeader::ContentLength)
            {
                encode::write_number(out, r.body.len());
            }
        }
    }
    if out.len() == start {
        out.truncate(before);
        return;
    }
    harmless(out, start);
    out.put_slice(b"\r\n");
}

/// Line ends and NULs that variables bring in, which would let a value begin a field of its own, become spaces.
fn harmless(out: &mut [u8], start: usize) {
    if memchr::memchr3(b'\r', b'\n', 0, &out[start..]).is_some() {
        out[start..].iter_mut().filter(|b| matches!(b, b'\r' | b'\n' | 0)).for_each(|b| *b = b' ');
    }
}
