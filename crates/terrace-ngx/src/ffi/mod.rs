//! The functions that Lua calls through pointers, by area. Each area lists its functions with their C declarations;
//! the lists together are the struct `terrace_native`, whose fields `require "terrace.native"` has.
//!
//! Rules: a function returns codes (below) and never raises, unwinds, calls Lua, or keeps a pointer into Lua's memory.
//! Bytes that go out are left in this thread's scratch buffer ([`give`]), which the next call may overwrite.

mod balancer;
pub mod body;
mod cipher;
pub mod context;
mod digest;
mod encode;
pub mod errlog;
mod handshake;
mod header;
mod log;
pub mod nginx;
mod ocsp;
pub mod output;
pub mod pairs;
mod re;
pub mod req;
mod rsa;
pub mod shared;
pub mod ssl;
mod time;
mod upstream;
mod upstream_handshake;
mod var;
pub mod worker;
mod zlib;

use std::cell::RefCell;
use std::ffi::{CStr, c_int, c_void};

/// One function.
pub struct Function {
    /// `int (*name)(const char *, size_t)`
    pub declaration: &'static str,
    /// Its address.
    pub pointer: *const c_void,
}

/// Lists an area's functions: `functions! { "int (*f)(int)" => f, … }`.
macro_rules! functions {
    ($($declaration:literal => $function:path,)*) => {
        /// This area's functions.
        pub fn functions() -> Vec<crate::ffi::Function> {
            vec![$(crate::ffi::Function {
                declaration: $declaration,
                pointer: $function as *const std::ffi::c_void,
            },)*]
        }
    };
}
pub(crate) use functions;

/// Done.
pub const DONE: c_int = 0;
/// There is no such thing.
pub const NOT_FOUND: c_int = -1;
/// An operation was recorded: the Lua side must return `sched.await()`.
pub const AWAIT: c_int = 1;
/// There is no request (`no request found`).
pub const NO_REQUEST: c_int = -100;
/// Not in this phase (`API disabled in the context of …`).
pub const BAD_CONTEXT: c_int = -101;
/// The error's text is in the scratch buffer.
pub const FAILED: c_int = -102;

/// What [`NO_REQUEST`] and [`BAD_CONTEXT`] mean where the running code is, as an error's text.
pub fn context_name(code: c_int) -> &'static CStr {
    use crate::phase::LuaPhase;
    if code == NO_REQUEST {
        return c"no request found";
    }
    match crate::host::current(|h| h.phase) {
        None | Some(LuaPhase::Init) => c"API disabled in the context of init_by_lua*",
        Some(LuaPhase::InitWorker) => c"API disabled in the context of init_worker_by_lua*",
        Some(LuaPhase::Set) => c"API disabled in the context of set_by_lua*",
        Some(LuaPhase::Rewrite) => c"API disabled in the context of rewrite_by_lua*",
        Some(LuaPhase::Access) => c"API disabled in the context of access_by_lua*",
        Some(LuaPhase::Content) => c"API disabled in the context of content_by_lua*",
        Some(LuaPhase::HeaderFilter) => c"API disabled in the context of header_filter_by_lua*",
        Some(LuaPhase::BodyFilter) => c"API disabled in the context of body_filter_by_lua*",
        Some(LuaPhase::Log) => c"API disabled in the context of log_by_lua*",
        Some(LuaPhase::Timer) => c"API disabled in the context of ngx.timer",
        Some(LuaPhase::Balancer) => c"API disabled in the context of balancer_by_lua*",
        Some(LuaPhase::ServerRewrite) => c"API disabled in the context of server_rewrite_by_lua*",
        Some(LuaPhase::Precontent) => c"API disabled in the context of precontent_by_lua*",
        Some(LuaPhase::SslClientHello) => c"API disabled in the context of ssl_client_hello_by_lua*",
        Some(LuaPhase::SslCertificate) => c"API disabled in the context of ssl_certificate_by_lua*",
        Some(LuaPhase::SslSessionFetch) => c"API disabled in the context of ssl_session_fetch_by_lua*",
        Some(LuaPhase::SslSessionStore) => c"API disabled in the context of ssl_session_store_by_lua*",
        Some(LuaPhase::ProxySslCertificate) => {
            c"API disabled in the context of proxy_ssl_certificate_by_lua*"
        }
        Some(LuaPhase::ProxySslVerify) => c"API disabled in the context of proxy_ssl_verify_by_lua*",
        Some(LuaPhase::ExitWorker) => c"API disabled in the context of exit_worker_by_lua*",
    }
}

