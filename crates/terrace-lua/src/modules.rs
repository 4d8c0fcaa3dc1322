//! The module searcher for what is in the binary. It stands last in `package.loaders`, so a file on the user's
//! `package.path` or `package.cpath` always wins over a module of ours.

use std::ffi::c_int;

use mlua_sys as ffi;
use mlua_sys::{lua_CFunction, lua_State};

/// Name and source of each Lua module in the binary.
pub(crate) struct Builtin(pub(crate) &'static [(&'static str, &'static [u8])]);

/// The registry field with the native modules: name to open function.
const NATIVES: *const std::ffi::c_char = c"terrace.natives".as_ptr();

/// Appends the searcher to `package.loaders`. May raise.
///
/// # Safety
/// `state` is protected, and `builtin` outlives the VM's states.
pub(crate) unsafe fn install(state: *mut lua_State, builtin: *const Builtin) {
    // SAFETY: balanced stack use of at most five slots.
    unsafe {
        ffi::lua_createtable(state, 0, 0);
        ffi::lua_setfield(state, ffi::LUA_REGISTRYINDEX, NATIVES);
        ffi::lua_getfield_(state, ffi::LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
        ffi::lua_getfield_(state, -1, c"package".as_ptr());
        ffi::lua_getfield_(state, -1, c"loaders".as_ptr());
        ffi::lua_pushlightuserdata(state, builtin.cast_mut().cast());
        ffi::lua_getfield_(state, ffi::LUA_REGISTRYINDEX, NATIVES);
        ffi::lua_pushcclosure(state, search, 2);
        let next = c_int::try_from(ffi::lua_objlen(state, -2)).unwrap_or(c_int::MAX - 1) + 1;
        ffi::lua_rawseti_(state, -2, next);
        ffi::lua_settop(state, -4);
    }
}

/// Registers a native module. May raise.
///
/// # Safety
/// `state` is protected.
pub(crate) unsafe fn preload(state: *mut lua_State, name: &str, open: lua_CFunction) {
    // SAFETY: balanced stack use of three slots.
    unsafe {
        ffi::lua_getfield_(state, ffi::LUA_REGISTRYINDEX, NATIVES);
        ffi::lua_pushlstring_(state, name.as_ptr().cast(), name.len());
        ffi::lua_pushcclosure(state, open, 0);
        ffi::lua_rawset(state, -3);
        ffi::lua_settop(state, -2);
    }
}

/// `package.loaders` entry: the loader for a module of ours, or a line for `require`'s error message.
unsafe extern "C-unwind" fn search(state: *mut lua_State) -> c_int {
    // SAFETY: the upvalues are those that `install` gave; nothing in this frame needs dropping when Lua raises.
    unsafe {
        let mut len = 0;
        let name = ffi::luaL_checklstring(state, 1, &mut len);
        ffi::lua_pushvalue(state, 1);
        ffi::lua_rawget_(state, ffi::lua_upvalueindex(2));
        if ffi::lua_type(state, -1) == ffi::LUA_TFUNCTION {
            return 1;
        }
        let wanted = std::slice::from_raw_parts(name.cast::<u8>(), len);
        let builtin = &*ffi::lua_touserdata(state, ffi::lua_upvalueindex(1)).cast::<Builtin>();
        let Some((_, source)) = builtin.0.iter().find(|(name, _)| name.as_bytes() == wanted) else {
            ffi::lua_pushfstring(state, c"\n\tno built-in module '%s'".as_ptr(), name);
            return 1;
        };
        let chunk_name = ffi::lua_pushfstring(state, c"=builtin:%s".as_ptr(), name);
        if ffi::luaL_loadbuffer(state, source.as_ptr().cast(), source.len(), chunk_name) != ffi::LUA_OK {
            ffi::lua_error(state);
        }
        1
    }
}

/// Loader of the module `terrace.yielded`: a function that tells whether a coroutine has yielded, which
/// `coroutine.status` cannot tell from one that ended with results.
pub(crate) unsafe extern "C-unwind" fn open_yielded(state: *mut lua_State) -> c_int {
    unsafe extern "C-unwind" fn yielded(state: *mut lua_State) -> c_int {
        // SAFETY: the argument is checked before use; pushing a boolean does not raise.
        unsafe {
            let coroutine = ffi::lua_tothread(state, 1);
            let is = !coroutine.is_null() && ffi::lua_status(coroutine) == ffi::LUA_YIELD;
            ffi::lua_pushboolean(state, c_int::from(is));
        }
        1
    }
    // SAFETY: Lua calls this with room for 20 values.
    unsafe { ffi::lua_pushcclosure(state, yielded, 0) };
    1
}
