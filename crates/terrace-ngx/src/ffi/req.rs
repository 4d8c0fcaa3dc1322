//! The request as its client sent it and as scripts change it: `ngx.req.*` but for the body.

use std::ffi::c_int;
use std::rc::Rc;

use bytes::Bytes;
use terrace_base::clock;
use terrace_base::log::Level;
use terrace_http::Request;
use terrace_http1::Version;

use super::encode::add_args;
use super::pairs::{Pairs, give_pairs};
use super::{BAD_CONTEXT, DONE, NO_REQUEST, NOT_FOUND, Text, bytes, functions, give};
use crate::escape::{self, Escape};
use crate::host::current;
use crate::phase::REQUEST;

functions! {
    "int (*req_uri_args)(int, terrace_pairs *)" => uri_args,
    "int (*req_headers)(int, int, terrace_pairs *)" => headers,
    "int (*req_set_header)(const char *, size_t, const char *, size_t, int)" => set_header,
    "int (*req_clear_header)(const char *, size_t)" => clear_header,
    "int (*req_method)(terrace_text *)" => method,
    "int (*req_set_method)(int)" => set_method,
    "int (*req_set_uri)(const char *, size_t)" => set_uri,
    "int (*req_set_args)(const char *, size_t)" => set_args,
    "int (*req_raw_header)(int, terrace_text *)" => raw_header,
    "double (*req_version)(void)" => version,
    "double (*req_start_time)(void)" => start_time,
    "int (*req_is_internal)(void)" => is_internal,
    "int (*unsafe_uri_byte)(const char *, size_t)" => unsafe_uri_byte,
}

/// Calls `f` with the request of a client; in a timer or a worker's start there is none.
pub fn request(f: impl FnOnce(&Rc<Request>) -> c_int) -> c_int {
    current(|h| if h.is_in(REQUEST) { f(&h.request) } else { BAD_CONTEXT }).unwrap_or(NO_REQUEST)
}

/// At most `max` arguments; 0 is all.
extern "C" fn uri_args(max: c_int, out: *mut Pairs) -> c_int {
    request(|r| {
        // SAFETY: Lua passes a list of its own.
        if unsafe { give_pairs(out, |list| add_args(&r.args(), max, list)) } {
            note_limit(r, max);
        }
        DONE
    })
}

/// Tells the log that arguments were left out.
pub fn note_limit(r: &Request, max: c_int) {
    r.log(Level::Debug, format_args!("lua hit query args limit {max}"));
}

/// At most `max` fields (0 is all), their names as sent (`raw`) or in lower case.
extern "C" fn headers(max: c_int, raw: c_int, out: *mut Pairs) -> c_int {
    request(|r| {
        let max = usize::try_from(max).ok().filter(|m| *m > 0).unwrap_or(usize::MAX);
        let mut count = 0;
        let fill = |list: &mut super::pairs::PairList| {
            r.headers_in.for_each(|name, value, _| {
                count += 1;
                if list.len() >= max {
                    list.truncated = true;
                    return;
                }
                let add_name = |b: &mut Vec<u8>| {
                    let start = b.len();
                    b.extend_from_slice(name);
                    if let Some(added) = b.get_mut(start..).filter(|_| raw == 0) {
                        added.make_ascii_lowercase();
                    }
                };
                let add_value = |b: &mut Vec<u8>| {
                    b.extend_from_slice(value);
                    true
                };
                list.add(add_name, add_value);
            });
            list.truncated
        };
        // SAFETY: Lua passes a list of its own.
        if unsafe { give_pairs(out, fill) } {
            r.log(Level::Debug, format_args!("lua exceeding request header limit {count} > {max}"));
        }
        DONE
    })
}

/// Sets a field, replacing all of its name, or with `append` adding to them. Bytes that would break the header's
/// framing are escaped.
extern "C" fn set_header(
    name: *const u8,
    name_len: usize,
    value: *const u8,
    len: usize,
    append: c_int,
) -> c_int {
    // SAFETY: Lua strings.
    let (name, value) = unsafe { (bytes(name, name_len), bytes(value, len)) };
    request(|r| {
        put_header(r, name, value, append != 0);
        DONE
    })
}

/// See [`set_header`].
pub fn put_header(r: &Request, name: &[u8], value: &[u8], append: bool) {
    let (escaped_name, escaped_value);
    let name = if Escape::FieldName.is_clean(name) {
        name
    } else {
        escaped_name = Escape::FieldName.apply(name);
        &escaped_name
    };
    let value = if Escape::FieldValue.is_clean(value) {
        value
    } else {
        escaped_value = Escape::FieldValue.apply(value);
        &escaped_value
    };
    if append {
        r.headers_in.add(name, value);
    } else {
        r.headers_in.set(name, value);
    }
    if name.eq_ignore_ascii_case(b"host") {
        r.set_host(&host_name(value));
    }
}

