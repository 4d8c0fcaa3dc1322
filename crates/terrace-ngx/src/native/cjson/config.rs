//! What a `cjson` module remembers: its settings, and the memory that its calls reuse.
//!
//! Every `cjson.new()` has its own [`Module`], a userdata that is the first upvalue of each of its functions. Invariant:
//! everything with a destructor lives in a userdata, so that a Lua error, which may unwind any call into Lua, skips none.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use mlua_sys::{
    LUA_REGISTRYINDEX, LUA_TBOOLEAN, LUA_TNIL, lua_Integer, lua_State, lua_createtable, lua_gettop,
    lua_newuserdata, lua_pushboolean, lua_pushcclosure, lua_pushfstring, lua_pushinteger,
    lua_pushlightuserdata, lua_pushlstring_, lua_rawget_, lua_rawset, lua_setfield, lua_setmetatable,
    lua_settop, lua_toboolean, lua_tostring, lua_touserdata, lua_type, lua_upvalueindex, luaL_argerror,
    luaL_checkinteger, luaL_checklstring, luaL_checkoption, luaL_error,
};

use super::decode::Tape;

/// Bytes of scratch memory a module keeps from call to call; what a greater document needed is given back.
const SCRATCH_KEPT_BYTES_MAX: usize = 1024 * 1024;

/// How to encode. Copied for each call, because a metamethod may change the settings in the middle of one.
#[derive(Clone, Copy)]
pub(super) struct EncodeSettings {
    pub sparse_convert: bool,
    pub sparse_ratio: c_int,
    pub sparse_safe: c_int,
    pub max_depth: c_int,
    pub invalid_numbers: InvalidNumbers,
    /// Significant digits, 1 to 16.
    pub number_precision: c_int,
    pub empty_table_as_object: bool,
    pub escape_forward_slash: bool,
    pub skip_unsupported: bool,
    /// Address of `array_mt`, which the registry keeps alive.
    pub array_mt: *const c_void,
    /// Address of `empty_array_mt`, kept alive likewise.
    pub empty_array_mt: *const c_void,
}

/// What becomes of NaN and the infinities. The numbers are the places in the list of options.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InvalidNumbers {
    Error = 0,
    Write = 1,
    Null = 2,
}

/// How to decode.
#[derive(Clone, Copy)]
pub(super) struct DecodeSettings {
    pub max_depth: c_int,
    pub invalid_numbers: bool,
    pub array_with_array_mt: bool,
    pub allow_comment: bool,
}

/// Memory for one call at a time.
#[derive(Default)]
pub(super) struct Scratch {
    /// The document being written.
    pub out: Vec<u8>,
    /// The indentation unit of the document being written.
    pub indent: Vec<u8>,
    /// The document being read.
    pub tape: Tape,
}

impl Scratch {
    fn shrink(&mut self, keep_out: bool) {
        if !keep_out || self.out.capacity() > SCRATCH_KEPT_BYTES_MAX {
            self.out = Vec::new();
        }
        self.tape.shrink(SCRATCH_KEPT_BYTES_MAX);
    }
}

/// The state of one `cjson` instance.
pub(super) struct Module {
    pub encode: EncodeSettings,
    pub decode: DecodeSettings,
    keep_buffer: bool,
    indent: Vec<u8>,
    scratch: Scratch,
    /// A call is using `scratch`. Stays set when memory ran out in the middle of a call; later calls then bring their own.
    busy: bool,
}

/// The registry key, by address, of `array_mt`; as a light userdata also the value `empty_array`.
static ARRAY_KEY: u64 = 0x6172_7261_795f_6d74;
/// The registry key, by address, of `empty_array_mt`.
static EMPTY_ARRAY_KEY: u64 = 0x656d_7074_795f_6d74;

/// The light userdata behind `cjson.empty_array`.
pub(super) fn empty_array() -> *mut c_void {
    ptr::from_ref(&ARRAY_KEY).cast_mut().cast()
}

/// Pushes `array_mt`.
///
/// # Safety
/// `lua` is a live state with a free slot, and a module has been made in it.
pub(super) unsafe fn push_array_mt(lua: *mut lua_State) {
    // SAFETY: as the caller promises.
    unsafe { push_metatable(lua, empty_array()) }
}

