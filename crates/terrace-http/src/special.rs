//! Responses that the server makes itself: `error_page` if there is one, else nginx's short page.

use std::rc::Rc;

use bytes::Bytes;
use terrace_http1::uri::escape_path;

use crate::core::error_page::Target;
use crate::request::Entry;
use crate::{Request, status};

/// Answers with a status. True when the request was redirected within the server and must go on there.
pub async fn respond(r: &Rc<Request>, code: u16) -> bool {
    if r.output.is_started() {
        // Too late for another status: the client must see that what it has is not whole.
        r.abort();
        return false;
    }
    if matches!(code, 400 | 413 | 414 | 494..=497 | 500 | 501) {
        r.keep_alive.set(false);
    }
    let core = &r.location().core;
    if (!r.error_page.get() || core.recursive_error_pages)
        && let Some(page) = core.error_pages.find(code)
    {
        r.error_page.set(true);
        let status = page.status;
        if let Some(redirected) = go_to_error_page(r, code, status, &page.target).await {
            return redirected;
        }
    }
    plain(r, code).await;
    false
}

/// Follows an `error_page`. `None` when it cannot be followed.
async fn go_to_error_page(r: &Rc<Request>, code: u16, status: Option<u16>, target: &Target) -> Option<bool> {
    let keep_headers = r.headers_out.with(b"Location", |v| v.to_vec());
    let wire = if code == status::HEADER_TOO_LARGE { 400 } else { code };
    match target {
        Target::Uri(value) => {
            let uri = value.eval_bytes(r);
            if uri.first() == Some(&b'/') {
                if r.method()[..] != b"HEAD"[..] {
                    r.set_method(&b"GET"[..]);
                }
                // `=` alone (status 0) keeps what the page itself answers with.
                r.headers_out.clear();
                r.error_status(status.unwrap_or(wire));
                let (path, args) = split_args(&uri);
                r.redirect_to_uri(path, args);
                return Some(true);
            }
            let redirect = status.filter(|s| matches!(s, 301 | 302 | 303 | 307 | 308)).unwrap_or(302);
            r.headers_out.set(&b"Location"[..], uri);
            plain(r, redirect).await;
            Some(false)
        }
        Target::Named(name) => {
            r.headers_out.clear();
            r.error_status(status.unwrap_or(wire));
            if let Some(l) = keep_headers {
                r.headers_out.set(&b"Location"[..], l);
            }
            if r.redirect_to_named(name) {
                return Some(true);
            }
            r.set_entry(Entry::Server);
            None
        }
    }
}

fn split_args(uri: &Bytes) -> (Bytes, Bytes) {
    match memchr::memchr(b'?', uri) {
        Some(i) => (uri.slice(..i), uri.slice(i + 1..)),
        None => (uri.clone(), Bytes::new()),
    }
}

/// The server's own page.
async fn plain(r: &Rc<Request>, code: u16) {
    let h = &r.headers_out;
    h.clear_body_fields();
    r.error_status(0);
    h.status.set(shown(code));
    let body = page(code, r);
    if body.is_empty() {
        h.content_length.set((!status::is_bodiless(code)).then_some(0));
    } else {
        h.content_type.replace(Some(Bytes::from_static(b"text/html")));
        h.content_length.set(Some(body.len() as u64));
    }
    r.send(crate::Chunk { data: body, last: true, flush: false }).get().await;
}

/// nginx's own numbers of bad requests are 400 outside.
fn shown(code: u16) -> u16 {
    if (494..=497).contains(&code) { 400 } else { code }
}

fn page(code: u16, r: &Request) -> Bytes {
    let Some(title) = title(code) else { return Bytes::new() };
    let shown = shown(code);
    let name = if r.location().core.server_tokens {
        crate::head_writer::SERVER_FULL
    } else {
        crate::head_writer::SERVER_SHORT
    };
    let (head, detail) = match code {
        494..=497 => ("Bad Request", format!("<center>{title}</center>\r\n")),
        _ => (title, String::new()),
    };
    format!(
        "<html>\r\n<head><title>{shown} {title}</title></head>\r\n<body>\r\n<center><h1>{shown} {head}</h1></center>\r\n\
         {detail}<hr><center>{name}</center>\r\n</body>\r\n</html>\r\n"
    )
    .into()
}

/// The title of nginx's page for a status; statuses without a page have none.
fn title(code: u16) -> Option<&'static str> {
    match code {
        302 => Some("Found"),
        494 => Some("Request Header Or Cookie Too Large"),
        495 => Some("The SSL certificate error"),
        496 => Some("No required SSL certificate was sent"),
        497 => Some("The plain HTTP request was sent to HTTPS port"),
        301 | 303 | 307 | 308 | 400..=416 | 421 | 429 | 500..=505 | 507 => status::reason(code),
        _ => None,
    }
}

/// Sets `Location` for a redirect to a path of this server: absolute with `absolute_redirect on`, as in nginx.
pub fn set_location_header(r: &Request, to: &[u8]) {
    let core = &r.location().core;
    let mut out = Vec::with_capacity(to.len() + 64);
    if core.absolute_redirect && to.first() == Some(&b'/') && !r.is_subrequest() {
        out.extend_from_slice(r.scheme().as_bytes());
        out.extend_from_slice(b"://");
        let host = r.host();
        if core.server_name_in_redirect || host.is_empty() {
            out.extend_from_slice(r.server().core.name().as_bytes());
        } else {
            out.extend_from_slice(&host);
        }
        let port = r.client.as_ref().map_or(0, |c| c.listen().address.port());
        if core.port_in_redirect && port != 0 && port != if r.tls().is_some() { 443 } else { 80 } {
            out.push(b':');
            out.extend_from_slice(itoa::Buffer::new().format(port).as_bytes());
        }
    }
    out.extend_from_slice(to);
    r.headers_out.set(&b"Location"[..], out);
}

/// Sets `Location` for a redirect to the request's own path with a slash behind it.
pub fn set_location_with_slash(r: &Request) {
    let (uri, args) = (r.uri(), r.args());
    let mut to = Vec::with_capacity(uri.len() + args.len() + 2);
    escape_path(&uri, &mut to);
    to.push(b'/');
    if !args.is_empty() {
        to.push(b'?');
        to.extend_from_slice(&args);
    }
    set_location_header(r, &to);
}
