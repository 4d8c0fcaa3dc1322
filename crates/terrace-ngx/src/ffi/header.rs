//! The response's header: `ngx.header`, `ngx.status`, `ngx.resp.*`.

use std::ffi::c_int;

use bytes::Bytes;
use terrace_base::http_date;
use terrace_base::log::Level;
use terrace_http::Request;
use terrace_http::output::Mode;
use terrace_http1::KnownHeader;

use super::{BAD_CONTEXT, DONE, NO_REQUEST, NOT_FOUND, Text, bytes, functions, give};
use crate::escape::Escape;
use crate::host::current;
use crate::phase::REQUEST;

functions! {
    "int (*status)(void)" => status,
    "int (*set_status)(int)" => set_status,
    "int (*set_reason)(const char *, size_t)" => set_reason,
    "int (*header_set)(const char *, size_t, const char *, size_t, int)" => header_set,
    "int (*header_clear)(const char *, size_t)" => header_clear,
    "int (*header_get)(const char *, size_t, int, terrace_text *)" => header_get,
    "int (*header_at)(int, terrace_text *, terrace_text *)" => header_at,
    "int (*transform_underscores)(void)" => transform_underscores,
    "int (*bypass_conditions)(void)" => bypass_conditions,
}

/// The header is out already.
const SENT: c_int = -2;
/// The value is none that this field can have.
const INVALID: c_int = -3;

fn request(f: impl FnOnce(&Request) -> c_int) -> c_int {
    current(|h| if h.is_in(REQUEST) { f(&h.request) } else { BAD_CONTEXT }).unwrap_or(NO_REQUEST)
}

extern "C" fn status() -> c_int {
    // In an error page's code the status is the error's until another is set.
    request(|r| match r.forced_status() {
        0 => c_int::from(r.headers_out.status.get()),
        forced => c_int::from(forced),
    })
}

/// Sets the words behind the status; a status comes first.
extern "C" fn set_reason(text: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(text, len) };
    request(|r| {
        let text: Vec<u8> = text.iter().copied().filter(|b| !b.is_ascii_control()).collect();
        let mut line = format!("{:03} ", r.headers_out.status.get()).into_bytes();
        line.extend_from_slice(&text);
        r.headers_out.status_line.replace(Some(line.into()));
        DONE
    })
}

extern "C" fn set_status(code: c_int) -> c_int {
    request(|r| {
        if r.output.is_started() && current(|h| h.phase) != Some(crate::phase::LuaPhase::HeaderFilter) {
            r.log(Level::Error, format_args!("attempt to set ngx.status after sending out response headers"));
            return SENT;
        }
        r.error_status(0);
        r.headers_out.status.set(u16::try_from(code).unwrap_or(0));
        r.headers_out.status_line.take();
        DONE
    })
}

fn is_late(r: &Request) -> bool {
    r.output.is_started() && current(|h| h.phase) != Some(crate::phase::LuaPhase::HeaderFilter)
}

/// Sets a field, replacing all of its name, or with `append` adding to them.
extern "C" fn header_set(
    name: *const u8,
    name_len: usize,
    value: *const u8,
    len: usize,
    append: c_int,
) -> c_int {
    // SAFETY: Lua strings.
    let (name, value) = unsafe { (bytes(name, name_len), bytes(value, len)) };
    request(|r| {
        if is_late(r) {
            r.log(
                Level::Error,
                format_args!("attempt to set ngx.header.HEADER after sending out response headers"),
            );
            return SENT;
        }
        let h = &r.headers_out;
        let (name, value) = (Escape::FieldName.apply(name), Bytes::from(Escape::FieldValue.apply(value)));
        if name.eq_ignore_ascii_case(b"content-type") {
            h.content_type.replace(Some(terrace_http::headers_out::clean(value)));
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let Some(length) = std::str::from_utf8(&value).ok().and_then(|t| t.trim().parse().ok()) else {
                return INVALID;
            };
            h.content_length.set(Some(length));
        } else if name.eq_ignore_ascii_case(b"last-modified") {
            h.last_modified.set(http_date::parse(&value));
        } else if append != 0 {
            h.add(name, value);
        } else {
            h.set(name, value);
        }
        DONE
    })
}