/// Pushes `empty_array_mt`.
///
/// # Safety
/// As for [`push_array_mt`].
pub(super) unsafe fn push_empty_array_mt(lua: *mut lua_State) {
    // SAFETY: as the caller promises.
    unsafe { push_metatable(lua, ptr::from_ref(&EMPTY_ARRAY_KEY).cast_mut().cast()) }
}

/// Pushes the table stored in the registry under `key`, making it at the first call in a state.
///
/// # Safety
/// `lua` is a live state with four free slots.
unsafe fn push_metatable(lua: *mut lua_State, key: *mut c_void) {
    // SAFETY: each call pushes and pops as its comment says; nothing with a destructor is alive.
    unsafe {
        lua_pushlightuserdata(lua, key);
        lua_rawget_(lua, LUA_REGISTRYINDEX);
        if lua_type(lua, -1) == LUA_TNIL {
            lua_settop(lua, -2);
            lua_pushlightuserdata(lua, key);
            lua_createtable(lua, 0, 0);
            lua_rawset(lua, LUA_REGISTRYINDEX);
            lua_pushlightuserdata(lua, key);
            lua_rawget_(lua, LUA_REGISTRYINDEX);
        }
    }
}

/// Pushes a userdata holding `T::default()`-like `value`, dropped by `finalizer`.
///
/// # Safety
/// `lua` is a live state with four free slots; `finalizer` treats its argument as a `T`.
unsafe fn push_owned<T>(
    lua: *mut lua_State,
    make: fn() -> T,
    finalizer: unsafe extern "C-unwind" fn(*mut lua_State) -> c_int,
) -> *mut T {
    const { assert!(align_of::<T>() <= 8, "userdata is aligned to 8 bytes") };
    // SAFETY: the value is written before the finalizer is attached; `make` allocates nothing that an error in between
    // could leak, since its vectors are empty.
    unsafe {
        let place = lua_newuserdata(lua, size_of::<T>()).cast::<T>();
        place.write(make());
        lua_createtable(lua, 0, 1);
        lua_pushcclosure(lua, finalizer, 0);
        lua_setfield(lua, -2, c"__gc".as_ptr());
        lua_setmetatable(lua, -2);
        place
    }
}

/// Pushes a new module state with the default settings.
///
/// # Safety
/// `lua` is a live state with six free slots.
pub(super) unsafe fn push_module(lua: *mut lua_State) {
    // SAFETY: as the caller promises; the finalizer takes a `Module`. The two tables are popped again, the registry keeps
    // them alive.
    unsafe {
        let module = push_owned(lua, Module::new, drop_module);
        push_array_mt(lua);
        (*module).encode.array_mt = mlua_sys::lua_topointer(lua, -1);
        push_empty_array_mt(lua);
        (*module).encode.empty_array_mt = mlua_sys::lua_topointer(lua, -1);
        lua_settop(lua, -3);
    }
}

unsafe extern "C-unwind" fn drop_module(lua: *mut lua_State) -> c_int {
    // SAFETY: only ever called on the userdata of `push_module`. The value stays valid, so that being finalized twice, or
    // used afterwards through the debug library, is harmless.
    unsafe {
        let module = lua_touserdata(lua, 1).cast::<Module>();
        if !module.is_null() {
            (*module).scratch = Scratch::default();
            (*module).indent = Vec::new();
        }
    }
    0
}

unsafe extern "C-unwind" fn drop_scratch(lua: *mut lua_State) -> c_int {
    // SAFETY: only ever called on the userdata of `lease`; the value stays valid.
    unsafe {
        let scratch = lua_touserdata(lua, 1).cast::<Scratch>();
        if !scratch.is_null() {
            *scratch = Scratch::default();
        }
    }
    0
}

impl Module {
    fn new() -> Self {
        Self {
            encode: EncodeSettings {
                sparse_convert: false,
                sparse_ratio: 2,
                sparse_safe: 10,
                max_depth: 1000,
                invalid_numbers: InvalidNumbers::Error,
                number_precision: 14,
                empty_table_as_object: true,
                escape_forward_slash: true,
                skip_unsupported: false,
                array_mt: ptr::null(),
                empty_array_mt: ptr::null(),
            },
            decode: DecodeSettings {
                max_depth: 1000,
                invalid_numbers: true,
                array_with_array_mt: false,
                allow_comment: false,
            },
            keep_buffer: true,
            indent: Vec::new(),
            scratch: Scratch::default(),
            busy: false,
        }
    }

