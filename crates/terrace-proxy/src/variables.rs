//! `$upstream_*` and `$proxy_*`.

use std::io::Write;

use terrace_http::Request;
use terrace_http::request::UpstreamAttempt;
use terrace_http::vars::VarTable;
use terrace_http1::KnownHeader;

use crate::proxy::exchange::Exchange;

pub(crate) fn define(t: &mut VarTable) {
    t.define("upstream_addr", |r, o| {
        each(r, o, |a, o| {
            o.extend_from_slice(a.address.as_bytes());
        })
    });
    t.define("upstream_status", |r, o| {
        each(r, o, |a, o| match a.status {
            0 => o.push(b'-'),
            s => number(o, u64::from(s)),
        })
    });
    t.define("upstream_response_time", |r, o| each(r, o, |a, o| seconds(o, a.response_ms)));
    t.define("upstream_connect_time", |r, o| each(r, o, |a, o| seconds(o, a.connect_ms)));
    t.define("upstream_header_time", |r, o| each(r, o, |a, o| seconds(o, a.header_ms)));
    t.define("upstream_response_length", |r, o| each(r, o, |a, o| number(o, a.response_bytes)));
    t.define("upstream_bytes_received", |r, o| each(r, o, |a, o| number(o, a.received_bytes)));
    t.define("upstream_bytes_sent", |r, o| each(r, o, |a, o| number(o, a.sent_bytes)));
    t.define("upstream_cache_status", |_, _| false);
    t.define_prefix("upstream_http_", header);
    t.define_prefix("upstream_cookie_", cookie);
    t.define_prefix("upstream_trailer_", |_, _, _| false);
    t.define("proxy_host", |r, o| Exchange::with(r, |x| o.extend_from_slice(&x.target.host)).is_some());
    t.define("proxy_port", |r, o| Exchange::with(r, |x| o.extend_from_slice(&x.target.port)).is_some());
    t.define("proxy_add_x_forwarded_for", forwarded_for);
}

/// One value an attempt: attempts at one target are separated by commas, targets by colons.
fn each(r: &Request, out: &mut Vec<u8>, put: impl Fn(&UpstreamAttempt, &mut Vec<u8>)) -> bool {
    let upstream = r.upstream.borrow();
    let mut separator: &[u8] = b"";
    for a in &upstream.attempts {
        if a.address.is_empty() {
            separator = b" : ";
            continue;
        }
        out.extend_from_slice(separator);
        put(a, out);
        separator = b", ";
    }
    !upstream.attempts.is_empty()
}

fn number(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn seconds(out: &mut Vec<u8>, ms: Option<u64>) {
    match ms {
        // Writing to a Vec does not fail.
        Some(ms) => _ = write!(out, "{}.{:03}", ms / 1000, ms % 1000),
        None => out.push(b'-'),
    }
}

/// The fields of the last response whose name is the variable's, joined with commas.
fn header(r: &Request, name: &[u8], out: &mut Vec<u8>) -> bool {
    let found = Exchange::with(r, |x| {
        let bytes = x.response_head.borrow();
        let head = x.response.borrow();
        let mut found = false;
        for line in head.headers.lines() {
            if is_named(line.name.of(&bytes), name) {
                if std::mem::replace(&mut found, true) {
                    out.extend_from_slice(b", ");
                }
                out.extend_from_slice(line.value.of(&bytes));
            }
        }
        found
    });
    found.unwrap_or(false)
}

/// In any case, with `_` for `-`.
fn is_named(header: &[u8], var: &[u8]) -> bool {
    header.len() == var.len()
        && header.iter().zip(var).all(|(h, v)| {
            let h = if *h == b'-' { b'_' } else { h.to_ascii_lowercase() };
            h == v.to_ascii_lowercase()
        })
}

/// The value of a cookie that the last response set.
fn cookie(r: &Request, name: &[u8], out: &mut Vec<u8>) -> bool {
    let found = Exchange::with(r, |x| {
        let bytes = x.response_head.borrow();
        let head = x.response.borrow();
        for line in head.headers.all(KnownHeader::SetCookie) {
            let pair = line.value.of(&bytes).split(|b| *b == b';').next().unwrap_or_default();
            let Some(at) = memchr::memchr(b'=', pair) else { continue };
            if pair[..at].trim_ascii().eq_ignore_ascii_case(name) {
                out.extend_from_slice(pair[at + 1..].trim_ascii());
                return true;
            }
        }
        false
    });
    found.unwrap_or(false)
}

/// The client's `X-Forwarded-For` with the client's address added.
fn forwarded_for(r: &Request, out: &mut Vec<u8>) -> bool {
    r.headers_in.for_each(|_, value, id| {
        if id == Some(KnownHeader::XForwardedFor) {
            out.extend_from_slice(value);
            out.extend_from_slice(b", ");
        }
    });
    match r.peer_ip() {
        // Writing to a Vec does not fail.
        Some(ip) => _ = write!(out, "{ip}"),
        None => out.extend_from_slice(b"unix:"),
    }
    true
}
