//! What a chunk is compiled to, as LuaJIT writes it down (`lj_bcdump.h`), changed in one bit.
//!
//! To LuaJIT a chunk is a function of any number of arguments, and it counts no calls of those: a chunk that is called for
//! every request is interpreted for ever. One that does not look at its arguments is the same function without them.

use std::ffi::{CStr, c_char, c_int, c_void};

use mlua_sys as ffi;
use mlua_sys::lua_State;

/// What every dump of the format's version begins with.
const SIGNATURE: &[u8] = b"\x1bLJ\x02";
/// The dump's bytes are the other way round than the machine's.
const BIG_ENDIAN: u32 = 1;
/// The dump has no debug information.
const STRIPPED: u32 = 2;
/// The function takes any number of arguments.
const ANY_ARGUMENTS: u8 = 2;

/// Compiles a chunk, or an error, onto the stack.
///
/// # Safety
/// `state` must be live and have room for a value.
pub(crate) unsafe fn load(state: *mut lua_State, code: &[u8], name: &CStr) -> c_int {
    // SAFETY: the caller's promise; both texts outlive the call, which catches its own errors.
    unsafe { ffi::luaL_loadbuffer(state, code.as_ptr().cast::<c_char>(), code.len(), name.as_ptr()) }
}

/// Puts in the place of the chunk on the stack one that takes no arguments, and so can be compiled, if its code does not
/// look at them.
///
/// # Safety
/// `state` must be live, have room for two values, and have the chunk of `code` on top.
pub(crate) unsafe fn drop_arguments(state: *mut lua_State, code: &[u8], name: &CStr) {
    // What has no arguments may not name them.
    let inside = [&b"return function() "[..], code, b"\nend"].concat();
    // SAFETY: the caller's promise; whatever a load leaves is taken off again, the dump's writer neither raises nor keeps
    // its arguments, and LuaJIT reads a dump as it wrote it but for a flag.
    unsafe {
        let status = load(state, &inside, name);
        ffi::lua_settop(state, -2);
        let mut dump = Vec::<u8>::new();
        if status != ffi::LUA_OK
            || ffi::lua_dump_(state, write_dump, (&raw mut dump).cast()) != 0
            || !take_no_arguments(&mut dump)
        {
            return;
        }
        if load(state, &dump, name) == ffi::LUA_OK {
            ffi::lua_replace(state, -2);
        } else {
            ffi::lua_settop(state, -2);
        }
    }
}

/// Appends a piece of a dump to a `Vec<u8>`.
unsafe extern "C-unwind" fn write_dump(
    _: *mut lua_State,
    piece: *const c_void,
    len: usize,
    dump: *mut c_void,
) -> c_int {
    // SAFETY: LuaJIT passes a piece of so many bytes, and the vector that the dump was asked for with.
    unsafe { (*dump.cast::<Vec<u8>>()).extend_from_slice(std::slice::from_raw_parts(piece.cast(), len)) };
    0
}

/// Makes the chunk of a dump a function without arguments. Its code must not use `...`.
///
/// False where the dump is left as it is: because it is not as expected, or because the code has a table with a list of
/// constants. A dump does not tell how much room such a list has to grow, but `#` of a list with holes does.
fn take_no_arguments(dump: &mut [u8]) -> bool {
    let flags =
        chunk_flags(dump).and_then(|at| dump.get_mut(at)).filter(|flags| **flags & ANY_ARGUMENTS != 0);
    match flags {
        Some(flags) => {
            *flags &= !ANY_ARGUMENTS;
            true
        }
        None => false,
    }
}