extern "C" fn header_clear(name: *const u8, name_len: usize) -> c_int {
    // SAFETY: a Lua string.
    let name = unsafe { bytes(name, name_len) };
    request(|r| {
        if is_late(r) {
            r.log(
                Level::Error,
                format_args!("attempt to set ngx.header.HEADER after sending out response headers"),
            );
            return SENT;
        }
        let h = &r.headers_out;
        if name.eq_ignore_ascii_case(b"content-type") {
            // An empty type keeps the default from coming back.
            h.content_type.replace(Some(Bytes::new()));
        } else if name.eq_ignore_ascii_case(b"content-length") {
            h.content_length.set(None);
        } else if name.eq_ignore_ascii_case(b"last-modified") {
            h.last_modified.set(None);
        } else if name.eq_ignore_ascii_case(b"accept-ranges") {
            h.allow_ranges.set(false);
        } else if let Some(id @ (KnownHeader::Server | KnownHeader::Date)) = KnownHeader::from_name(name) {
            h.omit(id);
        }
        h.remove(name);
        DONE
    })
}

/// The value of the field of this name, the `n`th of several from 0.
extern "C" fn header_get(name: *const u8, name_len: usize, n: c_int, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let name = unsafe { bytes(name, name_len) };
    request(|r| {
        let fill = |buf: &mut Vec<u8>| append_field(r, name, usize::try_from(n).unwrap_or(0), buf);
        // SAFETY: Lua passes a text of its own.
        if unsafe { give(out, fill) } { DONE } else { NOT_FOUND }
    })
}

fn append_field(r: &Request, name: &[u8], n: usize, buf: &mut Vec<u8>) -> bool {
    let h = &r.headers_out;
    if n == 0 {
        if name.eq_ignore_ascii_case(b"content-type") {
            let t = h.content_type.borrow();
            return t.as_deref().filter(|t| !t.is_empty()).is_some_and(|t| put(buf, t));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            return h.content_length.get().is_some_and(|n| put(buf, n.to_string().as_bytes()));
        }
        if name.eq_ignore_ascii_case(b"last-modified") && h.last_modified.get().is_some() {
            return h.last_modified.get().is_some_and(|t| put(buf, &http_date::format(t)));
        }
    }
    let mut seen = 0;
    let mut found = false;
    h.for_each(|f| {
        if f.name.eq_ignore_ascii_case(name) {
            if seen == n {
                found = put(buf, &f.value);
            }
            seen += 1;
        }
    });
    found
}

fn put(buf: &mut Vec<u8>, text: &[u8]) -> bool {
    buf.extend_from_slice(text);
    true
}

/// The `n`th field of the response from 0, as `ngx.resp.get_headers` lists them. `name` and `value` share the scratch
/// buffer, the value behind the name.
extern "C" fn header_at(n: c_int, name: *mut Text, value: *mut Text) -> c_int {
    request(|r| {
        let Some((field, text)) = all_fields(r).into_iter().nth(usize::try_from(n).unwrap_or(usize::MAX))
        else {
            return NOT_FOUND;
        };
        // SAFETY: Lua passes texts of its own; both lie in the buffer that one `give` filled.
        unsafe {
            give(value, |b| {
                b.extend_from_slice(&field);
                b.extend_from_slice(&text);
            });
            let whole = value.read();
            name.write(Text { data: whole.data, len: field.len() });
            value.write(Text { data: whole.data.add(field.len()), len: text.len() });
        }
        DONE
    })
}

fn all_fields(r: &Request) -> Vec<(Vec<u8>, Vec<u8>)> {
    let h = &r.headers_out;
    let mut all = Vec::new();
    h.for_each(|f| all.push((f.name.to_vec(), f.value.to_vec())));
    for name in [&b"content-type"[..], b"content-length", b"last-modified"] {
        let mut value = Vec::new();
        if append_field(r, name, 0, &mut value) {
            all.push((name.to_vec(), value));
        }
    }
    let connection: &[u8] = if r.keep_alive.get() { b"keep-alive" } else { b"close" };
    all.push((b"connection".to_vec(), connection.to_vec()));
    if r.output.mode() == Mode::Chunked {
        all.push((b"transfer-encoding".to_vec(), b"chunked".to_vec()));
    }
    all
}

/// `lua_transform_underscores_in_response_headers`
extern "C" fn bypass_conditions() -> c_int {
    current(|h| {
        h.request.bypasses_conditions.set(true);
        DONE
    })
    .unwrap_or(NO_REQUEST)
}

extern "C" fn transform_underscores() -> c_int {
    current(|h| {
        let settings = h.request.settings::<crate::settings::LuaLocation>();
        c_int::from(settings.is_none_or(crate::settings::LuaLocation::transform_underscores))
    })
    .unwrap_or(1)
}
