//! `terrace.html`: what templates do for each value they show, in one pass over its bytes. LuaJIT interprets string
//! patterns, and a page escapes dozens of values.

use std::ffi::c_int;

use mlua_sys as lua;
use mlua_sys::lua_State;

/// `require "terrace.html"`: a table with `escape`.
///
/// # Safety
/// Called by Lua.
pub unsafe extern "C-unwind" fn open(state: *mut lua_State) -> c_int {
    // SAFETY: two slots are free in a fresh C call; nothing here needs dropping when Lua raises.
    unsafe {
        lua::lua_createtable(state, 0, 1);
        lua::lua_pushcclosure(state, escape, 0);
        lua::lua_setfield(state, -2, c"escape".as_ptr());
    }
    1
}

/// What a byte becomes; empty where it stays.
fn reference(byte: u8) -> &'static [u8] {
    match byte {
        b'&' => b"&amp;",
        b'<' => b"&lt;",
        b'>' => b"&gt;",
        b'"' => b"&quot;",
        b'\'' => b"&#39;",
        b'/' => b"&#47;",
        _ => b"",
    }
}

/// `escape(string)`: the string with the HTML characters replaced, itself where it has none.
unsafe extern "C-unwind" fn escape(state: *mut lua_State) -> c_int {
    // SAFETY: the argument stays on the stack while its bytes are read. The result is written into a userdata of
    // exactly its length, which Lua owns, so that nothing needs dropping when Lua raises.
    unsafe {
        let mut len = 0;
        let data = lua::luaL_checklstring(state, 1, &mut len);
        let text = crate::ffi::bytes(data.cast(), len);
        let added: usize = text.iter().map(|b| reference(*b).len().saturating_sub(1)).sum();
        if added == 0 {
            lua::lua_settop(state, 1);
            return 1;
        }
        let room = lua::lua_newuserdata(state, len + added).cast::<u8>();
        let mut at = 0;
        for byte in text {
            let special = reference(*byte);
            let part = if special.is_empty() { std::slice::from_ref(byte) } else { special };
            room.add(at).copy_from_nonoverlapping(part.as_ptr(), part.len());
            at += part.len();
        }
        lua::lua_pushlstring_(state, room.cast(), at);
        1
    }
}
