//! Lua errors as the host sees them, and tracebacks in OpenResty's layout: the failing coroutine is
//! "coroutine 0", the coroutines around it follow.

use std::ffi::{CStr, c_char, c_int};
use std::fmt::Write as _;
use std::mem::MaybeUninit;

use mlua_sys as ffi;
use mlua_sys::lua_State;

/// Frames that a traceback shows per coroutine.
const TRACEBACK_FRAMES_MAX: c_int = 22;

/// Coroutines that a traceback shows.
pub(crate) const TRACEBACK_COROUTINES_MAX: usize = 5;

/// The chunk name of the scheduler's own Lua code, whose frames a traceback leaves out.
pub(crate) const SCHEDULER_CHUNK: &CStr = c"=[terrace]";

/// What went wrong, in Lua's own classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The chunk does not compile.
    Syntax,
    /// The code raised an error.
    Runtime,
    /// Lua's allocator has no more memory.
    Memory,
    /// An error handler failed, or the stack overflowed inside one.
    Handler,
}

impl ErrorKind {
    /// The words that OpenResty puts before the message in its log.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorKind::Syntax => "syntax error",
            ErrorKind::Runtime => "runtime error",
            ErrorKind::Memory => "[lua] memory allocation error",
            ErrorKind::Handler => "error handler error",
        }
    }

    pub(crate) fn from_status(status: c_int) -> Self {
        match status {
            ffi::LUA_ERRSYNTAX => ErrorKind::Syntax,
            ffi::LUA_ERRMEM => ErrorKind::Memory,
            ffi::LUA_ERRERR => ErrorKind::Handler,
            _ => ErrorKind::Runtime,
        }
    }
}

/// An error that left Lua. The script is at fault, except for [`ErrorKind::Memory`]; a retry does not help.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct LuaError {
    /// The class.
    pub kind: ErrorKind,
    /// The error message, bytes that are not UTF-8 replaced; "unknown reason" for an error object that is neither a
    /// string or number nor has `__tostring`.
    pub message: String,
    /// Begins with "stack traceback:"; empty when there is no frame to show.
    pub traceback: String,
}

impl LuaError {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        LuaError { kind, message: message.into(), traceback: String::new() }
    }

    pub(crate) fn memory() -> Self {
        LuaError::new(ErrorKind::Memory, "not enough memory")
    }
}

/// The traceback of coroutines, the innermost first.
///
/// # Safety
/// Every pointer must be a live coroutine that is not running.
pub(crate) unsafe fn coroutines_traceback(coroutines: &[*mut lua_State]) -> String {
    let mut out = String::from("stack traceback:");
    for (number, &co) in coroutines.iter().enumerate() {
        let _ = write!(out, "\ncoroutine {number}:");
        // SAFETY: the caller vouches for the coroutine.
        unsafe { frames(co, 0, &mut out) };
    }
    out
}

/// The traceback of the running state from `level` on.
///
/// # Safety
/// `state` must be a live state.
pub(crate) unsafe fn state_traceback(state: *mut lua_State, level: c_int) -> String {
    let mut out = String::from("stack traceback:");
    // SAFETY: the caller vouches for the state.
    unsafe { frames(state, level, &mut out) };
    out
}

/// Appends one line per frame.
///
/// # Safety
/// `state` must be a live state.
unsafe fn frames(state: *mut lua_State, first: c_int, out: &mut String) {
    let mut level = first;
    let mut shown = 0;
    let mut debug = MaybeUninit::<ffi::lua_Debug>::zeroed();
    // SAFETY: `debug` is a plain C struct that lua_getstack and lua_getinfo fill; neither raises nor allocates
    // for these options.
    while unsafe { ffi::lua_getstack(state, level, debug.as_mut_ptr()) } != 0 {
        level += 1;
        // SAFETY: as above, and a zeroed lua_Debug is a valid value of it (null pointers, zero numbers).
        let frame = unsafe {
            ffi::lua_getinfo(state, c"Snl".as_ptr(), debug.as_mut_ptr());
            debug.assume_init_ref()
        };
        // SAFETY: short_src is a NUL-terminated array filled by lua_getinfo.
        let source = unsafe { text(frame.short_src.as_ptr()) };
        if source.as_bytes() == &SCHEDULER_CHUNK.to_bytes()[1..] {
            continue;
        }
        if shown == TRACEBACK_FRAMES_MAX {
            out.push_str("\n\t...");
            break;
        }
        shown += 1;
        let _ = write!(out, "\n\t{source}:");
        if frame.currentline > 0 {
            let _ = write!(out, "{}:", frame.currentline);
        }
        // SAFETY: the strings of a filled lua_Debug are NUL-terminated or null.
        let (name, name_kind, what) = unsafe { (text(frame.name), text(frame.namewhat), text(frame.what)) };
        if !name_kind.is_empty() {
            let _ = write!(out, " in function '{name}'");
        } else if what.starts_with('m') {
            out.push_str(" in main chunk");
        } else if what.starts_with('C') || what.starts_with('t') {
            out.push_str(" ?");
        } else {
            let _ = write!(out, " in function <{source}:{}>", frame.linedefined);
        }
    }
}

/// A C string as text; a null pointer reads as empty.
///
/// # Safety
/// `pointer` must be null or NUL-terminated, and the text must not outlive it.
unsafe fn text<'a>(pointer: *const c_char) -> std::borrow::Cow<'a, str> {
    if pointer.is_null() {
        return "".into();
    }
    // SAFETY: not null, and NUL-terminated by the caller's promise.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy()
}