    /// Memory for one call: the module's own, or, when a finalizer or metamethod calls in the middle of another call, a new
    /// one, which is left on the Lua stack and goes with it. The pointer is used by this call alone until [`release`].
    ///
    /// # Safety
    /// `module` is live and `lua` is the running state with four free slots.
    ///
    /// [`release`]: Self::release
    pub(super) unsafe fn lease(module: *mut Self, lua: *mut lua_State) -> *mut Scratch {
        // SAFETY: as the caller promises; no reference to the whole module is formed.
        unsafe {
            if (*module).busy {
                return push_owned(lua, Scratch::default, drop_scratch);
            }
            (*module).busy = true;
            &raw mut (*module).scratch
        }
    }

    /// Ends a lease.
    ///
    /// # Safety
    /// `scratch` is what [`lease`](Self::lease) gave for `module`, and no reference into it is left.
    pub(super) unsafe fn release(module: *mut Self, scratch: *mut Scratch) {
        // SAFETY: as the caller promises.
        unsafe {
            if scratch == &raw mut (*module).scratch {
                (*scratch).shrink((*module).keep_buffer);
                (*module).busy = false;
            }
        }
    }

    /// Copies the indentation unit.
    ///
    /// # Safety
    /// `module` is live.
    pub(super) unsafe fn copy_indent(module: *const Self, to: &mut Vec<u8>) {
        // SAFETY: the reference lives for the copy only, during which nothing else runs.
        let indent = unsafe { &(*module).indent };
        to.clear();
        to.extend_from_slice(indent);
    }
}

/// The module whose function is running.
///
/// # Safety
/// `lua` is the state in which one of this module's closures runs. Raises an error when the upvalue was tampered with.
pub(super) unsafe fn current(lua: *mut lua_State) -> *mut Module {
    // SAFETY: as the caller promises; nothing with a destructor is alive.
    unsafe {
        let module = lua_touserdata(lua, lua_upvalueindex(1)).cast::<Module>();
        if module.is_null() {
            luaL_error(lua, c"BUG: Unable to fetch CJSON configuration".as_ptr());
        }
        module
    }
}

/// Checks the number of arguments, fills up with nil.
unsafe fn arguments(lua: *mut lua_State, count: c_int) -> *mut Module {
    // SAFETY: called by the functions below, which run as closures of a module and hold nothing with a destructor.
    unsafe {
        if lua_gettop(lua) > count {
            luaL_argerror(lua, count + 1, c"found too many arguments".as_ptr());
        }
        lua_settop(lua, count);
        current(lua)
    }
}

/// Reads an integer setting from argument `index` unless it is nil; pushes the setting.
unsafe fn integer(lua: *mut lua_State, index: c_int, setting: *mut c_int, min: c_int, max: c_int) {
    // SAFETY: as for `arguments`; `setting` is a field of the live module.
    unsafe {
        if lua_type(lua, index) != LUA_TNIL {
            let value = luaL_checkinteger(lua, index);
            if value < lua_Integer::from(min) || value > lua_Integer::from(max) {
                lua_pushfstring(lua, c"expected integer between %d and %d".as_ptr(), min, max);
                luaL_argerror(lua, 1, lua_tostring(lua, -1));
            }
            *setting = value as c_int;
        }
        lua_pushinteger(lua, lua_Integer::from(*setting));
    }
}

const OFF_ON: [*const c_char; 3] = [c"off".as_ptr(), c"on".as_ptr(), ptr::null()];
const OFF_ON_NULL: [*const c_char; 4] = [c"off".as_ptr(), c"on".as_ptr(), c"null".as_ptr(), ptr::null()];

/// Reads a switch, a boolean or `"on"`/`"off"`, from argument `index` unless it is nil; pushes the setting.
unsafe fn switch(lua: *mut lua_State, index: c_int, setting: *mut bool) {
    // SAFETY: as for `integer`; the list of options ends with null.
    unsafe {
        match lua_type(lua, index) {
            LUA_TNIL => {}
            LUA_TBOOLEAN => *setting = lua_toboolean(lua, index) != 0,
            _ => *setting = luaL_checkoption(lua, index, ptr::null(), OFF_ON.as_ptr()) == 1,
        }
        lua_pushboolean(lua, c_int::from(*setting));
    }
}

