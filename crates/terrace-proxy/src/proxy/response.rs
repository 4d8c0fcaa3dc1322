//! From a server's response to the client's: which header fields pass, and what some of them make the proxy do.

use std::rc::Rc;

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_http::headers_out::Field;
use terrace_http::{Outcome, Request, special};
use terrace_http1::{Framing, HeaderLine, KnownHeader, ResponseHead, reason};

use super::attempts::{Reply, Run};
use super::exchange::Exchange;
use super::headers::Ignored;
use super::settings::Settings;
use super::{body, rewrite, tunnel};

/// Statuses from here on may be intercepted (nginx's `NGX_HTTP_SPECIAL_RESPONSE`).
const INTERCEPTED_FROM: u16 = 300;

/// Answers the client with the server's response.
pub(super) async fn deliver(mut run: Run, mut reply: Reply) -> Outcome {
    let head = Bytes::copy_from_slice(&reply.buf[..reply.at]);
    run.x.response_head.replace(head);
    let (r, x, s) = (Rc::clone(&run.r), Rc::clone(&run.x), std::sync::Arc::clone(&run.s));
    let (status, upgrade) = {
        let head = x.response.borrow();
        (head.status, head.upgrade)
    };
    if status >= INTERCEPTED_FROM
        && s.intercepts_errors
        && r.location().core.error_pages.find(status).is_some()
    {
        if status == 401 {
            copy_selected(&r, &x, |id| id == KnownHeader::WwwAuthenticate);
        }
        body::skip(run, reply);
        return Outcome::Status(status);
    }
    if !s.ignored.contains(Ignored::ACCEL_REDIRECT)
        && let Some(to) = value_of(&x, KnownHeader::XAccelRedirect)
    {
        body::skip(run, reply);
        return accel_redirect(&r, &x, &to);
    }
    if upgrade && !r.headers_in.has(KnownHeader::Upgrade) {
        run.log(
            Level::Error,
            "upstream sent unexpected status 101 while reading response header from upstream",
        );
        body::skip(run, reply);
        return Outcome::Status(502);
    }
    let mut buffers = s.buffers;
    if !s.ignored.contains(Ignored::ACCEL_BUFFERING) {
        match value_of(&x, KnownHeader::XAccelBuffering).as_deref() {
            Some(v) if v.eq_ignore_ascii_case(b"no") => buffers = false,
            Some(v) if v.eq_ignore_ascii_case(b"yes") => buffers = true,
            _ => {}
        }
    }
    run.watch.writes = !buffers;
    copy_head(&s, &r, &x);
    if upgrade {
        return tunnel::run(run, reply).await;
    }
    r.send_header().get().await;
    if !buffers {
        // What is not to wait for more is not to wait for its time either.
        r.lift_limit_rate();
    }
    if r.header_only.get() {
        body::skip(run, reply);
        return Outcome::Done;
    }
    let framing = x.response.borrow().framing;
    body::stream(&run, &mut reply, framing).await;
    body::finish(run, reply);
    Outcome::Done
}

fn value_of(x: &Exchange, id: KnownHeader) -> Option<Bytes> {
    let head = x.response.borrow();
    let line = head.headers.first(id)?;
    Some(x.response_head.borrow().slice(line.value.range()))
}

/// Passes the status and the header fields on.
fn copy_head(s: &Settings, r: &Rc<Request>, x: &Exchange) {
    let head = x.response.borrow();
    let bytes = x.response_head.borrow();
    let out = &r.headers_out;
    out.status.set(head.status);
    let text = head.reason.of(&bytes);
    if reason(head.status).is_none_or(|r| r.as_bytes() != text) {
        out.status_line.replace(Some(bytes.slice(head.status_line.range())));
    }
    for line in head.headers.lines() {
        if !s.hidden.contains(line.id, line.name.of(&bytes)) {
            copy_field(s, r, line, &bytes, head.status);
        }
    }
    if !s.ignored.contains(Ignored::ACCEL_LIMIT_RATE)
        && let Some(value) = head.headers.value(&bytes, KnownHeader::XAccelLimitRate)
        && let Some(rate) = terrace_base::units::parse_number(value)
    {
        r.set_limit_rate(rate);
    }
    out.content_length.set(content_length(&head, &bytes));
    if s.forces_ranges {
        out.allow_ranges.set(true);
    }
}

