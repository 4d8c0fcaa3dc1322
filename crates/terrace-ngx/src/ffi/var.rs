//! `ngx.var`.

use std::ffi::c_int;

use bytes::Bytes;

use super::{BAD_CONTEXT, DONE, NO_REQUEST, NOT_FOUND, Text, bytes, functions, give};
use crate::host::current;
use crate::phase::REQUEST;

functions! {
    "int (*var_get)(const char *, size_t, terrace_text *)" => var_get,
    "int (*var_capture)(int, terrace_text *)" => var_capture,
    "int (*var_set)(const char *, size_t, const char *, size_t)" => var_set,
}

/// The variable may not be changed.
const NOT_CHANGEABLE: c_int = -2;

extern "C" fn var_get(name: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let name = unsafe { bytes(name, len) };
    current(|h| {
        if !h.is_in(REQUEST) {
            return BAD_CONTEXT;
        }
        let r = &h.request;
        let mut lower = [0; 128];
        let name = match lower.get_mut(..name.len()) {
            Some(lower) if name.iter().any(u8::is_ascii_uppercase) => {
                lower.copy_from_slice(name);
                lower.make_ascii_lowercase();
                &*lower
            }
            _ => name,
        };
        // SAFETY: Lua passes a text of its own.
        let found = unsafe { give(out, |b| r.generation().vars.get_by_name(r, name, b)) };
        if found == Some(true) { DONE } else { NOT_FOUND }
    })
    .unwrap_or(NO_REQUEST)
}

extern "C" fn var_capture(n: c_int, out: *mut Text) -> c_int {
    current(|h| {
        // As in nginx, `$0` is no variable.
        let Some(n) = usize::try_from(n).ok().filter(|n| *n > 0) else { return NOT_FOUND };
        let captures = h.request.captures().borrow();
        let Some(text) = captures.group(n) else { return NOT_FOUND };
        // SAFETY: Lua passes a text of its own.
        unsafe { give(out, |b| b.extend_from_slice(text)) };
        DONE
    })
    .unwrap_or(NO_REQUEST)
}

/// A null value makes the variable "not found".
extern "C" fn var_set(name: *const u8, name_len: usize, value: *const u8, len: usize) -> c_int {
    // SAFETY: Lua strings, or null.
    let (name, text) = unsafe { (bytes(name, name_len), bytes(value, len)) };
    let value = (!value.is_null()).then(|| Bytes::copy_from_slice(text));
    current(|h| {
        if !h.is_in(REQUEST) {
            return BAD_CONTEXT;
        }
        let r = &h.request;
        let vars = &r.generation().vars;
        let found = vars.find(name).or_else(|| vars.find(&name.to_ascii_lowercase()));
        let Some(index) = found.filter(|it| !vars.is_of_prefix(*it)) else {
            return NOT_FOUND;
        };
        if vars.set(r, index, value) { DONE } else { NOT_CHANGEABLE }
    })
    .unwrap_or(NO_REQUEST)
}
