//! `ngx.location.capture` and `ngx.location.capture_multi`: subrequests made one by one, run together, looked at when
//! all have ended. The Lua side describes them; what they answered stays with their parent until it was copied.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use smallvec::smallvec;
use terrace_base::http_date;
use terrace_base::log::Level;
use terrace_http::Request;
use terrace_http::body::{BodyFile, Stored};
use terrace_http::subrequest::{self, Inherit, Subrequest, parse_uri};
use terrace_lua::{Value, pending};

use crate::ffi::pairs::{PairList, Pairs, give_pairs};
use crate::ffi::req::{method_name, put_header};
use crate::ffi::{AWAIT, BAD_CONTEXT, DONE, NO_REQUEST, NOT_FOUND, Text, bytes, context, functions, give};
use crate::host::current;
use crate::phase::HANDSHAKE;

functions! {
    "int (*capture_begin)(void)" => begin,
    "int (*capture_add)(const char *, size_t, const char *, size_t, const char *, size_t, int, int)" => add,
    "int (*capture_header)(const char *, size_t, const char *, size_t)" => header,
    "int (*capture_var)(const char *, size_t, const char *, size_t)" => var,
    "int (*capture_context)(void)" => capture_context,
    "int (*capture_run)(void)" => run,
    "int (*capture_result)(int, int, terrace_text *)" => result,
    "int (*capture_truncated)(int, int)" => truncated,
    "int (*capture_headers)(int, int, terrace_pairs *)" => headers,
    "int (*capture_end)(int)" => end,
}

/// The URI is not one to ask for.
const UNSAFE: c_int = -2;
/// Subrequests nest too deeply.
const TOO_DEEP: c_int = -3;
/// The method, or a variable, is unknown.
const UNKNOWN: c_int = -4;
/// The variable may not be changed.
const NOT_CHANGEABLE: c_int = -5;

/// `always_forward_body`
const FORWARD_BODY: c_int = 1;
/// `copy_all_vars`
const COPY_VARS: c_int = 2;
/// `share_all_vars`
const SHARE_VARS: c_int = 4;

thread_local! {
    /// Subrequests made since `capture_begin`, not yet run.
    static MADE: RefCell<Vec<Rc<Request>>> = const { RefCell::new(Vec::new()) };
}

/// Sets of subrequests that have ended, by number, kept with their parent until the Lua side has copied them.
#[derive(Default)]
struct Ended {
    last: Cell<i32>,
    sets: RefCell<FxHashMap<i32, Vec<Rc<Request>>>>,
}

extern "C" fn begin() -> c_int {
    drop(MADE.take());
    current(|h| if h.is_in(HANDSHAKE) { BAD_CONTEXT } else { DONE }).unwrap_or(NO_REQUEST)
}

/// Makes a subrequest: URI, further arguments, body (null: none of its own), method, flags.
extern "C" fn add(
    uri: *const u8,
    uri_len: usize,
    args: *const u8,
    args_len: usize,
    body: *const u8,
    body_len: usize,
    method: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: Lua strings; the body may be null.
    let (uri, args, data) = unsafe { (bytes(uri, uri_len), bytes(args, args_len), bytes(body, body_len)) };
    let own_body = (!body.is_null()).then_some(data);
    current(|h| {
        let parent = &h.request;
        let Some((path, query)) = parse_uri(uri) else { return UNSAFE };
        let Some(method) = method_name(method) else {
            parent.log(Level::Error, format_args!("unsupported HTTP method: {method}"));
            return UNKNOWN;
        };
        let sub = Subrequest {
            uri: Bytes::from(path),
            args: Bytes::from(join_args(query, args)),
            method: Bytes::from_static(method.as_bytes()),
            body: body_for(parent, own_body, method, flags & FORWARD_BODY != 0),
            vars: match flags {
                f if f & SHARE_VARS != 0 => Inherit::Share,
                f if f & COPY_VARS != 0 => Inherit::Copy,
                _ => Inherit::Nothing,
            },
            bare_errors: true,
        };
        let Some(sub) = subrequest::make(parent, sub) else {
            let uri = String::from_utf8_lossy(uri);
            parent.log(Level::Error, format_args!("lua subrequests cycle while processing \"{uri}\""));
            return TOO_DEEP;
        };
        MADE.with_borrow_mut(|made| made.push(sub));
        DONE
    })
    .unwrap_or(NO_REQUEST)
}