/// The host of a `Host` field as `$host` has it: in lower case, without the port.
fn host_name(field: &[u8]) -> Vec<u8> {
    let from = if field.first() == Some(&b'[') { memchr::memchr(b']', field).unwrap_or(0) } else { 0 };
    let end = field.iter().skip(from).position(|b| *b == b':').map_or(field.len(), |at| from + at);
    field.iter().take(end).map(u8::to_ascii_lowercase).collect()
}

extern "C" fn clear_header(name: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    let name = unsafe { bytes(name, len) };
    request(|r| {
        r.headers_in.remove(name);
        if name.eq_ignore_ascii_case(b"host") {
            r.set_host(b"");
        }
        DONE
    })
}

extern "C" fn method(out: *mut Text) -> c_int {
    request(|r| {
        // SAFETY: Lua passes a text of its own.
        unsafe { give(out, |b| b.extend_from_slice(&r.method())) };
        DONE
    })
}

/// The name behind an `ngx.HTTP_*` constant.
pub fn method_name(n: c_int) -> Option<&'static str> {
    const NAMES: [&str; 15] = [
        "GET",
        "HEAD",
        "POST",
        "PUT",
        "DELETE",
        "MKCOL",
        "COPY",
        "MOVE",
        "OPTIONS",
        "PROPFIND",
        "PROPPATCH",
        "LOCK",
        "UNLOCK",
        "PATCH",
        "TRACE",
    ];
    let n = u32::try_from(n).ok().filter(|n| n.is_power_of_two())?;
    NAMES.get((n.trailing_zeros() as usize).checked_sub(1)?).copied()
}

extern "C" fn set_method(n: c_int) -> c_int {
    request(|r| {
        let Some(name) = method_name(n) else { return NOT_FOUND };
        r.set_method(Bytes::from_static(name.as_bytes()));
        DONE
    })
}

extern "C" fn set_uri(uri: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    let uri = unsafe { bytes(uri, len) };
    request(|r| {
        r.set_uri(Bytes::copy_from_slice(uri));
        r.internal.set(true);
        r.uri_changed.set(false);
        DONE
    })
}

/// Blanks and control bytes are escaped.
extern "C" fn set_args(args: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    let args = unsafe { bytes(args, len) };
    request(|r| {
        r.set_args(Escape::Query.apply(args));
        DONE
    })
}

/// The head as the client sent it, with or without the request line; a subrequest's is its main request's.
extern "C" fn raw_header(without_line: c_int, out: *mut Text) -> c_int {
    request(|r| {
        let main = r.main();
        let r = main.as_ref().unwrap_or(r);
        let buf = r.headers_in.buffer();
        let len = usize::try_from(r.head_bytes()).unwrap_or(usize::MAX);
        let head = buf.get(..len).unwrap_or(buf);
        // Line ends before the request line belong to no request.
        let blank = head.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        let head = head.get(blank..).unwrap_or_default();
        let line_end = memchr::memchr(b'\n', head).map_or(0, |n| n + 1);
        let head = head.get(if without_line != 0 { line_end } else { 0 }..).unwrap_or_default();
        // SAFETY: Lua passes a text of its own.
        unsafe { give(out, |b| b.extend_from_slice(head)) };
        DONE
    })
}

extern "C" fn version() -> f64 {
    let version = current(|h| h.is_in(REQUEST).then(|| h.request.version.get()));
    match version {
        Some(Some(Version::Http10)) => 1.0,
        Some(Some(Version::Http11)) => 1.1,
        Some(None) => f64::from(BAD_CONTEXT),
        None => f64::from(NO_REQUEST),
    }
}

/// When a request began, kept so that every question has the same answer.
struct Began(f64);

/// Seconds since the epoch.
extern "C" fn start_time() -> f64 {
    let began = |r: &Request| {
        if let Some(known) = r.state::<Began>() {
            return known.0;
        }
        let began = clock::now_ms().saturating_sub(r.elapsed_ms()) as f64 / 1000.0;
        r.put_state(Rc::new(Began(began)));
        began
    };
    current(|h| began(&h.request)).unwrap_or(f64::from(NO_REQUEST))
}

extern "C" fn is_internal() -> c_int {
    request(|r| c_int::from(r.internal.get()))
}

/// A byte that no URI may have; -1 when there is none.
extern "C" fn unsafe_uri_byte(uri: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    escape::unsafe_byte(unsafe { bytes(uri, len) }).map_or(NOT_FOUND, c_int::from)
}

#[cfg(test)]
mod tests {
    use super::method_name;

    #[test]
    fn methods_by_number() {
        assert_eq!(method_name(2), Some("GET"));
        assert_eq!(method_name(16), Some("PUT"));
        assert_eq!(method_name(32768), Some("TRACE"));
        for unknown in [0, 1, 3, -2, 65536] {
            assert_eq!(method_name(unknown), None);
        }
    }
}
