//! `cjson` and `cjson.safe`: JSON for Lua, with the interface, the texts and the exact output of lua-cjson 2.1 and the
//! additions that OpenResty's fork documents.
//!
//! Differences, on purpose: a light userdata that means nothing here is an error rather than an empty value, and integers
//! beyond 64 bits are decoded as the nearest number. A document is first read into a flat list of nodes by plain Rust,
//! then built by calls into Lua that know each table's size.
//!
//! Invariant: Lua raises errors by unwinding, so no function which calls into Lua holds a value with a destructor; the
//! memory belongs to userdata (see `config`). Errors are plain values until the outermost function raises them.

mod build;
mod config;
mod decode;
mod encode;
mod number;

use std::ffi::{CStr, c_int};
use std::slice;

use mlua_sys::{
    LUA_TNUMBER, LUA_TSTRING, lua_CFunction, lua_State, lua_concat, lua_createtable, lua_error, lua_gettop,
    lua_insert, lua_pushcclosure, lua_pushfstring, lua_pushlightuserdata, lua_pushlstring_, lua_pushnil,
    lua_pushvalue, lua_replace, lua_setfield, lua_settop, lua_tolstring, lua_type, lua_typename,
    luaL_argerror, luaL_checklstring, luaL_where,
};

use self::config::Module;
use self::decode::DecodeError;
use self::encode::{EncodeError, Encoder};

/// The release of lua-cjson whose behaviour this is.
const VERSION: &CStr = c"2.1.0.11";

type Entry = (&'static CStr, lua_CFunction);

/// Settings, the same in both modules.
const SETTINGS: [Entry; 13] = [
    (c"encode_empty_table_as_object", config::encode_empty_table_as_object),
    (c"decode_array_with_array_mt", config::decode_array_with_array_mt),
    (c"decode_allow_comment", config::decode_allow_comment),
    (c"encode_sparse_array", config::encode_sparse_array),
    (c"encode_max_depth", config::encode_max_depth),
    (c"decode_max_depth", config::decode_max_depth),
    (c"encode_number_precision", config::encode_number_precision),
    (c"encode_keep_buffer", config::encode_keep_buffer),
    (c"encode_invalid_numbers", config::encode_invalid_numbers),
    (c"decode_invalid_numbers", config::decode_invalid_numbers),
    (c"encode_escape_forward_slash", config::encode_escape_forward_slash),
    (c"encode_skip_unsupported_value_types", config::encode_skip_unsupported_value_types),
    (c"encode_indent", config::encode_indent),
];

const RAISING: [Entry; 3] =
    [(c"encode", encode_raising), (c"decode", decode_raising), (c"new", luaopen_cjson)];
const SAFE: [Entry; 3] = [(c"encode", encode_safe), (c"decode", decode_safe), (c"new", luaopen_cjson_safe)];

/// Makes the module `cjson`, whose `encode` and `decode` raise their errors; pushes its table.
///
/// # Safety
/// To be called by Lua, as a loader.
pub unsafe extern "C-unwind" fn luaopen_cjson(lua: *mut lua_State) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { push_table(lua, &RAISING) }
}

/// Makes the module `cjson.safe`, whose `encode` and `decode` return nil and a text in case of error; pushes its table.
///
/// # Safety
/// To be called by Lua, as a loader.
pub unsafe extern "C-unwind" fn luaopen_cjson_safe(lua: *mut lua_State) -> c_int {
    // SAFETY: as the caller promises.
    unsafe { push_table(lua, &SAFE) }
}

unsafe fn push_table(lua: *mut lua_State, conversions: &[Entry]) -> c_int {
    // SAFETY: runs in a call from Lua, which grants 20 slots; fewer than 10 are used at a time. Only constants are alive.
    unsafe {
        lua_createtable(lua, 0, 24);
        config::push_module(lua);
        for (name, function) in SETTINGS.iter().chain(conversions) {
            lua_pushvalue(lua, -1);
            lua_pushcclosure(lua, *function, 1);
            lua_setfield(lua, -3, name.as_ptr());
        }
        lua_settop(lua, -2);
        lua_pushlightuserdata(lua, std::ptr::null_mut());
        lua_setfield(lua, -2, c"null".as_ptr());
        lua_pushlightuserdata(lua, config::empty_array());
        lua_setfield(lua, -2, c"empty_array".as_ptr());
        config::push_array_mt(lua);
        lua_setfield(lua, -2, c"array_mt".as_ptr());
        config::push_empty_array_mt(lua);
        lua_setfield(lua, -2, c"empty_array_mt".as_ptr());
        config::push_text(lua, c"cjson");
        lua_setfield(lua, -2, c"_NAME".as_ptr());
        config::push_text(lua, VERSION);
        lua_setfield(lua, -2, c"_VERSION".as_ptr());
    }
    1
}

unsafe extern "C-unwind" fn decode_raising(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Lua as a closure over the module; errors are plain values.
    unsafe {
        let module = config::current(lua);
        one_argument(lua);
        match decode(lua, module) {
            Ok(()) => 1,
            Err(error) => {
                luaL_where(lua, 1);
                push_decode_error(lua, error);
                lua_concat(lua, 2);
                lua_error(lua)
            }
        }
    }
}

unsafe extern "C-unwind" fn decode_safe(lua: *mut lua_State) -> c_int {
    // SAFETY: as for `decode_raising`.
    unsafe {
        let module = config::current(lua);
        one_argument(lua);
        let kind = lua_type(lua, 1);
        if kind != LUA_TSTRING && kind != LUA_TNUMBER {
            lua_pushnil(lua);
            let text = c"bad argument #1 to '?' (string expected, got %s)";
            lua_pushfstring(lua, text.as_ptr(), lua_typename(lua, kind));
            return 2;
        }
        match decode(lua, module) {
            Ok(()) => 1,
            Err(error) => {
                lua_pushnil(lua);
                push_decode_error(lua, error);
                2
            }
        }
    }
}