/// The body of a subrequest: its own, or where it is to be forwarded a copy of its parent's.
fn body_for(parent: &Request, own: Option<&[u8]>, method: &str, forward: bool) -> Option<Stored> {
    if let Some(data) = own {
        return Some(if data.is_empty() { Stored::Empty } else { Stored::Memory(data.to_vec()) });
    }
    if !forward && !matches!(method, "PUT" | "POST") {
        return None;
    }
    match &*parent.body.stored().borrow() {
        Stored::Empty => None,
        Stored::Memory(data) => Some(Stored::Memory(data.clone())),
        Stored::File(file) => match BodyFile::open(file.path().to_path_buf(), true) {
            Ok(file) => Some(Stored::File(file)),
            Err(e) => {
                parent.log(Level::Crit, format_args!("opening the request body's file failed: {e}"));
                None
            }
        },
    }
}

/// A query and more of it.
pub fn join_args(query: &[u8], more: &[u8]) -> Vec<u8> {
    let between: &[u8] = if query.is_empty() || more.is_empty() { b"" } else { b"&" };
    [query, between, more].concat()
}

/// Calls `f` with the subrequest made last.
fn last(f: impl FnOnce(&Rc<Request>) -> c_int) -> c_int {
    let sub = MADE.with_borrow(|made| made.last().cloned());
    sub.map_or(NOT_FOUND, |sub| f(&sub))
}

extern "C" fn header(name: *const u8, name_len: usize, value: *const u8, len: usize) -> c_int {
    // SAFETY: Lua strings.
    let (name, value) = unsafe { (bytes(name, name_len), bytes(value, len)) };
    last(|sub| {
        put_header(sub, name, value, false);
        DONE
    })
}

extern "C" fn var(name: *const u8, name_len: usize, value: *const u8, len: usize) -> c_int {
    // SAFETY: Lua strings.
    let (name, value) = unsafe { (bytes(name, name_len), bytes(value, len)) };
    last(|sub| {
        let vars = &sub.generation().vars;
        let shown = String::from_utf8_lossy(name);
        let Some(index) = vars.find(&name.to_ascii_lowercase()) else {
            sub.log(
                Level::Error,
                format_args!(
                    "variable \"{shown}\" cannot be assigned a value (maybe you forgot to define it first?)"
                ),
            );
            return UNKNOWN;
        };
        if vars.set(sub, index, Some(Bytes::copy_from_slice(value))) {
            return DONE;
        }
        sub.log(Level::Error, format_args!("variable \"{shown}\" not changeable"));
        NOT_CHANGEABLE
    })
}

/// The key of the `ngx.ctx` of the subrequest made last.
extern "C" fn capture_context() -> c_int {
    current(|h| last(|sub| context::key_of(sub, &h.lua).0)).unwrap_or(NO_REQUEST)
}

/// Runs what was made. The wait's value is the number under which the answers are found.
extern "C" fn run() -> c_int {
    let made = MADE.take();
    current(|h| {
        let parent = Rc::clone(&h.request);
        pending::set(Box::pin(async move {
            run_all(&made).await;
            let ended = parent.state::<Ended>().unwrap_or_else(|| {
                let new = Rc::new(Ended::default());
                parent.put_state(Rc::clone(&new));
                new
            });
            let id = ended.last.get().wrapping_add(1);
            ended.last.set(id);
            ended.sets.borrow_mut().insert(id, made);
            smallvec![Value::Integer(i64::from(id))]
        }));
        AWAIT
    })
    .unwrap_or(NO_REQUEST)
}

