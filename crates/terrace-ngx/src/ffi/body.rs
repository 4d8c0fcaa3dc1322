//! The request's body, but for reading it: what it is, another in its place, one written piece by piece.

use std::cell::RefCell;
use std::ffi::c_int;
use std::rc::Rc;

use terrace_http::Request;
use terrace_http::body::{BodyFile, BodyWriter, Stored};

use super::req::request;
use super::{DONE, NOT_FOUND, Text, bytes, fail, functions, give};

functions! {
    "int (*body_state)(void)" => body_state,
    "int (*body_data)(double, terrace_text *)" => body_data,
    "int (*body_file)(terrace_text *)" => body_file,
    "int (*body_discard)(void)" => discard,
    "int (*body_set_data)(const char *, size_t)" => set_data,
    "int (*body_set_file)(const char *, size_t, int, terrace_text *)" => set_file,
    "int (*body_init)(double)" => init,
    "int (*body_append)(const char *, size_t, terrace_text *)" => append,
    "int (*body_finish)(void)" => finish,
    "int (*body_args)(int, terrace_pairs *)" => args,
}

/// Bits of [`body_state`]: it was read, or there is none and it was asked for.
const READ: c_int = 1;
/// It was discarded.
const DISCARDED: c_int = 2;
/// It is in a file.
const IN_FILE: c_int = 4;

/// Marks a request whose body was discarded.
pub struct Discarded;

/// A body between `ngx.req.init_body` and `ngx.req.finish_body`.
struct InTheMaking(RefCell<Option<BodyWriter>>);

extern "C" fn body_state() -> c_int {
    request(|r| {
        let mut state = 0;
        if r.body.is_read() {
            state |= READ;
        }
        if r.state::<Discarded>().is_some() {
            state |= DISCARDED;
        }
        if matches!(&*r.body.stored().borrow(), Stored::File(_)) {
            state |= IN_FILE;
        }
        state
    })
}

/// At most `max` bytes of a body in memory; a negative `max` is all.
extern "C" fn body_data(max: f64, out: *mut Text) -> c_int {
    request(|r| {
        let stored = r.body.stored().borrow();
        let Stored::Memory(data) = &*stored else { return NOT_FOUND };
        let len = if max < 0.0 { data.len() } else { data.len().min(max as usize) };
        let data = data.get(..len).unwrap_or(data);
        if data.is_empty() {
            return NOT_FOUND;
        }
        // SAFETY: Lua passes a text of its own and copies it before it calls anything that changes the body.
        unsafe { out.write(Text::of(data)) };
        DONE
    })
}

extern "C" fn body_file(out: *mut Text) -> c_int {
    use std::os::unix::ffi::OsStrExt;
    request(|r| {
        let stored = r.body.stored().borrow();
        let Stored::File(file) = &*stored else { return NOT_FOUND };
        // SAFETY: Lua passes a text of its own.
        unsafe { give(out, |b| b.extend_from_slice(file.path().as_os_str().as_bytes())) };
        DONE
    })
}

/// What is on the wire is read and dropped when the request ends.
extern "C" fn discard() -> c_int {
    request(|r| {
        if !r.body.is_read() {
            r.put_state(Rc::new(Discarded));
        }
        DONE
    })
}

fn replace(r: &Request, stored: Stored) {
    r.body.replace(stored);
    r.headers_in.set(b"Content-Length", itoa::Buffer::new().format(r.body.len()).as_bytes());
    r.headers_in.remove(b"Transfer-Encoding");
}

extern "C" fn set_data(data: *const u8, len: usize) -> c_int {
    // SAFETY: a Lua string.
    let data = unsafe { bytes(data, len) };
    request(|r| {
        replace(r, if data.is_empty() { Stored::Empty } else { Stored::Memory(data.to_vec()) });
        DONE
    })
}

/// The file goes with the request if `clean`.
extern "C" fn set_file(path: *const u8, len: usize, clean: c_int, out: *mut Text) -> c_int {
    use std::os::unix::ffi::OsStrExt;
    // SAFETY: a Lua string.
    let path = std::ffi::OsStr::from_bytes(unsafe { bytes(path, len) });
    request(|r| match BodyFile::open(path.into(), clean == 0) {
        Ok(file) => {
            replace(r, Stored::File(file));
            DONE
        }
        Err(e) => {
            let text = format!("open() \"{}\" failed {}", path.display(), terrace_base::OsError(&e));
            // SAFETY: Lua passes a text of its own.
            unsafe { fail(out, &text) }
        }
    })
}

/// Begins an empty body, of which `memory_max` bytes are kept in memory; a negative number leaves the default.
extern "C" fn init(memory_max: f64) -> c_int {
    request(|r| {
        let writer = r.body_writer((memory_max >= 0.0).then_some(memory_max as usize));
        r.body.replace(Stored::Empty);
        r.put_state(Rc::new(InTheMaking(RefCell::new(Some(writer)))));
        DONE
    })
}

extern "C" fn append(data: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string.
    let data = unsafe { bytes(data, len) };
    request(|r| {
        let Some(making) = r.state::<InTheMaking>() else { return NOT_FOUND };
        let mut writer = making.0.borrow_mut();
        let Some(writer) = writer.as_mut() else { return NOT_FOUND };
        match writer.write(r, data) {
            Ok(()) => DONE,
            // SAFETY: Lua passes a text of its own.
            Err(_) => unsafe { fail(out, "fail to write file") },
        }
    })
}

extern "C" fn finish() -> c_int {
    request(|r| {
        let written = r.state::<InTheMaking>().and_then(|m| m.0.take());
        let Some(writer) = written else { return NOT_FOUND };
        replace(r, writer.finish());
        DONE
    })
}

/// A body in memory, read as a query string.
extern "C" fn args(max: c_int, out: *mut super::pairs::Pairs) -> c_int {
    request(|r| {
        let stored = r.body.stored().borrow();
        let data = match &*stored {
            Stored::Memory(data) => data.as_slice(),
            Stored::Empty | Stored::File(_) => &[],
        };
        // SAFETY: Lua passes a list of its own.
        if unsafe { super::pairs::give_pairs(out, |list| super::encode::add_args(data, max, list)) } {
            super::req::note_limit(r, max);
        }
        DONE
    })
}
