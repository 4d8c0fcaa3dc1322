//! `ngx.shared.DICT`: the methods of a dictionary, which Lua knows by its address.
//!
//! Invariant: the address of a `Dict` comes from [`handles`] alone, and the VM that got it keeps the dictionary.

use std::ffi::c_int;
use std::sync::Arc;

use terrace_base::clock::now_ms;
use terrace_lua::Value as LuaValue;
use terrace_shdict::{Dict, Error, Incremented, Item, Operation, Popped, Value};

use super::{DONE, NOT_FOUND, Text, bytes, fail, functions, give};

functions! {
    "int (*dict_get)(void *, const char *, size_t, int, void *)" => dict_get,
    "int (*dict_store)(void *, int, const char *, size_t, int, const char *, size_t, double, double, uint32_t)" => dict_store,
    "int (*dict_incr)(void *, const char *, size_t, double, int, double, double, void *)" => dict_incr,
    "int (*dict_push)(void *, int, const char *, size_t, int, const char *, size_t, double, void *)" => dict_push,
    "int (*dict_pop)(void *, int, const char *, size_t, void *)" => dict_pop,
    "int (*dict_length)(void *, const char *, size_t, void *)" => dict_length,
    "int (*dict_ttl)(void *, const char *, size_t, void *)" => dict_ttl,
    "int (*dict_expire)(void *, const char *, size_t, double)" => dict_expire,
    "void (*dict_flush_all)(void *)" => dict_flush_all,
    "double (*dict_flush_expired)(void *, double)" => dict_flush_expired,
    "double (*dict_keys)(void *, double, terrace_text *)" => dict_keys,
    "double (*dict_capacity)(void *)" => dict_capacity,
    "double (*dict_free_space)(void *)" => dict_free_space,
    "int (*dict_error)(int, terrace_text *)" => dict_error,
}

/// Names and addresses of dictionaries by turns, for the setup of a VM that keeps `dicts`.
pub fn handles(dicts: &[(String, Arc<Dict>)]) -> impl Iterator<Item = LuaValue> {
    dicts.iter().flat_map(|(name, dict)| {
        let address = Arc::as_ptr(dict).cast_mut().cast();
        [LuaValue::from(name.clone()), LuaValue::LightUserdata(address)]
    })
}

/// What a call gives back beside its code. `shared.lua` declares the same.
#[repr(C)]
struct Out {
    text: Text,
    number: f64,
    flags: u32,
    stale: c_int,
    /// Where the bytes of short strings lie.
    room: [u8; ROOM_BYTES],
}

/// Strings up to this length are copied to where Lua reads them, longer ones go by a buffer that grows.
const ROOM_BYTES: usize = 4096;

impl Out {
    fn put_text(&mut self, text: &[u8]) {
        match self.room.get_mut(..text.len()) {
            Some(room) => {
                room.copy_from_slice(text);
                self.text = Text::of(room);
            }
            // SAFETY: a text of its own.
            None => unsafe { give(&mut self.text, |buf| buf.extend_from_slice(text)) },
        }
    }
}

/// Lua's numbers of its types, of values on both ways.
const NIL: c_int = 0;
const BOOLEAN: c_int = 1;
const NUMBER: c_int = 3;
const STRING: c_int = 4;

/// Stored, but valid entries had to go.
const FORCED: c_int = 1;

/// The errors by their codes: the first is -1.
const ERRORS: [Error; 10] = [
    Error::NotFound,
    Error::Exists,
    Error::NoMemory,
    Error::NotANumber,
    Error::ValueNotAList,
    Error::ValueIsAList,
    Error::BadValueType,
    Error::EmptyKey,
    Error::KeyTooLong,
    Error::NilValue,
];

fn code_of(error: Error) -> c_int {
    ERRORS.iter().position(|e| *e == error).map_or(NOT_FOUND, |at| -1 - at as c_int)
}

/// The text of an error's code; `NOT_FOUND` behind the last.
extern "C" fn dict_error(code: c_int, out: *mut Text) -> c_int {
    let index = usize::try_from(-1 - i64::from(code)).unwrap_or(usize::MAX);
    let Some(error) = ERRORS.get(index) else { return NOT_FOUND };
    // SAFETY: Lua passes a text of its own.
    unsafe { fail(out, &error.to_string()) };
    DONE
}

/// # Safety
/// `dict` is null or an address from [`handles`] of a VM that lives.
unsafe fn dict_at<'a>(dict: *const Dict) -> Option<&'a Dict> {
    // SAFETY: the caller's promise; a VM keeps its dictionaries until it is closed.
    unsafe { dict.as_ref() }
}