/// Decodes argument 1 and leaves the value on top; in case of error the stack is as it was.
unsafe fn decode(lua: *mut lua_State, module: *mut Module) -> Result<(), DecodeError> {
    // SAFETY: the bytes belong to the string in slot 1, which stays there until the value is built. The lease makes
    // `scratch` this call's own, whatever a finalizer that runs in between does.
    unsafe {
        let mut len = 0;
        let text = luaL_checklstring(lua, 1, &mut len);
        let source = slice::from_raw_parts(text.cast::<u8>(), len);
        let settings = (*module).decode;
        let scratch = Module::lease(module, lua);
        let tape = &mut (*scratch).tape;
        let mut result = decode::parse(source, &settings, tape);
        if result.is_ok() {
            result = build::build(lua, source, &settings, tape);
        }
        Module::release(module, scratch);
        result
    }
}

unsafe fn push_decode_error(lua: *mut lua_State, error: DecodeError) {
    // SAFETY: runs in a call from Lua with free slots; every argument has the type its place in the text asks for.
    unsafe {
        match error {
            DecodeError::Expected { what, found, at } => {
                let text = c"Expected %s but found %s at character %d";
                lua_pushfstring(lua, text.as_ptr(), what.as_ptr(), found.as_ptr(), at as c_int + 1);
            }
            DecodeError::TooDeep { depth, at } => {
                let text = c"Found too many nested data structures (%d) at character %d";
                lua_pushfstring(lua, text.as_ptr(), depth as c_int, at as c_int);
            }
            DecodeError::WideCharacters => {
                config::push_text(lua, c"JSON parser does not support UTF-16 or UTF-32");
            }
        }
    }
}

unsafe extern "C-unwind" fn encode_raising(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Lua as a closure over the module; errors are plain values.
    unsafe {
        let module = config::current(lua);
        one_argument(lua);
        match encode(lua, module) {
            Ok(()) => 1,
            Err(EncodeError::Raised) => lua_error(lua),
            Err(error) => {
                lua_settop(lua, 0);
                luaL_where(lua, 1);
                push_encode_error(lua, error);
                lua_concat(lua, 2);
                lua_error(lua)
            }
        }
    }
}

unsafe extern "C-unwind" fn encode_safe(lua: *mut lua_State) -> c_int {
    // SAFETY: as for `encode_raising`.
    unsafe {
        let module = config::current(lua);
        one_argument(lua);
        match encode(lua, module) {
            Ok(()) => return 1,
            Err(EncodeError::Raised) => {
                lua_replace(lua, 1);
                lua_settop(lua, 1);
                lua_pushnil(lua);
                lua_insert(lua, 1);
            }
            Err(error) => {
                lua_settop(lua, 0);
                lua_pushnil(lua);
                push_encode_error(lua, error);
            }
        }
        2
    }
}

/// Encodes argument 1 and leaves the text on top. In case of error the stack may have grown; after
/// [`EncodeError::Raised`] the error value is on top.
unsafe fn encode(lua: *mut lua_State, module: *mut Module) -> Result<(), EncodeError> {
    // SAFETY: the lease makes `scratch` this call's own, whatever a metamethod that runs in between does. Its references
    // end before the release, and the text is copied by Lua before that.
    unsafe {
        let settings = (*module).encode;
        let scratch = Module::lease(module, lua);
        lua_pushvalue(lua, 1);
        let (out, indent) = (&mut (*scratch).out, &mut (*scratch).indent);
        Module::copy_indent(module, indent);
        out.clear();
        let mut encoder = Encoder::new(lua, settings, indent, out);
        let result = encoder.value(0).map(|_written| ());
        if result.is_ok() {
            let out = &(*scratch).out;
            lua_pushlstring_(lua, out.as_ptr().cast(), out.len());
        }
        Module::release(module, scratch);
        result
    }
}

unsafe fn push_encode_error(lua: *mut lua_State, error: EncodeError) {
    // SAFETY: as for `push_decode_error`; the names of types are constants of Lua's.
    unsafe {
        match error {
            EncodeError::Value { kind, reason } => {
                let text = c"Cannot serialise %s: %s";
                lua_pushfstring(lua, text.as_ptr(), lua_typename(lua, kind), reason.as_ptr());
            }
            EncodeError::TooDeep(depth) => {
                let text = c"Cannot serialise, excessive nesting (%d)";
                lua_pushfstring(lua, text.as_ptr(), depth);
            }
            EncodeError::Raised => {}
        }
    }
}

unsafe fn one_argument(lua: *mut lua_State) {
    // SAFETY: runs in a call from Lua; nothing with a destructor is alive.
    unsafe {
        if lua_gettop(lua) != 1 {
            luaL_argerror(lua, 1, c"expected 1 argument".as_ptr());
        }
    }
}

/// The bytes of the string at `index`.
///
/// # Safety
/// `lua` is live, the value at `index` is a string, and the slice is dropped before the string may be collected.
unsafe fn string_at<'a>(lua: *mut lua_State, index: c_int) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: as the caller promises; `lua_tolstring` does not allocate for a string.
    unsafe {
        let text = lua_tolstring(lua, index, &mut len);
        slice::from_raw_parts(text.cast::<u8>(), len)
    }
}
