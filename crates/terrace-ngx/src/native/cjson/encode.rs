//! Writing a Lua value as JSON.
//!
//! Tables are told from arrays by their keys. The scalars of an array are written while its keys are checked, and taken
//! back when it turns out to be an object; nested tables are written only once that is known, so that no table is visited
//! more than twice.

use std::ffi::{CStr, c_int};

use mlua_sys::{
    LUA_TBOOLEAN, LUA_TLIGHTUSERDATA, LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE, lua_State,
    lua_checkstack, lua_getmetatable, lua_gettable_, lua_insert, lua_next, lua_objlen, lua_pcall,
    lua_pushcclosure, lua_pushnil, lua_pushnumber, lua_pushvalue, lua_rawgeti_, lua_settop, lua_toboolean,
    lua_tonumber, lua_topointer, lua_touserdata, lua_type, luaL_getmetafield_,
};

use super::config::{self, EncodeSettings, InvalidNumbers};
use super::{number, string_at};

/// The longest document: LuaJIT cannot make a longer string.
const OUT_BYTES_MAX: usize = 0x7fff_0000;
/// Slots of Lua's stack that one level of nesting may use: key, value, and what a metamethod's call needs.
const SLOTS_PER_LEVEL: c_int = 6;
/// Nesting which is refused whatever the settings say, because each level needs some of the machine stack.
const DEPTH_MAX: c_int = 2_000;

/// Why a value cannot be written. A plain value, so that it may be alive when Lua unwinds.
#[derive(Clone, Copy)]
pub(super) enum EncodeError {
    /// `kind` is a Lua type.
    Value { kind: c_int, reason: &'static CStr },
    /// With the depth that was reached.
    TooDeep(c_int),
    /// A metamethod raised an error, which is on top of the stack.
    Raised,
}

/// Whether a value was written, or left out because its type has no JSON.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    Skipped,
}

/// What the keys of a table say.
enum Shape {
    /// All keys are whole numbers up to this; elements up to the second number are written already.
    Array(c_int, c_int),
    Object,
}

pub(super) struct Encoder<'a> {
    lua: *mut lua_State,
    settings: EncodeSettings,
    /// Empty for compact output.
    indent: &'a [u8],
    out: &'a mut Vec<u8>,
}

impl<'a> Encoder<'a> {
    /// # Safety
    /// `lua` is live for as long as the encoder is used, and the memory is not used by anyone else.
    pub(super) unsafe fn new(
        lua: *mut lua_State,
        settings: EncodeSettings,
        indent: &'a [u8],
        out: &'a mut Vec<u8>,
    ) -> Self {
        Self { lua, settings, indent, out }
    }

    /// Writes the value on top of the stack and leaves it there. `depth` tables are open around it.
    ///
    /// # Safety
    /// As for [`new`](Self::new); the stack has six free slots.
    pub(super) unsafe fn value(&mut self, depth: c_int) -> Result<Written, EncodeError> {
        let lua = self.lua;
        // SAFETY: the value is on top; strings stay there while they are copied.
        unsafe {
            match lua_type(lua, -1) {
                LUA_TSTRING => self.string(string_at(lua, -1)),
                LUA_TNUMBER => self.number(lua_tonumber(lua, -1))?,
                LUA_TTABLE => self.table(depth + 1)?,
                LUA_TNIL => self.out.extend_from_slice(b"null"),
                LUA_TBOOLEAN if lua_toboolean(lua, -1) != 0 => self.out.extend_from_slice(b"true"),
                LUA_TBOOLEAN => self.out.extend_from_slice(b"false"),
                kind => return self.unusual(kind),
            }
        }
        Ok(Written::Yes)
    }