async fn run_all(all: &[Rc<Request>]) {
    if let [one] = all {
        return subrequest::run(one).await;
    }
    let mut running: Vec<Pin<Box<dyn Future<Output = ()> + '_>>> = Vec::with_capacity(all.len());
    for r in all {
        running.push(Box::pin(subrequest::run(r)));
    }
    poll_fn(|cx| {
        running.retain_mut(|f| f.as_mut().poll(cx).is_pending());
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Calls `f` with the `n`th of the subrequests under a number.
fn ended(id: c_int, n: c_int, f: impl FnOnce(&Request) -> c_int) -> c_int {
    let sub = current(|h| {
        let ended = h.request.state::<Ended>()?;
        let sets = ended.sets.borrow();
        sets.get(&id)?.get(usize::try_from(n).ok()?).cloned()
    });
    sub.flatten().map_or(NOT_FOUND, |sub| f(&sub))
}

/// The status; `out` gets the body, which can be had once.
extern "C" fn result(id: c_int, n: c_int, out: *mut Text) -> c_int {
    ended(id, n, |sub| {
        let body = if sub.header_only.get() { Vec::new() } else { sub.output.take_captured() };
        // SAFETY: Lua passes a text of its own.
        unsafe { give(out, |b| *b = body) };
        match sub.headers_out.status.get() {
            0 => 200,
            status => c_int::from(status),
        }
    })
}

/// Whether the response broke off.
extern "C" fn truncated(id: c_int, n: c_int) -> c_int {
    ended(id, n, |sub| c_int::from(sub.output.is_started() && !sub.output.is_finished()))
}

extern "C" fn headers(id: c_int, n: c_int, out: *mut Pairs) -> c_int {
    ended(id, n, |sub| {
        // SAFETY: Lua passes a list of its own.
        unsafe { give_pairs(out, |list| list_headers(sub, list)) };
        DONE
    })
}

fn list_headers(sub: &Request, list: &mut PairList) {
    let h = &sub.headers_out;
    let mut put = |name: &[u8], value: &[u8]| {
        let add = |b: &mut Vec<u8>| {
            b.extend_from_slice(value);
            true
        };
        list.add(|b| b.extend_from_slice(name), add);
    };
    h.for_each(|f| put(&f.name, &f.value));
    if let Some(kind) = h.content_type.borrow().as_deref().filter(|t| !t.is_empty()) {
        put(b"Content-Type", kind);
    }
    if let Some(len) = h.content_length.get() {
        put(b"Content-Length", itoa::Buffer::new().format(len).as_bytes());
    }
    if let Some(at) = h.last_modified.get().filter(|_| matches!(h.status.get(), 200 | 206 | 304 | 204)) {
        put(b"Last-Modified", &http_date::format(at));
    }
}

/// Lets go of the answers under a number.
extern "C" fn end(id: c_int) -> c_int {
    let set = current(|h| h.request.state::<Ended>()?.sets.borrow_mut().remove(&id));
    drop(set);
    DONE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(uri: &str) -> Option<(String, String)> {
        let (path, query) = parse_uri(uri.as_bytes())?;
        Some((String::from_utf8(path).unwrap(), String::from_utf8(query.to_vec()).unwrap()))
    }

    #[test]
    fn uris_of_subrequests() {
        let some = |path: &str, query: &str| Some((path.to_owned(), query.to_owned()));
        assert_eq!(parsed("/a%20b+c?x=%20"), some("/a b+c", "x=%20"));
        assert_eq!(parsed("/a..b/..."), some("/a..b/...", ""));
        assert_eq!(parsed("/100%"), some("/100", ""));
        for refused in ["", "?a", "..", "../x", "/a/../b", "/a/..", "/a/%2e%2e/b", "/%00", "/a\0"] {
            assert_eq!(parsed(refused), None, "{refused}");
        }
    }

    #[test]
    fn arguments_join() {
        assert_eq!(join_args(b"a=1", b"b=2"), b"a=1&b=2");
        assert_eq!(join_args(b"", b"b=2"), b"b=2");
        assert_eq!(join_args(b"a=1", b""), b"a=1");
    }
}