/// # Safety
/// `out` is null or points at an [`Out`] of the caller that nothing else uses during the call.
unsafe fn out_at<'a>(out: *mut Out) -> Option<&'a mut Out> {
    // SAFETY: the caller's promise.
    unsafe { out.as_mut() }
}

/// Milliseconds from Lua: fractions count as a whole one, so that what should expire does.
fn whole_ms(ms: f64) -> u64 {
    ms.ceil() as u64
}

fn value<'a>(kind: c_int, text: &'a [u8], number: f64) -> Option<Value<'a>> {
    match kind {
        BOOLEAN => Some(Value::Boolean(number != 0.0)),
        NUMBER => Some(Value::Number(number)),
        STRING => Some(Value::String(text)),
        _ => None,
    }
}

/// The type of the value, which is in `out`, or a code below 0.
extern "C" fn dict_get(dict: *const Dict, key: *const u8, len: usize, stale: c_int, out: *mut Out) -> c_int {
    // SAFETY: a handle, a Lua string, an `Out` of `shared.lua`.
    let (Some(dict), key, Some(out)) = (unsafe { (dict_at(dict), bytes(key, len), out_at(out)) }) else {
        return NOT_FOUND;
    };
    let read = |item: Item<'_>| {
        out.flags = item.flags;
        out.stale = c_int::from(item.stale);
        match item.value {
            Value::Boolean(b) => {
                out.number = f64::from(u8::from(b));
                BOOLEAN
            }
            Value::Number(n) => {
                out.number = n;
                NUMBER
            }
            Value::String(s) => {
                out.put_text(s);
                STRING
            }
        }
    };
    let found = match stale {
        0 => dict.get_with(key, now_ms(), read),
        _ => dict.get_stale_with(key, now_ms(), read),
    };
    match found {
        Ok(found) => found.unwrap_or(NIL),
        Err(e) => code_of(e),
    }
}

extern "C" fn dict_store(
    dict: *const Dict,
    operation: c_int,
    key: *const u8,
    len: usize,
    kind: c_int,
    text: *const u8,
    text_len: usize,
    number: f64,
    ttl_ms: f64,
    flags: u32,
) -> c_int {
    // SAFETY: a handle and Lua strings (or null).
    let (dict, key, text) = unsafe { (dict_at(dict), bytes(key, len), bytes(text, text_len)) };
    let Some(dict) = dict else { return NOT_FOUND };
    let operation = match operation {
        1 => Operation::Add,
        2 => Operation::Replace,
        3 => Operation::SafeSet,
        4 => Operation::SafeAdd,
        _ => Operation::Set,
    };
    match dict.store(operation, key, value(kind, text, number), whole_ms(ttl_ms), flags, now_ms()) {
        Ok(stored) if stored.forcible => FORCED,
        Ok(_) => DONE,
        Err(e) => code_of(e),
    }
}

extern "C" fn dict_incr(
    dict: *const Dict,
    key: *const u8,
    len: usize,
    delta: f64,
    has_init: c_int,
    init: f64,
    init_ttl_ms: f64,
    out: *mut Out,
) -> c_int {
    // SAFETY: a handle, a Lua string, an `Out` of `shared.lua`.
    let (Some(dict), key, Some(out)) = (unsafe { (dict_at(dict), bytes(key, len), out_at(out)) }) else {
        return NOT_FOUND;
    };
    let init = (has_init != 0).then_some(init);
    match dict.incr(key, delta, init, whole_ms(init_ttl_ms), now_ms()) {
        Ok(Incremented { value, forcible }) => {
            out.number = value;
            if forcible { FORCED } else { DONE }
        }
        Err(e) => code_of(e),
    }
}

/// Pushes at the left end if `left`; the new length is in `out`.
extern "C" fn dict_push(
    dict: *const Dict,
    left: c_int,
    key: *const u8,
    len: usize,
    kind: c_int,
    text: *const u8,
    text_len: usize,
    number: f64,
    out: *mut Out,
) -> c_int {
    // SAFETY: a handle, Lua strings (or null), an `Out` of `shared.lua`.
    let (dict, key, text, out) =
        unsafe { (dict_at(dict), bytes(key, len), bytes(text, text_len), out_at(out)) };
    let (Some(dict), Some(out)) = (dict, out) else { return NOT_FOUND };
    let Some(value) = value(kind, text, number) else { return code_of(Error::BadValueType) };
    let pushed = match left {
        0 => dict.rpush(key, value, now_ms()),
        _ => dict.lpush(key, value, now_ms()),
    };
    length(pushed, out)
}

