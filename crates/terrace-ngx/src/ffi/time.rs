//! Time: the worker's cached clock, and dates as text.

use std::ffi::c_int;

use terrace_base::{clock, http_date};

use super::{DONE, NOT_FOUND, Text, bytes, functions, give};

functions! {
    "double (*now)(void)" => now,
    "double (*time)(void)" => time,
    "double (*monotonic_ms)(void)" => monotonic_ms,
    "int (*update_time)(void)" => update_time,
    "int (*local_time)(terrace_text *)" => local_time,
    "int (*http_time)(double, terrace_text *)" => http_time,
    "int (*cookie_time)(double, terrace_text *)" => cookie_time,
    "double (*parse_http_time)(const char *, size_t)" => parse_http_time,
}

extern "C" fn now() -> f64 {
    clock::now_ms() as f64 / 1000.0
}

extern "C" fn time() -> f64 {
    clock::now_secs() as f64
}

extern "C" fn monotonic_ms() -> f64 {
    clock::monotonic_ms() as f64
}

extern "C" fn update_time() -> c_int {
    clock::update();
    DONE
}

/// `2026-11-21 07:38:00`
extern "C" fn local_time(out: *mut Text) -> c_int {
    let mut text = clock::log_time();
    for b in &mut text {
        if *b == b'/' {
            *b = b'-';
        }
    }
    // SAFETY: Lua passes a text of its own.
    unsafe { give(out, |b| b.extend_from_slice(&text)) };
    DONE
}

/// Negative seconds, which no HTTP date can show, count as 0.
extern "C" fn http_time(seconds: f64, out: *mut Text) -> c_int {
    // SAFETY: Lua passes a text of its own.
    unsafe { give(out, |b| b.extend_from_slice(&http_date::format(seconds as u64))) };
    DONE
}

extern "C" fn cookie_time(seconds: f64, out: *mut Text) -> c_int {
    // SAFETY: Lua passes a text of its own.
    unsafe { give(out, |b| b.extend_from_slice(http_date::cookie_time(seconds as u64).as_bytes())) };
    DONE
}

/// -1 for what is no date.
extern "C" fn parse_http_time(text: *const u8, len: usize) -> f64 {
    // SAFETY: a Lua string.
    let text = unsafe { bytes(text, len) };
    http_date::parse(text).map_or(f64::from(NOT_FOUND), |t| t as f64)
}
