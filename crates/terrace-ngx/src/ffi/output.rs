//! `ngx.print`, `ngx.say`, `ngx.flush`, `ngx.eof`, `ngx.send_headers`, and leaving a phase by `ngx.exit`, `ngx.exec`.

use std::ffi::c_int;
use std::rc::Rc;

use bytes::Bytes;
use smallvec::smallvec;
use terrace_base::log::Level;
use terrace_http::output::Mode;
use terrace_http::subrequest::parse_uri;
use terrace_http::{Chunk, Request, Step};
use terrace_lua::{Value, Values, pending};

use super::{AWAIT, BAD_CONTEXT, DONE, NO_REQUEST, bytes, functions};
use crate::host::{Leave, current};
use crate::phase::RESPONDING;
use crate::yielding::capture::join_args;

functions! {
    "int (*print_now)(const char *, size_t, int)" => print_now,
    "int (*exec)(const char *, size_t, const char *, size_t)" => exec,
    "int (*jump)(void)" => jump,
}

/// `ngx.eof()` was called before.
pub const SEEN_EOF: c_int = -2;
/// The client is gone.
pub const CLIENT_GONE: c_int = -3;
/// The script has taken the connection over.
pub const TAKEN_OVER: c_int = -4;
/// The request is for the header alone.
pub const HEADER_ONLY: c_int = -5;
/// There is nothing to flush.
pub const NOTHING: c_int = -6;
/// The response is held back for its length.
pub const BUFFERING: c_int = -7;
/// Filters look at the response, which may be Lua code: nothing was done.
const FILTERED: c_int = 2;
/// The URI leads out of the root.
const UNSAFE_URI: c_int = -2;

/// Calls `f` where a response may be made and is not over yet, after it was prepared.
fn responding(f: impl FnOnce(&Rc<Request>) -> c_int) -> c_int {
    current(|h| {
        if !h.is_in(RESPONDING) {
            return BAD_CONTEXT;
        }
        h.start.apply(&h.request);
        f(&h.request)
    })
    .unwrap_or(NO_REQUEST)
}

/// Why nothing more may be written to a response that is over.
fn over(r: &Request) -> c_int {
    if r.output.is_taken_over() { TAKEN_OVER } else { SEEN_EOF }
}

/// Nothing is written, but the response has begun.
fn header_alone(r: &Rc<Request>) -> c_int {
    let _ = r.can_write_now();
    HEADER_ONLY
}

/// Writes where nothing but the connection's buffer is between; else [`FILTERED`].
extern "C" fn print_now(data: *const u8, len: usize, newline: c_int) -> c_int {
    // SAFETY: a Lua string.
    write(unsafe { bytes(data, len) }, newline != 0, |_, _, _| FILTERED)
}

/// May run filters, and so Lua code: not to be called through a pointer, as traces do. So may what follows but `exec` and
/// `jump`.
pub fn print(data: &[u8], newline: bool) -> c_int {
    write(data, newline, |r, data, end| {
        let data = Bytes::from([data, end].concat());
        wait_for(r.send(Chunk { data, ..Chunk::default() }))
    })
}

#[inline]
fn write(data: &[u8], newline: bool, filtered: impl FnOnce(&Rc<Request>, &[u8], &[u8]) -> c_int) -> c_int {
    responding(|r| {
        if r.output.is_finished() {
            return over(r);
        }
        if r.header_only.get() {
            return header_alone(r);
        }
        let end: &[u8] = if newline { b"\n" } else { b"" };
        if r.can_write_now() {
            return if r.write_now(data, end) { DONE } else { CLIENT_GONE };
        }
        filtered(r, data, end)
    })
}

/// Answers at once where nothing waits; else records the wait.
fn wait_for(step: Step<bool>) -> c_int {
    match step {
        Step::Ready(true) => DONE,
        Step::Ready(false) => CLIENT_GONE,
        Step::Wait(f) => {
            pending::set(Box::pin(async move { sent(f.await) }));
            AWAIT
        }
    }
}

fn sent(ok: bool) -> Values {
    match ok {
        true => smallvec![Value::Number(1.0)],
        false => smallvec![Value::Nil, Value::from("nginx output filter error")],
    }
}

pub fn flush(wait: bool) -> c_int {
    responding(|r| {
        if r.output.is_finished() {
            return over(r);
        }
        if !r.output.is_started() {
            return NOTHING;
        }
        if r.header_only.get() {
            return header_alone(r);
        }
        if r.output.mode() == Mode::Held {
            return BUFFERING;
        }
        let step = r.send(Chunk { flush: true, ..Chunk::default() });
        match step {
            Step::Ready(true) => DONE,
            Step::Ready(false) => CLIENT_GONE,
            Step::Wait(f) if wait => {
                pending::set(Box::pin(async move { sent(f.await) }));
                AWAIT
            }
            // What is left goes out while the code waits for something else, or at its end.
            Step::Wait(_) => DONE,
        }
    })
}

pub fn eof() -> c_int {
    responding(|r| {
        if r.output.is_finished() {
            return over(r);
        }
        let step = r.finish();
        if let Some(client) = r.client.as_ref().filter(|_| !r.is_subrequest()) {
            // The client has its response while the code goes on.
            client.write_pending();
        }
        wait_for(step)
    })
}

pub fn send_headers() -> c_int {
    responding(|r| {
        if r.output.is_taken_over() {
            return TAKEN_OVER;
        }
        wait_for(r.send_header().map(|()| true))
    })
}

extern "C" fn exec(uri: *const u8, uri_len: usize, args: *const u8, args_len: usize) -> c_int {
    // SAFETY: Lua strings.
    let (uri, args) = unsafe { (bytes(uri, uri_len), bytes(args, args_len)) };
    current(|h| {
        if !h.is_in(RESPONDING) {
            return BAD_CONTEXT;
        }
        let target = if uri.first() == Some(&b'@') {
            let uri = uri.split(|b| *b == b'?').next().unwrap_or(uri);
            if !args.is_empty() {
                let (args, uri) = (String::from_utf8_lossy(args), String::from_utf8_lossy(uri));
                h.request.log(
                    Level::Warn,
                    format_args!("query strings {args} ignored when exec'ing named location {uri}"),
                );
            }
            Some((uri.to_vec(), Vec::new()))
        } else {
            parse_uri(uri).map(|(path, query)| (path, join_args(query, args)))
        };
        let Some((path, query)) = target else {
            let uri = String::from_utf8_lossy(uri);
            h.request.log(Level::Error, format_args!("unsafe URI \"{uri}\" was detected"));
            return UNSAFE_URI;
        };
        h.leave.set(Leave::Exec(Box::new((path.into(), query.into()))));
        DONE
    })
    .unwrap_or(NO_REQUEST)
}

extern "C" fn jump() -> c_int {
    current(|h| {
        h.request.uri_changed.set(true);
        h.leave.set(Leave::Jump);
        DONE
    })
    .unwrap_or(NO_REQUEST)
}