fn length(length: Result<usize, Error>, out: &mut Out) -> c_int {
    match length {
        Ok(n) => {
            out.number = n as f64;
            DONE
        }
        Err(e) => code_of(e),
    }
}

/// The type of what was taken off, or a code below 0.
extern "C" fn dict_pop(dict: *const Dict, left: c_int, key: *const u8, len: usize, out: *mut Out) -> c_int {
    // SAFETY: a handle, a Lua string, an `Out` of `shared.lua`.
    let (Some(dict), key, Some(out)) = (unsafe { (dict_at(dict), bytes(key, len), out_at(out)) }) else {
        return NOT_FOUND;
    };
    let popped = match left {
        0 => dict.rpop(key, now_ms()),
        _ => dict.lpop(key, now_ms()),
    };
    match popped {
        Ok(Some(Popped::Number(n))) => {
            out.number = n;
            NUMBER
        }
        Ok(Some(Popped::String(s))) => {
            out.put_text(&s);
            STRING
        }
        Ok(None) => NIL,
        Err(e) => code_of(e),
    }
}

extern "C" fn dict_length(dict: *const Dict, key: *const u8, len: usize, out: *mut Out) -> c_int {
    // SAFETY: a handle, a Lua string, an `Out` of `shared.lua`.
    let (Some(dict), key, Some(out)) = (unsafe { (dict_at(dict), bytes(key, len), out_at(out)) }) else {
        return NOT_FOUND;
    };
    length(dict.llen(key, now_ms()), out)
}

/// Milliseconds are in `out`, 0 for an entry that never expires.
extern "C" fn dict_ttl(dict: *const Dict, key: *const u8, len: usize, out: *mut Out) -> c_int {
    // SAFETY: a handle, a Lua string, an `Out` of `shared.lua`.
    let (Some(dict), key, Some(out)) = (unsafe { (dict_at(dict), bytes(key, len), out_at(out)) }) else {
        return NOT_FOUND;
    };
    match dict.ttl(key, now_ms()) {
        Ok(ttl) => {
            out.number = ttl.unwrap_or(0) as f64;
            DONE
        }
        Err(e) => code_of(e),
    }
}

extern "C" fn dict_expire(dict: *const Dict, key: *const u8, len: usize, ttl_ms: f64) -> c_int {
    // SAFETY: a handle and a Lua string.
    let (dict, key) = unsafe { (dict_at(dict), bytes(key, len)) };
    let Some(dict) = dict else { return NOT_FOUND };
    dict.expire(key, whole_ms(ttl_ms), now_ms()).map_or_else(code_of, |()| DONE)
}

extern "C" fn dict_flush_all(dict: *const Dict) {
    // SAFETY: a handle.
    if let Some(dict) = unsafe { dict_at(dict) } {
        dict.flush_all(now_ms());
    }
}

extern "C" fn dict_flush_expired(dict: *const Dict, max: f64) -> f64 {
    // SAFETY: a handle.
    let dict = unsafe { dict_at(dict) };
    dict.map_or(0.0, |dict| dict.flush_expired(max as usize, now_ms()) as f64)
}

/// Leaves the keys, each behind its length in four bytes, and answers how many they are.
extern "C" fn dict_keys(dict: *const Dict, max: f64, out: *mut Text) -> f64 {
    // SAFETY: a handle.
    let Some(dict) = (unsafe { dict_at(dict) }) else { return 0.0 };
    let keys = dict.keys(max as usize, now_ms());
    // SAFETY: Lua passes a text of its own.
    unsafe {
        give(out, |buf| {
            buf.reserve(keys.iter().map(|k| k.len() + 4).sum());
            for key in &keys {
                // A key has at most 65535 bytes.
                buf.extend_from_slice(&(key.len() as u32).to_ne_bytes());
                buf.extend_from_slice(key);
            }
        });
    }
    keys.len() as f64
}

extern "C" fn dict_capacity(dict: *const Dict) -> f64 {
    // SAFETY: a handle.
    unsafe { dict_at(dict) }.map_or(0.0, |dict| dict.capacity_bytes() as f64)
}

extern "C" fn dict_free_space(dict: *const Dict) -> f64 {
    // SAFETY: a handle.
    unsafe { dict_at(dict) }.map_or(0.0, |dict| dict.free_bytes() as f64)
}
