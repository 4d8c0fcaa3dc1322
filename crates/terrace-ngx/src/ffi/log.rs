//! `ngx.log` and `print`.

use std::ffi::c_int;

use terrace_base::log::Level;

use super::{DONE, bytes, functions};
use crate::host::current;
use crate::phase::LuaPhase;

functions! {
    "int (*log_enabled)(int)" => log_enabled,
    "int (*log)(int, const char *, size_t)" => log,
}

fn level(n: c_int) -> Level {
    u8::try_from(n).ok().and_then(Level::from_number).unwrap_or(Level::Error)
}

extern "C" fn log_enabled(n: c_int) -> c_int {
    current(|h| c_int::from(h.request.logs(level(n)))).unwrap_or(1)
}

extern "C" fn log(n: c_int, text: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    let text = String::from_utf8_lossy(unsafe { bytes(text, len) });
    current(|h| {
        let doing = if h.phase == LuaPhase::Balancer { " while connecting to upstream" } else { "" };
        h.request.log(level(n), format_args!("{text}{doing}"));
    });
    DONE
}
