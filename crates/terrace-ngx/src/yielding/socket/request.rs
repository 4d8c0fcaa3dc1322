//! `ngx.req.socket`: the request's body as a socket to read from, and the client's connection as a socket of the script's.

use std::ffi::c_int;
use std::rc::Rc;

use terrace_http::{Request, output};
use terrace_http1::Framing;

use super::tcp::Tcp;
use super::transport::Transport;
use crate::ffi::body::Discarded;
use crate::ffi::{BAD_CONTEXT, DONE, NO_REQUEST, Text, fail};
use crate::host::current;
use crate::phase::RESPONDING;

/// A subrequest has no connection of its own.
const SUBREQUEST: c_int = -2;

/// A socket, or null and a code with, where it is `FAILED`, a text.
pub extern "C" fn tcp_request(raw: c_int, code: *mut c_int, out: *mut Text) -> *const Tcp {
    let made = current(|h| {
        let r = &h.request;
        if r.is_subrequest() {
            return Err(SUBREQUEST);
        }
        if !h.is_in(RESPONDING) {
            return Err(BAD_CONTEXT);
        }
        let made = if raw == 0 { body(r) } else { connection(r) };
        // SAFETY: Lua passes a text of its own.
        made.map_err(|text| unsafe { fail(out, text) })
    });
    let (socket, answer) = match made.unwrap_or(Err(NO_REQUEST)) {
        Ok(socket) => (Rc::into_raw(socket), DONE),
        Err(code) => (std::ptr::null(), code),
    };
    // SAFETY: Lua passes a pointer to an int of its own.
    unsafe { code.write(answer) };
    socket
}

fn body(r: &Rc<Request>) -> Result<Rc<Tcp>, &'static str> {
    let framing = r.body.framing();
    if framing == Framing::Chunked {
        return Err("chunked request bodies not supported yet");
    }
    if r.body.is_read() {
        return Err("request body already exists");
    }
    if r.state::<Discarded>().is_some() {
        return Err("request body discarded");
    }
    if matches!(framing, Framing::None | Framing::Length(0)) {
        return Err("no body");
    }
    if !r.ask_for_body() {
        return Err("test expect failed");
    }
    r.body.replace(terrace_http::body::Stored::Empty);
    Ok(Tcp::on(r, Transport::Body(Rc::downgrade(r))))
}

fn connection(r: &Rc<Request>) -> Result<Rc<Tcp>, &'static str> {
    let client = r.client.as_ref().ok_or("no connection")?;
    if r.output.is_taken_over() {
        return Err("duplicate call");
    }
    if client.is_read() {
        return Err("pending request body reading in some other thread");
    }
    if !client.write_pending() {
        return Err("pending data to write");
    }
    if r.output.mode() == output::Mode::Held {
        return Err("http 1.0 buffering");
    }
    r.take_over();
    Ok(Tcp::on(r, Transport::Client(Rc::clone(client))))
}
