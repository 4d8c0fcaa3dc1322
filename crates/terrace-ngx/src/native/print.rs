//! `ngx.say`, `ngx.print`, `ngx.flush`, `ngx.eof` and `ngx.send_headers`: C functions, as filters may run Lua code, which
//! what is called through a pointer must not. `output.lua` tries a single string that way first.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int};

use mlua_sys as lua;
use mlua_sys::lua_State;
use terrace_lua::pending;

use crate::ffi::output::{self, BUFFERING, CLIENT_GONE, HEADER_ONLY, NOTHING, SEEN_EOF, TAKEN_OVER};
use crate::ffi::{AWAIT, DONE};

/// How deep tables may nest.
const DEPTH_MAX: u32 = 100;
/// A buffer that grew beyond this is freed after use.
const BUFFER_KEPT_BYTES_MAX: usize = 1 << 20;

thread_local! {
    /// Where several arguments, or the items of a table, are joined.
    static JOINED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// `require "terrace.print"`: a table with the functions, and `answered`, which makes their results of a code.
///
/// # Safety
/// Called by Lua.
pub unsafe extern "C-unwind" fn open(state: *mut lua_State) -> c_int {
    let functions: [(&CStr, lua::lua_CFunction); 6] = [
        (c"say", say),
        (c"print", print),
        (c"flush", flush),
        (c"eof", eof),
        (c"send_headers", send_headers),
        (c"answered", answered),
    ];
    // SAFETY: three slots are free in a fresh C call; nothing here needs dropping when Lua raises.
    unsafe {
        lua::lua_createtable(state, 0, 6);
        for (name, function) in functions {
            lua::lua_pushcclosure(state, function, 0);
            lua::lua_setfield(state, -2, name.as_ptr());
        }
    }
    1
}

unsafe extern "C-unwind" fn answered(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { answer(state, lua::lua_tonumber(state, 1) as c_int) }
}

unsafe extern "C-unwind" fn flush(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { answer(state, output::flush(lua::lua_toboolean(state, 1) != 0)) }
}

unsafe extern "C-unwind" fn eof(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { answer(state, output::eof()) }
}

unsafe extern "C-unwind" fn send_headers(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { answer(state, output::send_headers()) }
}

unsafe extern "C-unwind" fn say(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { write(state, true, c"say".as_ptr()) }
}

unsafe extern "C-unwind" fn print(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua.
    unsafe { write(state, false, c"print".as_ptr()) }
}

/// Why an argument cannot be written. Plain data: Lua raises over the frames that hold it.
#[derive(Clone, Copy)]
enum Refused {
    TooDeep,
    NotArray,
    Type(c_int),
    /// Of a table's item.
    ItemType(c_int),
}

unsafe fn write(state: *mut lua_State, newline: bool, name: *const c_char) -> c_int {
    // SAFETY: reading the arguments of the call; a string stays on the stack while its bytes are used. What raises
    // runs while nothing that needs dropping is alive in this frame.
    unsafe {
        let count = lua::lua_gettop(state);
        if lua::lua_checkstack(state, 8) == 0 {
            return lua::luaL_error(state, c"stack overflow".as_ptr());
        }
        match join(state, count) {
            Ok(()) => answer(state, print_joined(newline)),
            Err((position, refused)) => refuse(state, position, refused, name),
        }
    }
}

fn print_joined(newline: bool) -> c_int {
    // Taken out: writing may run filters, which may print in turn.
    let mut joined =
        JOINED.with(|j| j.try_borrow_mut().map(|mut j| std::mem::take(&mut *j)).unwrap_or_default());
    let code = output::print(&joined, newline);
    if joined.capacity() <= BUFFER_KEPT_BYTES_MAX {
        joined.clear();
        JOINED.with(|j| {
            if let Ok(mut j) = j.try_borrow_mut() {
                *j = joined;
            }
        });
    }
    code
}

fn append(text: &[u8]) {
    JOINED.with(|j| {
        if let Ok(mut j) = j.try_borrow_mut() {
            j.extend_from_slice(text);
        }
    });
}

/// Joins all arguments. The error has the argument's position.
unsafe fn join(state: *mut lua_State, count: c_int) -> Result<(), (c_int, Refused)> {
    JOINED.with(|j| {
        if let Ok(mut j) = j.try_borrow_mut() {
            j.clear();
        }
    });
    for position in 1..=count {
        // SAFETY: an index within the arguments.
        unsafe { append_value(state, position, 0) }.map_err(|r| (position, r))?;
    }
    Ok(())
}

/// Appends the text of the value at an absolute index.
unsafe fn append_value(state: *mut lua_State, index: c_int, depth: u32) -> Result<(), Refused> {
    // SAFETY: the index is valid; numbers are converted in place, which only touches this stack slot.
    unsafe {
        match lua::lua_type(state, index) {
            lua::LUA_TSTRING | lua::LUA_TNUMBER => {
                let mut len = 0;
                let data = lua::lua_tolstring(state, index, &mut len);
                append(crate::ffi::bytes(data.cast(), len));
            }
            lua::LUA_TNIL => append(b"nil"),
            lua::LUA_TBOOLEAN if lua::lua_toboolean(state, index) != 0 => append(b"true"),
            lua::LUA_TBOOLEAN => append(b"false"),
            lua::LUA_TLIGHTUSERDATA if lua::lua_touserdata(state, index).is_null() => append(b"null"),
            lua::LUA_TTABLE => append_table(state, index, depth)?,
            other if depth > 0 => return Err(Refused::ItemType(other)),
            other => return Err(Refused::Type(other)),
        }
    }
    Ok(())
}

unsafe fn append_table(state: *mut lua_State, index: c_int, depth: u32) -> Result<(), Refused> {
    if depth >= DEPTH_MAX {
        return Err(Refused::TooDeep);
    }
    // SAFETY: every push is popped; room for them is checked at each level.
    unsafe {
        if lua::lua_checkstack(state, 8) == 0 {
            return Err(Refused::TooDeep);
        }
        let mut items: c_int = 0;
        lua::lua_pushnil(state);
        while lua::lua_next(state, index) != 0 {
            lua::lua_settop(state, -2);
            let key = match lua::lua_type(state, -1) {
                lua::LUA_TNUMBER => lua::lua_tonumber(state, -1),
                _ => return Err(Refused::NotArray),
            };
            if key < 1.0 || key.fract() != 0.0 || key > f64::from(c_int::MAX) {
                return Err(Refused::NotArray);
            }
            items = items.max(key as c_int);
        }
        for i in 1..=items {
            lua::lua_rawgeti_(state, index, i);
            let top = lua::lua_gettop(state);
            append_value(state, top, depth + 1)?;
            lua::lua_settop(state, -2);
        }
    }
    Ok(())
}

/// Turns the code of the write into the function's results.
unsafe fn answer(state: *mut lua_State, code: c_int) -> c_int {
    // SAFETY: at most two values are pushed onto a stack with room for them; nothing here needs dropping.
    unsafe {
        match code {
            DONE => {
                lua::lua_pushnumber(state, 1.0);
                1
            }
            AWAIT => pending::yield_from(state),
            SEEN_EOF | CLIENT_GONE | TAKEN_OVER | HEADER_ONLY | NOTHING | BUFFERING => {
                let why = match code {
                    SEEN_EOF => c"seen eof",
                    TAKEN_OVER => c"raw request socket acquired",
                    HEADER_ONLY => c"header only",
                    NOTHING => c"nothing to flush",
                    BUFFERING => c"buffering",
                    _ => c"nginx output filter error",
                };
                lua::lua_pushnil(state);
                lua::lua_pushstring(state, why.as_ptr());
                2
            }
            _ => {
                let context = crate::ffi::context_name(code);
                lua::luaL_error(state, c"%s".as_ptr(), context.as_ptr())
            }
        }
    }
}

unsafe fn refuse(state: *mut lua_State, position: c_int, refused: Refused, name: *const c_char) -> c_int {
    // SAFETY: raises; only plain data is alive.
    unsafe {
        match refused {
            Refused::TooDeep => lua::luaL_error(
                state,
                c"bad argument #%d to '%s' (the table is nested too deeply)".as_ptr(),
                position,
                name,
            ),
            Refused::NotArray => lua::luaL_error(
                state,
                c"bad argument #%d to '%s' (non-array table found)".as_ptr(),
                position,
                name,
            ),
            Refused::Type(t) => lua::luaL_error(
                state,
                c"bad argument #%d to '%s' (string, number, boolean, nil, ngx.null, or array table expected, but got %s)"
                    .as_ptr(),
                position,
                name,
                lua::lua_typename(state, t),
            ),
            Refused::ItemType(t) => lua::luaL_error(
                state,
                c"bad argument #%d to '%s' (bad data type %s found)".as_ptr(),
                position,
                name,
                lua::lua_typename(state, t),
            ),
        }
    }
}