    /// A light userdata or a type without JSON.
    unsafe fn unusual(&mut self, kind: c_int) -> Result<Written, EncodeError> {
        if kind == LUA_TLIGHTUSERDATA {
            // SAFETY: the value is on top.
            let address = unsafe { lua_touserdata(self.lua, -1) };
            if address.is_null() {
                self.out.extend_from_slice(b"null");
                return Ok(Written::Yes);
            }
            if address == config::empty_array() {
                self.out.extend_from_slice(b"[]");
                return Ok(Written::Yes);
            }
        }
        if self.settings.skip_unsupported {
            return Ok(Written::Skipped);
        }
        Err(EncodeError::Value { kind, reason: c"type not supported" })
    }

    /// The table on top, the `depth`th that is open.
    unsafe fn table(&mut self, depth: c_int) -> Result<(), EncodeError> {
        let lua = self.lua;
        // SAFETY: the table is on top, and every path leaves it there; the slots are asked for first.
        unsafe {
            let depth_max = self.settings.max_depth.min(DEPTH_MAX);
            if depth > depth_max || lua_checkstack(lua, SLOTS_PER_LEVEL) == 0 {
                return Err(EncodeError::TooDeep(depth));
            }
            if lua_getmetatable(lua, -1) != 0 {
                let metatable = lua_topointer(lua, -1);
                lua_settop(lua, -2);
                if metatable == self.settings.array_mt {
                    let len = lua_objlen(lua, -1) as c_int;
                    return self.array(depth, 0, len, true);
                }
                if let Some(len) = self.len_metamethod()? {
                    return self.array(depth, 0, len, false);
                }
                return match self.shape(false)? {
                    Shape::Array(len, _) if len > 0 || !self.settings.empty_table_as_object => {
                        self.array(depth, 0, len, false)
                    }
                    _ if metatable == self.settings.empty_array_mt => {
                        let len = lua_objlen(lua, -1) as c_int;
                        self.array(depth, 0, len, true)
                    }
                    _ => self.object(depth),
                };
            }
            match self.shape(self.indent.is_empty() && !self.settings.skip_unsupported)? {
                Shape::Array(len, written) if len > 0 || !self.settings.empty_table_as_object => {
                    self.array(depth, written, len, true)
                }
                _ => self.object(depth),
            }
        }
    }

    /// Looks at the keys of the table on top. With `write`, the scalars at its start are written as an array's, from the
    /// bracket on; in case of an object they are taken back.
    unsafe fn shape(&mut self, write: bool) -> Result<Shape, EncodeError> {
        let lua = self.lua;
        let start = self.out.len();
        let mut may_write = write;
        let (mut max, mut items, mut written) = (0_i64, 0_i64, 0);
        // SAFETY: the table is on top with free slots above; `lua_next` runs no Lua code and the stack is restored.
        unsafe {
            lua_pushnil(lua);
            while lua_next(lua, -2) != 0 {
                let key = if lua_type(lua, -2) == LUA_TNUMBER { lua_tonumber(lua, -2) } else { 0.0 };
                let index = key as i64;
                if index as f64 != key || index < 1 || index > i64::from(c_int::MAX) {
                    lua_settop(lua, -3);
                    self.out.truncate(start);
                    return Ok(Shape::Object);
                }
                max = max.max(index);
                items += 1;
                if may_write {
                    may_write = index == i64::from(written) + 1 && self.scalar_element(written == 0)?;
                    written += c_int::from(may_write);
                }
                lua_settop(lua, -2);
            }
        }
        let (ratio, safe) = (i64::from(self.settings.sparse_ratio), i64::from(self.settings.sparse_safe));
        if ratio > 0 && max > items.saturating_mul(ratio) && max > safe {
            self.out.truncate(start);
            if self.settings.sparse_convert {
                return Ok(Shape::Object);
            }
            return Err(EncodeError::Value { kind: LUA_TTABLE, reason: c"excessively sparse array" });
        }
        Ok(Shape::Array(max as c_int, written))
    }

