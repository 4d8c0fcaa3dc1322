//! From the list of nodes to Lua values: each table is made with its final size, nothing is kept outside Lua's stack.

use std::ffi::c_int;

use mlua_sys::{
    lua_State, lua_checkstack, lua_createtable, lua_pushboolean, lua_pushlightuserdata, lua_pushlstring_,
    lua_pushnumber, lua_rawset, lua_rawseti_, lua_setmetatable,
};

use super::config::{self, DecodeSettings};
use super::decode::{DecodeError, Node, Tape};

/// Slots of Lua's stack for each level of nesting: the table and, in an object, a key.
const SLOTS_PER_LEVEL: c_int = 2;
/// Slots for the value on top and for making a metatable's name.
const SLOTS_SPARE: c_int = 8;

/// Builds the document of `tape` and leaves it on top of the stack.
///
/// # Safety
/// `lua` is live, `source` is what `tape` was read from, and both stay as they are during the call.
pub(super) unsafe fn build(
    lua: *mut lua_State,
    source: &[u8],
    settings: &DecodeSettings,
    tape: &Tape,
) -> Result<(), DecodeError> {
    let too_deep = DecodeError::TooDeep { depth: tape.depth_max, at: tape.depth_max_at };
    let depth = c_int::try_from(tape.depth_max).unwrap_or(c_int::MAX);
    let slots = depth.saturating_mul(SLOTS_PER_LEVEL).saturating_add(SLOTS_SPARE);
    // SAFETY: the state is live; nothing with a destructor is alive here or below.
    if unsafe { lua_checkstack(lua, slots) } == 0 {
        return Err(too_deep);
    }
    let mut builder = Builder { lua, source, settings, tape, next: 0 };
    // SAFETY: the slots are there.
    unsafe { builder.value() };
    Ok(())
}

struct Builder<'a> {
    lua: *mut lua_State,
    source: &'a [u8],
    settings: &'a DecodeSettings,
    tape: &'a Tape,
    /// Index of the next node.
    next: usize,
}

impl Builder<'_> {
    /// Pushes the next value. Its depth on the machine stack is bounded by that of the document, for which Lua's stack had
    /// room (LuaJIT grants 8000 slots in all).
    ///
    /// # Safety
    /// The stack has room for the value.
    unsafe fn value(&mut self) {
        let lua = self.lua;
        let node = self.tape.nodes.get(self.next).copied().unwrap_or(Node::Null);
        self.next += 1;
        // SAFETY: the caller has seen to the room on the stack; each table is on top when its members are pushed.
        unsafe {
            match node {
                Node::Plain(start, len) => push(lua, self.source, start, len),
                Node::Unescaped(start, len) => push(lua, &self.tape.text, start, len),
                Node::Number(value) => lua_pushnumber(lua, value),
                Node::Boolean(value) => lua_pushboolean(lua, c_int::from(value)),
                Node::Null => lua_pushlightuserdata(lua, std::ptr::null_mut()),
                Node::Array(count) => {
                    let count = count as c_int;
                    lua_createtable(lua, count, 0);
                    if self.settings.array_with_array_mt {
                        config::push_array_mt(lua);
                        lua_setmetatable(lua, -2);
                    }
                    for index in 1..=count {
                        self.value();
                        lua_rawseti_(lua, -2, index);
                    }
                }
                Node::Object(count) => {
                    lua_createtable(lua, 0, count as c_int);
                    for _ in 0..count {
                        self.value();
                        self.value();
                        lua_rawset(lua, -3);
                    }
                }
            }
        }
    }
}

/// Pushes a part of `bytes` as a string.
///
/// # Safety
/// `lua` is live with a free slot.
#[inline]
unsafe fn push(lua: *mut lua_State, bytes: &[u8], start: u32, len: u32) {
    let start = start as usize;
    let part = bytes.get(start..start + len as usize).unwrap_or_default();
    // SAFETY: pointer and length describe `part`, which Lua copies.
    unsafe { lua_pushlstring_(lua, part.as_ptr().cast(), part.len()) }
}