/// Where the flags of the chunk's own function stand, which comes behind those that it contains.
fn chunk_flags(dump: &[u8]) -> Option<usize> {
    let mut rest = Reader(dump.strip_prefix(SIGNATURE)?);
    if rest.number()? & (BIG_ENDIAN | STRIPPED) != 0 {
        return None;
    }
    let name_len = rest.number()?;
    rest.take(name_len)?;
    let mut last = None;
    loop {
        match rest.number()? {
            0 => break,
            function_len => {
                last = Some(dump.len() - rest.0.len());
                Reader(rest.take(function_len)?).pass_function()?;
            }
        }
    }
    if rest.0.is_empty() { last } else { None }
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: u32) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len as usize)?;
        self.0 = rest;
        Some(taken)
    }

    /// A number of seven bits a byte, the lowest first.
    fn number(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in (0..32).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn pass_numbers(&mut self, count: u32) -> Option<()> {
        (0..count).try_for_each(|_| self.number().map(|_| ()))
    }

    /// Reads a function as far as its constants that are objects; `None` if a list is among them.
    fn pass_function(&mut self) -> Option<()> {
        let [_flags, _parameters, _frame_size, upvalues] = *self.take(4)? else { return None };
        let objects = self.number()?;
        let _numbers = self.number()?;
        let instructions = self.number()?;
        if self.number()? != 0 {
            // Debug information: the first line, and how many.
            self.pass_numbers(2)?;
        }
        self.take(instructions.checked_mul(4)?)?;
        self.take(u32::from(upvalues) * 2)?;
        (0..objects).try_for_each(|_| self.pass_object())
    }

    fn pass_object(&mut self) -> Option<()> {
        match self.number()? {
            // A function, which was written before.
            0 => Some(()),
            1 => self.pass_table(),
            // Integers of 64 bits, signed or not.
            2 | 3 => self.pass_numbers(2),
            // A complex number.
            4 => self.pass_numbers(4),
            string => self.take(string - 5).map(|_| ()),
        }
    }

    fn pass_table(&mut self) -> Option<()> {
        if self.number()? != 0 {
            return None;
        }
        let pairs = self.number()?;
        (0..pairs).try_for_each(|_| self.pass_field().and_then(|()| self.pass_field()))
    }

    /// A key or a value of a table.
    fn pass_field(&mut self) -> Option<()> {
        match self.number()? {
            // nil, false, true.
            0..=2 => Some(()),
            3 => self.pass_numbers(1),
            // A number with a fraction.
            4 => self.pass_numbers(2),
            string => self.take(string - 5).map(|_| ()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A chunk whose constants are of every kind but a list.
    const CODE: &[u8] = b"local t = { name = 'value', [0.5] = -1, [true] = false, long = 1e300 } \
        local function inner() return 5LL, 6ULL, 7i, 0.25, t end \
        return inner, { empty = nil }, t.name .. 'a text that is longer than the hundred and twenty-seven bytes whose \
        length a single byte of a dump can tell, which makes it two' .. 'and a short one'";

    fn dump(code: &[u8]) -> Vec<u8> {
        let mut dump = Vec::<u8>::new();
        // SAFETY: a state of its own, with room for a value.
        unsafe {
            let state = ffi::luaL_newstate();
            ffi::luaL_openlibs(state);
            assert_eq!(load(state, code, c"=t"), ffi::LUA_OK);
            ffi::lua_dump_(state, write_dump, (&raw mut dump).cast());
            ffi::lua_close(state);
        }
        dump
    }

    #[test]
    fn one_bit_of_the_chunk_is_changed() {
        let before = dump(CODE);
        let mut changed = before.clone();
        assert!(take_no_arguments(&mut changed));
        let differ: Vec<_> = (0..before.len()).filter(|i| before[*i] != changed[*i]).collect();
        assert_eq!(differ.len(), 1);
        assert_eq!(before[differ[0]] - changed[differ[0]], ANY_ARGUMENTS);
        assert!(!take_no_arguments(&mut changed), "it takes none any more");
    }

    #[test]
    fn a_list_of_constants_stays() {
        for code in [&b"return { 1, 2 }"[..], b"return function() return { 'a', name = 1 } end"] {
            let before = dump(code);
            let mut same = before.clone();
            assert!(!take_no_arguments(&mut same));
            assert_eq!(same, before);
        }
    }

    #[test]
    fn what_is_not_as_expected_stays() {
        let whole = dump(CODE);
        for end in 0..whole.len() {
            let mut cut = whole[..end].to_vec();
            assert!(!take_no_arguments(&mut cut), "cut at {end}");
            assert_eq!(cut, whole[..end]);
        }
        for (at, byte) in [(3, 1), (4, 1), (4, 2)] {
            let mut other = whole.clone();
            other[at] = byte;
            assert!(!take_no_arguments(&mut other), "{byte} at {at}");
        }
        let longer = [&whole[..], &[0]].concat();
        assert!(!take_no_arguments(&mut longer.clone()));
        assert!(!take_no_arguments(&mut b"return 1".to_vec()));
    }
}