    /// Writes the value on top as an element if it is a string, a number or a boolean.
    unsafe fn scalar_element(&mut self, first: bool) -> Result<bool, EncodeError> {
        // SAFETY: the value is on top with free slots above.
        unsafe {
            if !matches!(lua_type(self.lua, -1), LUA_TSTRING | LUA_TNUMBER | LUA_TBOOLEAN) {
                return Ok(false);
            }
            let before = self.out.len();
            self.out.push(if first { b'[' } else { b',' });
            match self.value(0) {
                Ok(_) => Ok(true),
                Err(_) => {
                    // Left to the second visit: the table may still be an object, or too sparse.
                    self.out.truncate(before);
                    Ok(false)
                }
            }
        }
    }

    /// The table on top as an array of `len` elements, of which the first `written` are there already.
    unsafe fn array(
        &mut self,
        depth: c_int,
        written: c_int,
        len: c_int,
        raw: bool,
    ) -> Result<(), EncodeError> {
        let lua = self.lua;
        let mut first = written == 0;
        if first {
            self.out.push(b'[');
        }
        for index in written + 1..=len {
            let before = self.out.len();
            self.separate(first, depth)?;
            // SAFETY: the table is on top with free slots above; the element is popped again.
            unsafe {
                lua_rawgeti_(lua, -1, index);
                if !raw && lua_type(lua, -1) == LUA_TNIL {
                    lua_settop(lua, -2);
                    self.index_metamethod(index)?;
                }
                match self.value(depth)? {
                    Written::Yes => first = false,
                    Written::Skipped => self.out.truncate(before),
                }
                lua_settop(lua, -2);
            }
        }
        if len > 0 {
            self.new_line(depth - 1);
        }
        self.out.push(b']');
        Ok(())
    }

    /// The table on top as an object.
    unsafe fn object(&mut self, depth: c_int) -> Result<(), EncodeError> {
        let lua = self.lua;
        let mut first = true;
        let mut has_members = false;
        self.out.push(b'{');
        // SAFETY: the table is on top with free slots above. Keys are never converted in place, which would confuse
        // `lua_next`; strings stay on the stack while they are copied.
        unsafe {
            lua_pushnil(lua);
            while lua_next(lua, -2) != 0 {
                has_members = true;
                let before = self.out.len();
                self.separate(first, depth)?;
                match lua_type(lua, -2) {
                    LUA_TSTRING => self.string(string_at(lua, -2)),
                    LUA_TNUMBER => {
                        self.out.push(b'"');
                        self.number(lua_tonumber(lua, -2))?;
                        self.out.push(b'"');
                    }
                    kind => {
                        let reason = c"table key must be a number or string";
                        return Err(EncodeError::Value { kind, reason });
                    }
                }
                self.out.push(b':');
                if !self.indent.is_empty() {
                    self.out.push(b' ');
                }
                match self.value(depth)? {
                    Written::Yes => first = false,
                    Written::Skipped => self.out.truncate(before),
                }
                lua_settop(lua, -2);
            }
        }
        if has_members {
            self.new_line(depth - 1);
        }
        self.out.push(b'}');
        Ok(())
    }

    /// What comes before a member: a comma unless it is the first, and the line of its own that indentation asks for.
    #[inline]
    fn separate(&mut self, first: bool, depth: c_int) -> Result<(), EncodeError> {
        if self.out.len() > OUT_BYTES_MAX {
            return Err(EncodeError::Value { kind: LUA_TTABLE, reason: c"document too long" });
        }
        if !first {
            self.out.push(b',');
        }
        self.new_line(depth);
        Ok(())
    }

    #[inline]
    fn new_line(&mut self, depth: c_int) {
        if self.indent.is_empty() {
            return;
        }
        self.out.push(b'\n');
        for _ in 0..depth {
            self.out.extend_from_slice(self.indent);
        }
    }