/// The declaration of `struct terrace_native` and the block of addresses behind it.
pub fn table() -> (String, Vec<*const c_void>) {
    let areas = [
        balancer::functions(),
        body::functions(),
        cipher::functions(),
        context::functions(),
        digest::functions(),
        encode::functions(),
        errlog::functions(),
        handshake::functions(),
        header::functions(),
        log::functions(),
        ocsp::functions(),
        output::functions(),
        req::functions(),
        re::functions(),
        rsa::functions(),
        shared::functions(),
        ssl::functions(),
        time::functions(),
        upstream::functions(),
        upstream_handshake::functions(),
        var::functions(),
        worker::functions(),
        zlib::functions(),
        crate::yielding::functions(),
    ];
    let all: Vec<Function> = areas.into_iter().flatten().collect();
    let rows: String = all.iter().map(|f| format!("    {};\n", f.declaration)).collect();
    let declaration = format!(
        "typedef struct {{ const char *data; size_t len; }} terrace_text;{}{}struct terrace_native {{\n{rows}}};\n",
        pairs::DECLARATION,
        crate::yielding::socket::DECLARATION
    );
    (declaration, all.into_iter().map(|f| f.pointer).collect())
}

/// Bytes on their way to Lua (`terrace_text`).
#[repr(C)]
pub struct Text {
    data: *const u8,
    len: usize,
}

impl Text {
    /// Points at bytes that the caller keeps where they are until Lua has copied them, before its next call.
    pub fn of(bytes: &[u8]) -> Text {
        Text { data: bytes.as_ptr(), len: bytes.len() }
    }

    /// A mere number.
    pub fn of_len(len: usize) -> Text {
        Text { data: std::ptr::null(), len }
    }

    /// Parts it in two.
    pub fn split_at(&self, at: usize) -> (Text, Text) {
        let at = at.min(self.len);
        // The sum stays within the bytes pointed at, or is one past them.
        (Text { data: self.data, len: at }, Text { data: self.data.wrapping_add(at), len: self.len - at })
    }
}

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer that grew beyond this is freed at the next use.
const SCRATCH_KEPT_BYTES_MAX: usize = 1 << 20;

/// Lets `fill` write bytes for Lua and points `out` at them. The bytes live until the next call that gives any.
///
/// # Safety
/// `out` must be null or point at a `terrace_text` of the caller.
pub unsafe fn give<R>(out: *mut Text, fill: impl FnOnce(&mut Vec<u8>) -> R) -> R {
    // Taken out while it is filled: filling may evaluate variables, which may end up here again.
    let mut buf =
        SCRATCH.with(|s| s.try_borrow_mut().map(|mut s| std::mem::take(&mut *s)).unwrap_or_default());
    if buf.capacity() > SCRATCH_KEPT_BYTES_MAX {
        buf = Vec::new();
    }
    buf.clear();
    let result = fill(&mut buf);
    if !out.is_null() {
        // SAFETY: the caller's promise; the buffer's memory stays where it is when the Vec moves.
        unsafe { out.write(Text { data: buf.as_ptr(), len: buf.len() }) };
    }
    SCRATCH.with(|s| {
        if let Ok(mut s) = s.try_borrow_mut() {
            *s = buf;
        }
    });
    result
}

/// Leaves an error's text for Lua.
///
/// # Safety
/// As [`give`].
pub unsafe fn fail(out: *mut Text, message: &str) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { give(out, |b| b.extend_from_slice(message.as_bytes())) };
    FAILED
}

/// The bytes of a Lua string.
///
/// # Safety
/// `data` must point at `len` bytes that stay while the slice is used; Lua keeps its arguments for the call.
pub unsafe fn bytes<'a>(data: *const u8, len: usize) -> &'a [u8] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// A number as Lua prints it (`%.14g`).
pub fn number_text(n: f64) -> String {
    if n == n.trunc() && n.abs() < 1e15 {
        return format!("{}", n as i64);
    }
    let mut buf = [0_u8; 40];
    // SAFETY: the buffer is larger than any `%.14g`, and snprintf writes no more than its size.
    let len = unsafe { libc::snprintf(buf.as_mut_ptr().cast(), buf.len(), c"%.14g".as_ptr(), n) };
    let len = usize::try_from(len).unwrap_or(0).min(buf.len() - 1);
    String::from_utf8_lossy(&buf[..len]).into_owned()
}
