//! The thin layer over the C API: protected calls, pushing and reading values.
//!
//! Invariant: whatever may raise runs inside [`protected`], in a closure that holds nothing to drop across a raising
//! call, so that a Lua error never jumps over a Rust destructor.

use std::ffi::{c_int, c_void};

use bytes::Bytes;
use mlua_sys as ffi;
use mlua_sys::lua_State;

use crate::value::Value;
use crate::vm::Vm;

/// Runs `body` in a C function called in protected mode; an error message is popped. Returns the status.
///
/// # Safety
/// `state` must be live, and `body` must not own a value that needs dropping while it calls something that raises.
pub(crate) unsafe fn protected<F: FnMut(*mut lua_State)>(state: *mut lua_State, body: &mut F) -> c_int {
    unsafe extern "C-unwind" fn call<F: FnMut(*mut lua_State)>(state: *mut lua_State) -> c_int {
        // SAFETY: lua_cpcall passes the pointer given below as the only argument, and `body` outlives the call.
        unsafe { (*ffi::lua_touserdata(state, 1).cast::<F>())(state) };
        0
    }
    // SAFETY: the caller vouches for the state; on failure exactly one value, the message, is on the stack.
    unsafe {
        let status = ffi::lua_cpcall(state, call::<F>, std::ptr::from_mut(body).cast::<c_void>());
        if status != ffi::LUA_OK {
            ffi::lua_settop(state, -2);
        }
        status
    }
}

/// Pushes one value; strings and light userdata may raise, and one free slot is needed.
///
/// # Safety
/// `state` belongs to `vm`, has a free slot, and is protected unless the value is plain.
pub(crate) unsafe fn push(vm: &Vm, state: *mut lua_State, value: &Value) {
    // SAFETY: by the caller's promise.
    unsafe {
        match value {
            Value::Nil => ffi::lua_pushnil(state),
            Value::Bool(b) => ffi::lua_pushboolean(state, c_int::from(*b)),
            Value::Number(n) => ffi::lua_pushnumber(state, *n),
            Value::Integer(i) => ffi::lua_pushnumber(state, *i as f64),
            Value::String(s) => ffi::lua_pushlstring_(state, s.as_ptr().cast(), s.len()),
            Value::LightUserdata(p) => ffi::lua_pushlightuserdata(state, *p),
            Value::Ref(r) => match r.key_in(vm) {
                Some(key) => ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, key),
                None => ffi::lua_pushnil(state),
            },
        }
    }
}

/// Pushes values onto a state that is not running; `false` (and nothing pushed) when there is no room or memory.
///
/// # Safety
/// `target` belongs to `vm`, is not the main state, and is suspended, fresh or the staging state.
pub(crate) unsafe fn push_all(vm: &Vm, target: *mut lua_State, values: &[Value]) -> bool {
    let Ok(count) = c_int::try_from(values.len()) else { return false };
    // SAFETY: room is checked first; plain values neither allocate nor raise; the others are pushed in the
    // protected frame and then moved, which does not raise.
    unsafe {
        if ffi::lua_checkstack(target, count) == 0 {
            return false;
        }
        if values.iter().all(Value::is_plain) {
            values.iter().for_each(|value| push(vm, target, value));
            return true;
        }
        let status = protected(vm.main_state(), &mut |state| {
            ffi::luaL_checkstack_(state, count, c"too many values".as_ptr());
            values.iter().for_each(|value| push(vm, state, value));
            ffi::lua_xmove(state, target, count);
        });
        status == ffi::LUA_OK
    }
}

/// The bytes of a string on the stack.
///
/// # Safety
/// The value at `index` must be a string (not a number, which would be converted in place).
pub(crate) unsafe fn bytes_at<'a>(state: *mut lua_State, index: c_int) -> &'a [u8] {
    let mut len = 0;
    // SAFETY: a string's bytes stay put while it is on the stack; the caller copies them before popping.
    unsafe {
        let data = ffi::lua_tolstring(state, index, &mut len);
        std::slice::from_raw_parts(data.cast::<u8>(), len)
    }
}

/// Reads the simple types; `None` for those that need a registry reference.
///
/// # Safety
/// `index` is valid in `state`.
pub(crate) unsafe fn simple_at(state: *mut lua_State, index: c_int) -> Option<Value> {
    // SAFETY: each accessor is used on the type it is for, none converts.
    unsafe {
        Some(match ffi::lua_type(state, index) {
            ffi::LUA_TNIL | ffi::LUA_TNONE => Value::Nil,
            ffi::LUA_TBOOLEAN => Value::Bool(ffi::lua_toboolean(state, index) != 0),
            ffi::LUA_TNUMBER => Value::Number(ffi::lua_tonumber(state, index)),
            ffi::LUA_TSTRING => Value::String(Bytes::copy_from_slice(bytes_at(state, index))),
            ffi::LUA_TLIGHTUSERDATA => Value::LightUserdata(ffi::lua_touserdata(state, index)),
            _ => return None,
        })
    }
}