    fn number(&mut self, value: f64) -> Result<(), EncodeError> {
        if value.is_finite() {
            number::append(self.out, value, self.settings.number_precision);
            return Ok(());
        }
        let text: &[u8] = match self.settings.invalid_numbers {
            InvalidNumbers::Error => {
                let reason = c"must not be NaN or Infinity";
                return Err(EncodeError::Value { kind: LUA_TNUMBER, reason });
            }
            InvalidNumbers::Null => b"null",
            InvalidNumbers::Write if value.is_nan() => b"NaN",
            InvalidNumbers::Write if value < 0.0 => b"-Infinity",
            InvalidNumbers::Write => b"Infinity",
        };
        self.out.extend_from_slice(text);
        Ok(())
    }

    /// Writes a string with its quotes. Bytes beyond ASCII stay as they are.
    #[inline]
    fn string(&mut self, text: &[u8]) {
        self.out.reserve(text.len() + 2);
        self.out.push(b'"');
        let mut rest = text;
        loop {
            let (clean, tail) = rest.split_at(clean_len(rest, self.settings.escape_forward_slash));
            self.out.extend_from_slice(clean);
            let Some((&byte, tail)) = tail.split_first() else { break };
            self.escape(byte);
            rest = tail;
        }
        self.out.push(b'"');
    }

    fn escape(&mut self, byte: u8) {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let short = match byte {
            b'"' | b'\\' | b'/' => byte,
            8 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            12 => b'f',
            b'\r' => b'r',
            _ => {
                let (high, low) = (HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]);
                self.out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
                return;
            }
        };
        self.out.extend_from_slice(&[b'\\', short]);
    }

    /// The length that `__len` gives for the table on top, if it has that metamethod.
    unsafe fn len_metamethod(&mut self) -> Result<Option<c_int>, EncodeError> {
        let lua = self.lua;
        // SAFETY: the table is on top with free slots above; in case of an error its value takes the function's place.
        unsafe {
            if luaL_getmetafield_(lua, -1, c"__len".as_ptr()) == 0 {
                return Ok(None);
            }
            lua_pushvalue(lua, -2);
            if lua_pcall(lua, 1, 1, 0) != 0 {
                return Err(EncodeError::Raised);
            }
            let len = lua_tonumber(lua, -1) as c_int;
            lua_settop(lua, -2);
            Ok(Some(len))
        }
    }

    /// Pushes element `index` of the table on top, by way of its `__index`.
    unsafe fn index_metamethod(&mut self, index: c_int) -> Result<(), EncodeError> {
        let lua = self.lua;
        // SAFETY: the table is on top with free slots above. The protected call keeps an error from unwinding through the
        // encoder, which would leave its memory leased.
        unsafe {
            lua_pushvalue(lua, -1);
            lua_pushcclosure(lua, get_table, 0);
            lua_insert(lua, -2);
            lua_pushnumber(lua, f64::from(index));
            if lua_pcall(lua, 2, 1, 0) != 0 {
                return Err(EncodeError::Raised);
            }
        }
        Ok(())
    }
}

unsafe extern "C-unwind" fn get_table(lua: *mut lua_State) -> c_int {
    // SAFETY: called with a table and a key by `index_metamethod`.
    unsafe { lua_gettable_(lua, 1) };
    1
}

/// How many bytes at the start of `text` need no escape.
#[inline]
fn clean_len(text: &[u8], escape_slash: bool) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    // The lowest set high bit marks the first byte of `word` that is below `limit`; higher ones may be false.
    let below = |word: u64, limit: u8| word.wrapping_sub(ONES * u64::from(limit)) & !word & HIGHS;
    let equal = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    // Without escaped slashes, a byte that is looked for anyway takes the place of the slash.
    let slash = if escape_slash { b'/' } else { b'"' };
    let mut at = 0;
    while let Some(chunk) = text.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        let found = below(word, 0x20)
            | equal(word, b'"')
            | equal(word, b'\\')
            | equal(word, slash)
            | equal(word, 0x7f);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while let Some(&byte) = text.get(at) {
        if byte < 0x20 || byte == b'"' || byte == b'\\' || byte == slash || byte == 0x7f {
            break;
        }
        at += 1;
    }
    at
}