fn content_length(head: &ResponseHead, bytes: &[u8]) -> Option<u64> {
    match head.framing {
        Framing::Length(n) => Some(n),
        Framing::Chunked | Framing::UntilClose => None,
        // What a GET would have: told to the client that sent a HEAD.
        Framing::None => {
            let value = head.headers.value(bytes, KnownHeader::ContentLength)?;
            std::str::from_utf8(value).ok()?.parse().ok()
        }
    }
}

fn copy_field(s: &Settings, r: &Rc<Request>, line: &HeaderLine, bytes: &Bytes, status: u16) {
    let value = bytes.slice(line.value.range());
    let value = match line.id {
        Some(
            KnownHeader::ContentLength
            | KnownHeader::TransferEncoding
            | KnownHeader::Connection
            | KnownHeader::KeepAlive,
        ) => return,
        Some(KnownHeader::Upgrade) if status != 101 => return,
        Some(KnownHeader::AcceptRanges) if s.forces_ranges => return,
        Some(KnownHeader::ContentType) => {
            r.headers_out.content_type.replace(Some(value));
            return;
        }
        Some(KnownHeader::Location) => match rewrite::redirect(s, r, &value, 0) {
            Some(to) if to.first() == Some(&b'/') => {
                special::set_location_header(r, &to);
                return;
            }
            Some(to) => to.into(),
            None => value,
        },
        Some(KnownHeader::Refresh) => {
            let at = memchr::memmem::find(&value.to_ascii_lowercase(), b"url=").map(|i| i + 4);
            let rewritten = at.and_then(|at| rewrite::redirect(s, r, &value, at));
            rewritten.map_or(value, Bytes::from)
        }
        Some(KnownHeader::SetCookie) => rewrite::cookie(s, r, &value).map_or(value, Bytes::from),
        _ => value,
    };
    let name = bytes.slice(line.name.range());
    r.headers_out.edit(|fields| fields.push(Field { name, value, id: line.id }));
}

/// Copies only the fields that `wanted` names.
fn copy_selected(r: &Request, x: &Exchange, wanted: impl Fn(KnownHeader) -> bool) {
    let head = x.response.borrow();
    let bytes = x.response_head.borrow();
    for line in head.headers.lines().iter().filter(|l| l.id.is_some_and(&wanted)) {
        let (name, value) = (bytes.slice(line.name.range()), bytes.slice(line.value.range()));
        if line.id == Some(KnownHeader::ContentType) {
            r.headers_out.content_type.replace(Some(value));
        } else {
            r.headers_out.edit(|fields| fields.push(Field { name, value, id: line.id }));
        }
    }
}

/// `X-Accel-Redirect`: the response comes from elsewhere in this server, with some fields of this one.
fn accel_redirect(r: &Rc<Request>, x: &Exchange, to: &Bytes) -> Outcome {
    use KnownHeader::{AcceptRanges, CacheControl, ContentDisposition, ContentType, Expires, SetCookie};
    copy_selected(r, x, |id| {
        matches!(id, AcceptRanges | CacheControl | ContentDisposition | ContentType | Expires | SetCookie)
    });
    if r.method()[..] != b"HEAD"[..] {
        r.set_method(&b"GET"[..]);
    }
    if to.first() == Some(&b'@') {
        if r.redirect_to_named(to) {
            return Outcome::Redirected;
        }
        let name = String::from_utf8_lossy(to).into_owned();
        r.log(Level::Error, format_args!("could not find named location \"{name}\""));
        return Outcome::Status(500);
    }
    let mut normal = Vec::new();
    let Ok(parts) = terrace_http1::uri::normalize(to, &mut normal, true) else {
        let shown = String::from_utf8_lossy(to).into_owned();
        r.log(Level::Error, format_args!("unsafe URI \"{shown}\" was detected"));
        return Outcome::Status(404);
    };
    let path = Bytes::copy_from_slice(parts.path(to, &normal));
    let args = parts.args.map_or(Bytes::new(), |a| to.slice(a.range()));
    r.redirect_to_uri(path, args);
    Outcome::Redirected
}
