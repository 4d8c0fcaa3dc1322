//! nginx's core variables (the list at the end of ngx_http_core_module's documentation).

use std::io::Write;
use std::net::IpAddr;

use terrace_base::clock;
use terrace_http1::{Framing, KnownHeader, Version};
use terrace_net::Address;

use crate::Request;
use crate::body::Stored;
use crate::core::server_conf::hostname;
use crate::vars::VarTable;

/// nginx's version that Terrace follows, for scripts and configurations that look (`$nginx_version`).
pub const NGINX_VERSION: &str = "1.27.1";

pub(crate) fn define(t: &mut VarTable) {
    define_request(t);
    define_connection(t);
    define_response(t);
    define_server(t);
    t.define_prefix("arg_", |r, name, out| append_arg(&r.args(), name, out));
    t.define_prefix("http_", header_in);
    t.define_prefix("sent_http_", header_out);
    t.define_prefix("sent_trailer_", |_, _, _| false);
    t.define_prefix("cookie_", cookie);
}

fn put(out: &mut Vec<u8>, text: &[u8]) -> bool {
    out.extend_from_slice(text);
    true
}

fn print(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> bool {
    // Writing to a Vec does not fail.
    let _ = out.write_fmt(text);
    true
}

fn known(r: &Request, id: KnownHeader, out: &mut Vec<u8>) -> bool {
    r.headers_in.with(id, |v| out.extend_from_slice(v)).is_some()
}

fn define_request(t: &mut VarTable) {
    // Without a query there is no value, which logs show as `-`.
    fn args(r: &Request, out: &mut Vec<u8>) -> bool {
        put(out, &r.args()) && !r.args().is_empty()
    }
    t.define_changeable("args", args, |r, v| r.set_args(v.to_vec()));
    t.define("query_string", args);
    t.define("is_args", |r, o| put(o, if r.args().is_empty() { b"" } else { b"?" }));
    t.define("uri", |r, o| put(o, &r.uri()));
    t.define("document_uri", |r, o| put(o, &r.uri()));
    t.define("request_uri", |r, o| {
        r.target_as_sent(o);
        true
    });
    t.define("request", |r, o| put(o, r.main().as_deref().unwrap_or(r).line()));
    t.define("request_method", |r, o| put(o, &r.main().as_deref().unwrap_or(r).method()));
    t.define("scheme", |r, o| put(o, r.scheme().as_bytes()));
    t.define("https", |r, o| put(o, if r.tls().is_some() { b"on" } else { b"" }));
    t.define("host", |r, o| {
        let host = r.host();
        put(
            o,
            &if host.is_empty() {
                r.server().core.name().as_bytes().to_vec()
            } else {
                host.to_ascii_lowercase()
            },
        )
    });
    t.define("server_protocol", |r, o| {
        put(o, if r.version.get() == Version::Http10 { b"HTTP/1.0" } else { b"HTTP/1.1" })
    });
    t.define("content_length", |r, o| known(r, KnownHeader::ContentLength, o));
    t.define("content_type", |r, o| known(r, KnownHeader::ContentType, o));
    t.define("remote_user", remote_user);
    t.define("request_body", |r, o| match &*r.body.stored().borrow() {
        Stored::Memory(m) => put(o, m),
        Stored::Empty | Stored::File(_) => false,
    });
    t.define("request_body_file", |r, o| match &*r.body.stored().borrow() {
        Stored::File(f) => put(o, f.path().as_os_str().as_encoded_bytes()),
        Stored::Empty | Stored::Memory(_) => false,
    });
    t.define("request_filename", |r, o| put(o, &r.filename(&r.uri())));
    t.define("document_root", |r, o| put(o, &r.location().core.root_path(r)));
    t.define("realpath_root", |r, o| {
        let root = String::from_utf8_lossy(&r.location().core.root_path(r)).into_owned();
        std::fs::canonicalize(root).is_ok_and(|p| put(o, p.as_os_str().as_encoded_bytes()))
    });
    t.define("request_length", |r, o| {
        let body = match r.body.framing() {
            Framing::Length(n) => n,
            _ => r.body.len(),
        };
        print(o, format_args!("{}", r.head_bytes() + body))
    });
    t.define("request_time", |r, o| seconds(o, r.elapsed_ms()));
    t.define("request_id", |r, o| put(o, r.id().as_bytes()));
}

fn define_connection(t: &mut VarTable) {
    t.define("remote_addr", |r, o| match r.peer_ip() {
        Some(ip) => print(o, format_args!("{ip}")),
        None => r.client.is_some() && put(o, b"unix:"),
    });
    t.define("binary_remote_addr", |r, o| match r.peer_ip() {
        Some(IpAddr::V4(ip)) => put(o, &ip.octets()),
        Some(IpAddr::V6(ip)) => put(o, &ip.octets()),
        None => false,
    });
    t.define("remote_port", |r, o| match r.client.as_ref().map(|c| &c.peer) {
        Some(Address::Ip(a)) => print(o, format_args!("{}", a.port())),
        _ => false,
    });
    t.define("server_addr", |r, o| match r.client.as_ref().and_then(|c| c.stream.local_address().ok()) {
        Some(Address::Ip(a)) => print(o, format_args!("{}", a.ip())),
        Some(a @ Address::Unix(_)) => print(o, format_args!("{a}")),
        None => false,
    });
    t.define("server_port", |r, o| {
        r.client.as_ref().is_some_and(|c| print(o, format_args!("{}", c.listen().address.port())))
    });
    t.define("connection", |r, o| r.client.as_ref().is_some_and(|c| print(o, format_args!("{}", c.number))));
    t.define("connection_requests", |r, o| {
        r.client.as_ref().is_some_and(|c| print(o, format_args!("{}", c.requests.get())))
    });
    t.define("connection_time", |r, o| {
        r.client.as_ref().is_some_and(|c| seconds(o, clock::monotonic_ms().saturating_sub(c.accepted_ms)))
    });
    t.define("pipe", |r, o| {
        put(o, if r.client.as_ref().is_some_and(|c| c.is_pipelined()) { b"p" } else { b"." })
    });
}

fn define_response(t: &mut VarTable) {
    t.define("status", |r, o| {
        let status = match (r.forced_status(), r.headers_out.status.get()) {
            (0, 0) if r.line().is_empty() => 9,
            (0, sent) => sent,
            (of_error, _) => of_error,
        };
        print(o, format_args!("{status:03}"))
    });
    t.define("body_bytes_sent", |r, o| print(o, format_args!("{}", r.body_bytes_sent())));
    t.define("bytes_sent", |r, o| print(o, format_args!("{}", r.output.head_bytes() + r.body_bytes_sent())));
    t.define("request_completion", |r, o| put(o, if r.output.is_finished() { b"OK" } else { b"" }));
}

fn define_server(t: &mut VarTable) {
    t.define("server_name", |r, o| put(o, r.server().core.name().as_bytes()));
    t.define("hostname", |_, o| put(o, hostname().as_bytes()));
    t.define("pid", |_, o| print(o, format_args!("{}", std::process::id())));
    t.define("nginx_version", |_, o| put(o, NGINX_VERSION.as_bytes()));
    t.define("msec", |_, o| seconds(o, clock::now_ms()));
    t.define("time_iso8601", |_, o| put(o, &clock::iso8601()));
    t.define("time_local", |_, o| put(o, &clock::clf_time()));
}

/// Milliseconds as seconds with three decimals.
fn seconds(out: &mut Vec<u8>, ms: u64) -> bool {
    print(out, format_args!("{}.{:03}", ms / 1000, ms % 1000))
}

/// Appends the value of an argument of a query string, as it stands there. Names compare in any case, as in nginx.
pub fn append_arg(args: &[u8], name: &[u8], out: &mut Vec<u8>) -> bool {
    for pair in args.split(|b| *b == b'&') {
        let mut parts = pair.splitn(2, |b| *b == b'=');
        if parts.next().is_some_and(|n| n.eq_ignore_ascii_case(name))
            && let Some(v) = parts.next()
        {
            return put(out, v);
        }
    }
    false
}

/// Whether a header's name is the variable's: in any case, with `_` for `-`.
fn is_named(header: &[u8], var: &[u8]) -> bool {
    header.len() == var.len()
        && header.iter().zip(var).all(|(h, v)| {
            let h = if *h == b'-' { b'_' } else { h.to_ascii_lowercase() };
            h == v.to_ascii_lowercase()
        })
}

/// Several fields of one name are joined with `, ` (`; ` for cookies), as nginx does since 1.23.
fn header_in(r: &Request, name: &[u8], out: &mut Vec<u8>) -> bool {
    let separator: &[u8] = if name == b"cookie" { b"; " } else { b", " };
    let mut found = false;
    r.headers_in.for_each(|n, v, _| {
        if is_named(n, name) {
            if std::mem::replace(&mut found, true) {
                out.extend_from_slice(separator);
            }
            out.extend_from_slice(v);
        }
    });
    found
}

fn header_out(r: &Request, name: &[u8], out: &mut Vec<u8>) -> bool {
    let h = &r.headers_out;
    match name {
        b"content_type" => return h.content_type.borrow().as_deref().is_some_and(|t| put(out, t)),
        b"content_length" => return h.content_length.get().is_some_and(|n| print(out, format_args!("{n}"))),
        b"last_modified" if h.last_modified.get().is_some() => {
            return h.last_modified.get().is_some_and(|t| put(out, &terrace_base::http_date::format(t)));
        }
        b"connection" => return put(out, if r.keep_alive.get() { b"keep-alive" } else { b"close" }),
        b"transfer_encoding" if r.output.mode() == crate::output::Mode::Chunked => {
            return put(out, b"chunked");
        }
        _ => {}
    }
    let mut found = false;
    h.for_each(|f| {
        if is_named(&f.name, name) {
            if std::mem::replace(&mut found, true) {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(&f.value);
        }
    });
    found
}

fn cookie(r: &Request, name: &[u8], out: &mut Vec<u8>) -> bool {
    let mut value = None;
    r.headers_in.for_each(|_, v, id| {
        if id != Some(KnownHeader::Cookie) || value.is_some() {
            return;
        }
        for pair in v.split(|b| *b == b';') {
            let pair = pair.trim_ascii_start();
            let mut parts = pair.splitn(2, |b| *b == b'=');
            if parts.next().is_some_and(|n| n.eq_ignore_ascii_case(name))
                && let Some(v) = parts.next()
            {
                value = Some(v.to_vec());
                return;
            }
        }
    });
    value.is_some_and(|v| put(out, &v))
}

/// The user name of `Authorization: Basic`.
fn remote_user(r: &Request, out: &mut Vec<u8>) -> bool {
    let decoded = r.headers_in.with(KnownHeader::Authorization, |v| {
        let (scheme, rest) = v.split_at_checked(6)?;
        if !scheme.eq_ignore_ascii_case(b"basic ") {
            return None;
        }
        base64_decode(rest.trim_ascii())
    });
    let Some(decoded) = decoded.flatten() else { return false };
    let user = decoded.split(|b| *b == b':').next().unwrap_or_default();
    !user.is_empty() && put(out, user)
}

fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}