/// Defines the Lua function of a setting with one argument.
macro_rules! setting {
    ($(#[$doc:meta])* $name:ident, $read:ident, $($field:ident).+ $(, $bound:expr)*) => {
        $(#[$doc])*
        pub(super) unsafe extern "C-unwind" fn $name(lua: *mut lua_State) -> c_int {
            // SAFETY: called by Lua as a closure over the module.
            unsafe {
                let module = arguments(lua, 1);
                $read(lua, 1, &raw mut (*module).$($field).+ $(, $bound)*);
            }
            1
        }
    };
}

setting!(encode_max_depth, integer, encode.max_depth, 1, c_int::MAX);
setting!(decode_max_depth, integer, decode.max_depth, 1, c_int::MAX);
setting!(encode_number_precision, integer, encode.number_precision, 1, 16);
setting!(encode_keep_buffer, switch, keep_buffer);
setting!(encode_empty_table_as_object, switch, encode.empty_table_as_object);
setting!(encode_escape_forward_slash, switch, encode.escape_forward_slash);
setting!(encode_skip_unsupported_value_types, switch, encode.skip_unsupported);
setting!(decode_invalid_numbers, switch, decode.invalid_numbers);
setting!(decode_array_with_array_mt, switch, decode.array_with_array_mt);
setting!(decode_allow_comment, switch, decode.allow_comment);

/// `encode_sparse_array(convert, ratio, safe)`.
pub(super) unsafe extern "C-unwind" fn encode_sparse_array(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Lua as a closure over the module.
    unsafe {
        let module = arguments(lua, 3);
        switch(lua, 1, &raw mut (*module).encode.sparse_convert);
        integer(lua, 2, &raw mut (*module).encode.sparse_ratio, 0, c_int::MAX);
        integer(lua, 3, &raw mut (*module).encode.sparse_safe, 0, c_int::MAX);
    }
    3
}

/// `encode_invalid_numbers(false | true | "null")`.
pub(super) unsafe extern "C-unwind" fn encode_invalid_numbers(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Lua as a closure over the module; the list of options ends with null.
    unsafe {
        let module = arguments(lua, 1);
        let chosen = match lua_type(lua, 1) {
            LUA_TNIL => (*module).encode.invalid_numbers as c_int,
            LUA_TBOOLEAN => lua_toboolean(lua, 1),
            _ => luaL_checkoption(lua, 1, ptr::null(), OFF_ON_NULL.as_ptr()),
        };
        let setting = match chosen {
            0 => InvalidNumbers::Error,
            1 => InvalidNumbers::Write,
            _ => InvalidNumbers::Null,
        };
        (*module).encode.invalid_numbers = setting;
        match setting {
            InvalidNumbers::Null => push_text(lua, c"null"),
            _ => lua_pushboolean(lua, chosen),
        }
    }
    1
}

/// `encode_indent(text)`.
pub(super) unsafe extern "C-unwind" fn encode_indent(lua: *mut lua_State) -> c_int {
    // SAFETY: called by Lua as a closure over the module. The bytes of the string in slot 1 are copied at once; the text
    // pushed lies in leased memory, which a finalizer that runs meanwhile cannot touch.
    unsafe {
        let module = arguments(lua, 1);
        if lua_type(lua, 1) != LUA_TNIL {
            let mut len = 0;
            let text = luaL_checklstring(lua, 1, &mut len);
            let text = std::slice::from_raw_parts(text.cast::<u8>(), len);
            let indent = &mut (*module).indent;
            indent.clear();
            indent.extend_from_slice(text);
        }
        let scratch = Module::lease(module, lua);
        let indent = &mut (*scratch).indent;
        Module::copy_indent(module, indent);
        lua_pushlstring_(lua, indent.as_ptr().cast(), indent.len());
        Module::release(module, scratch);
    }
    1
}

/// Pushes a constant text.
///
/// # Safety
/// `lua` is a live state with a free slot.
pub(super) unsafe fn push_text(lua: *mut lua_State, text: &'static CStr) {
    // SAFETY: as the caller promises.
    unsafe { lua_pushlstring_(lua, text.as_ptr(), text.count_bytes()) }
}
