//! What the running code belongs to: its phase, its request's `ngx.ctx`, its arguments.

use std::ffi::{c_int, c_uint};
use std::rc::Rc;

use bytes::Bytes;
use terrace_http::Request;

use super::{DONE, NO_REQUEST, NOT_FOUND, Text, bytes, functions, give};
use crate::host::{Args, BodyArg, current};
use crate::phase::{LuaPhase, REQUEST};
use crate::vm::LuaVm;

functions! {
    "unsigned (*phase)(void)" => phase,
    "int (*context)(int *)" => context,
    "int (*body_arg)(terrace_text *)" => body_arg,
    "int (*set_body_arg)(const char *, size_t)" => set_body_arg,
    "int (*set_body_last)(int)" => set_body_last,
    "int (*set_arg)(int, terrace_text *)" => set_arg,
    "int (*headers_sent)(void)" => headers_sent,
    "int (*is_subrequest)(void)" => is_subrequest,
}

/// The phase's bit; that of `init_by_lua*` where no run is under way.
extern "C" fn phase() -> c_uint {
    current(|h| h.phase as c_uint).unwrap_or(LuaPhase::Init as c_uint)
}

/// A request's key into the table of `ngx.ctx` tables.
struct Context {
    key: c_int,
    lua: Rc<LuaVm>,
}

impl Drop for Context {
    fn drop(&mut self) {
        self.lua.give_context(self.key);
    }
}

/// The key of a request's `ngx.ctx`, and whether it was given just now.
pub fn key_of(r: &Request, lua: &Rc<LuaVm>) -> (c_int, bool) {
    if let Some(c) = r.state::<Context>() {
        return (c.key, false);
    }
    let key = lua.take_context();
    r.put_state(Rc::new(Context { key, lua: Rc::clone(lua) }));
    (key, true)
}

/// The key of the request's `ngx.ctx`; `is_new` says that the table under it is another request's leftover.
extern "C" fn context(is_new: *mut c_int) -> c_int {
    let found = current(|h| key_of(&h.request, &h.lua));
    let Some((key, new)) = found else { return NO_REQUEST };
    // SAFETY: Lua passes a pointer to an int of its own.
    unsafe { is_new.write(c_int::from(new)) };
    key
}

/// `ngx.arg[1]` of a body filter; the answer is `ngx.arg[2]`.
extern "C" fn body_arg(out: *mut Text) -> c_int {
    current(|h| {
        let body = h.body()?.borrow();
        // SAFETY: Lua passes a text of its own.
        unsafe { give(out, |b| b.extend_from_slice(&body.data)) };
        Some(c_int::from(body.last))
    })
    .flatten()
    .unwrap_or(NO_REQUEST)
}

/// `ngx.arg[n]` of a `set_by_lua*`, from 1.
extern "C" fn set_arg(n: c_int, out: *mut Text) -> c_int {
    current(|h| {
        let Args::Set(args) = &h.args else { return NOT_FOUND };
        let Some(arg) = usize::try_from(n).ok().and_then(|n| args.get(n.checked_sub(1)?)) else {
            return NOT_FOUND;
        };
        // SAFETY: Lua passes a text of its own.
        unsafe { give(out, |b| b.extend_from_slice(arg)) };
        DONE
    })
    .unwrap_or(NO_REQUEST)
}

extern "C" fn set_body_arg(data: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    let data = Bytes::copy_from_slice(unsafe { bytes(data, len) });
    with_body(|body| body.data = data)
}

extern "C" fn set_body_last(last: c_int) -> c_int {
    with_body(|body| body.last = last != 0)
}

fn with_body(f: impl FnOnce(&mut BodyArg)) -> c_int {
    current(|h| h.body().map(|body| f(&mut body.borrow_mut()))).flatten().map_or(NO_REQUEST, |()| DONE)
}

extern "C" fn headers_sent() -> c_int {
    current(|h| if h.is_in(REQUEST) { c_int::from(h.request.output.is_started()) } else { NOT_FOUND })
        .unwrap_or(NO_REQUEST)
}

extern "C" fn is_subrequest() -> c_int {
    current(|h| c_int::from(h.request.is_subrequest())).unwrap_or(0)
}
