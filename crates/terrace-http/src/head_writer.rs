//! Writes a response's head in nginx's order: status line, Server, Date, Content-Type, Content-Length,
//! Last-Modified, Transfer-Encoding, Connection, then all other fields.

use std::cell::RefCell;

use terrace_base::{clock, http_date};
use terrace_http1::KnownHeader;

use crate::Request;

/// What Terrace calls itself with `server_tokens on`.
pub const SERVER_FULL: &str = concat!("terrace/", env!("CARGO_PKG_VERSION"));
/// And with `server_tokens off`.
pub const SERVER_SHORT: &str = "terrace";

const SERVER_LINE_FULL: &[u8] = concat!("\r\nServer: terrace/", env!("CARGO_PKG_VERSION")).as_bytes();
const SERVER_LINE_SHORT: &[u8] = b"\r\nServer: terrace";
/// Room for a usual head.
const HEAD_BYTES: usize = 512;

/// Appends the head of the response.
pub(crate) fn write(r: &Request, chunked: bool, out: &mut Vec<u8>) {
    let h = &r.headers_out;
    let core = &r.location().core;
    let fields = h.fields();
    let has = |name| fields.iter().any(|f| f.id == Some(name));
    let is_own = |name| !has(name) && !h.omitted.get().has(name);
    out.reserve(HEAD_BYTES);
    // Each part brings the line end of the one before it.
    let is_ok = h.status.get() == 200 && h.status_line.borrow().is_none();
    if !is_ok {
        status_line(r, out);
    }
    if is_own(KnownHeader::Server) && is_own(KnownHeader::Date) {
        append_opening(is_ok, core.server_tokens, out);
    } else {
        if is_ok {
            out.extend_from_slice(OK_LINE);
        }
        if is_own(KnownHeader::Server) {
            out.extend_from_slice(server_line(core.server_tokens));
        }
        if is_own(KnownHeader::Date) {
            out.extend_from_slice(&date_line());
        }
    }
    if let Some(t) = h.content_type.borrow().as_deref().filter(|t| !t.is_empty()) {
        out.extend_from_slice(b"\r\nContent-Type: ");
        out.extend_from_slice(t);
    }
    if let Some(n) = h.content_length.get() {
        out.extend_from_slice(b"\r\nContent-Length: ");
        out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
    }
    // An error page's file is not what was asked for.
    if let Some(t) = h.last_modified.get().filter(|_| matches!(h.status.get(), 200 | 204 | 206 | 304)) {
        field(b"Last-Modified", &http_date::format(t), out);
    }
    if chunked {
        out.extend_from_slice(b"\r\nTransfer-Encoding: chunked");
    }
    if h.status.get() == 101 {
        out.extend_from_slice(b"\r\nConnection: upgrade");
    } else if !r.keep_alive.get() {
        out.extend_from_slice(b"\r\nConnection: close");
    } else {
        out.extend_from_slice(b"\r\nConnection: keep-alive");
        if let Some(secs) = core.keepalive_header_secs {
            out.extend_from_slice(b"\r\nKeep-Alive: timeout=");
            out.extend_from_slice(itoa::Buffer::new().format(secs).as_bytes());
        }
    }
    fields.iter().for_each(|f| field(&f.name, &f.value, out));
    if h.allow_ranges.get() && h.status.get() == 200 && !has(KnownHeader::AcceptRanges) {
        out.extend_from_slice(b"\r\nAccept-Ranges: bytes");
    }
    out.extend_from_slice(b"\r\n\r\n");
}

const OK_LINE: &[u8] = b"HTTP/1.1 200 OK";

/// The lines that nearly every response begins with, as they are in one second.
struct Opening {
    second: u64,
    server_tokens: bool,
    lines: Vec<u8>,
}

thread_local! {
    static OPENING: RefCell<Opening> =
        const { RefCell::new(Opening { second: u64::MAX, server_tokens: false, lines: Vec::new() }) };
}

/// Appends Server and Date, `with_ok` behind the status line of 200.
fn append_opening(with_ok: bool, server_tokens: bool, out: &mut Vec<u8>) {
    OPENING.with_borrow_mut(|opening| {
        let second = clock::now_secs();
        if opening.second != second || opening.server_tokens != server_tokens {
            opening.renew(second, server_tokens);
        }
        let from = if with_ok { 0 } else { OK_LINE.len() };
        out.extend_from_slice(opening.lines.get(from..).unwrap_or_default());
    });
}

impl Opening {
    #[cold]
    fn renew(&mut self, second: u64, server_tokens: bool) {
        self.lines.clear();
        self.lines.extend_from_slice(OK_LINE);
        self.lines.extend_from_slice(server_line(server_tokens));
        self.lines.extend_from_slice(&date_line());
        self.second = second;
        self.server_tokens = server_tokens;
    }
}

fn server_line(server_tokens: bool) -> &'static [u8] {
    if server_tokens { SERVER_LINE_FULL } else { SERVER_LINE_SHORT }
}

fn date_line() -> [u8; 37] {
    let mut line = *b"\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT";
    line[8..37].copy_from_slice(&clock::http_date());
    line
}

fn status_line(r: &Request, out: &mut Vec<u8>) {
    let status = match r.headers_out.status.get() {
        s @ 494..=499 => {
            if s == 499 {
                499
            } else {
                400
            }
        }
        s => s,
    };
    if let Some(line) = r.headers_out.status_line.borrow().as_deref() {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(line);
    } else if let Some(line) = terrace_http1::status_line(status) {
        out.extend_from_slice(line);
    } else {
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(itoa::Buffer::new().format(status).as_bytes());
        out.push(b' ');
    }
}

/// A field. [`crate::headers_out`] keeps line ends out of names and values.
fn field(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
}
