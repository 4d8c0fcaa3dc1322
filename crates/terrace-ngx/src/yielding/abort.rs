//! `ngx.on_abort`: a light thread that waits for the client to leave, and that its run does not wait for.

use std::ffi::c_int;
use std::future::poll_fn;
use std::rc::Rc;

use terrace_base::log::Level;
use terrace_lua::{Values, pending};

use crate::ffi::{AWAIT, BAD_CONTEXT, DONE, NO_REQUEST, functions};
use crate::host::current;
use crate::phase::RESPONDING;
use crate::settings::LuaLocation;

functions! {
    "int (*abort_register)(void)" => register,
    "int (*abort_wait)(void)" => wait,
}

/// There is a callback already.
const DUPLICATE: c_int = -2;
/// `lua_check_client_abort` is off.
const OFF: c_int = -3;

/// Marks a request that has a callback: its code decides what a client's leaving means.
pub struct OnAbort;

extern "C" fn register() -> c_int {
    current(|h| {
        let r = &h.request;
        if !h.is_in(RESPONDING) {
            return BAD_CONTEXT;
        }
        if r.state::<OnAbort>().is_some() {
            return DUPLICATE;
        }
        let is_on = r.settings::<LuaLocation>().is_some_and(LuaLocation::check_client_abort);
        if !is_on || r.is_subrequest() || r.client.is_none() {
            return OFF;
        }
        r.put_state(Rc::new(OnAbort));
        DONE
    })
    .unwrap_or(NO_REQUEST)
}

/// Waits until the client has left.
extern "C" fn wait() -> c_int {
    current(|h| {
        let r = Rc::clone(&h.request);
        let Some(client) = r.client.clone() else { return BAD_CONTEXT };
        pending::set(Box::pin(async move {
            poll_fn(|cx| client.poll_left(cx)).await;
            r.log(Level::Info, format_args!("client prematurely closed connection"));
            Values::new()
        }));
        AWAIT
    })
    .unwrap_or(NO_REQUEST)
}
