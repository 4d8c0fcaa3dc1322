//! `ngx.errlog`: the last lines of a worker's error log, kept in memory (`lua_capture_error_log`), and levels.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::c_int;
use std::rc::Rc;

use terrace_base::clock;
use terrace_base::log::Level;
use terrace_http::Worker;

use super::{DONE, NO_REQUEST, NOT_FOUND, Text, functions, give};
use crate::host::current;
use crate::settings::LuaMain;

functions! {
    "int (*errlog_filter)(int)" => set_filter,
    "int (*errlog_take)(int *, double *, terrace_text *)" => take,
}

/// `lua_capture_error_log` is not set.
const NOT_SET: c_int = -2;

/// One line.
struct Line {
    level: Level,
    at: f64,
    text: Vec<u8>,
}

/// The lines of a worker that were not taken yet; beyond the bound the oldest go.
struct Captured {
    bytes_max: usize,
    level: Cell<Level>,
    bytes: Cell<usize>,
    lines: RefCell<VecDeque<Line>>,
}

/// Begins to keep a worker's lines, if the configuration says so.
pub fn capture(worker: &Rc<Worker>) {
    let Some(bytes_max) = LuaMain::of(&worker.generation).captured_bytes_max else { return };
    let captured = worker.state(|| Captured {
        bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
        level: Cell::new(Level::Debug),
        bytes: Cell::new(0),
        lines: RefCell::default(),
    });
    worker.tap_log(Rc::new(move |level, number, message| captured.add(level, number, message)));
}

impl Captured {
    fn add(&self, level: Level, number: Option<u64>, message: &[u8]) {
        if level > self.level.get() {
            return;
        }
        let now_ms = clock::now_ms();
        let mut text = clock::log_time().to_vec();
        let id = std::process::id();
        let number = number.map(|n| format!(" *{n}")).unwrap_or_default();
        text.extend_from_slice(format!(" [{}] {id}#0:{number} ", level.name()).as_bytes());
        text.extend_from_slice(message);
        text.truncate(self.bytes_max);
        let mut bytes = self.bytes.get() + text.len();
        let mut lines = self.lines.borrow_mut();
        lines.push_back(Line { level, at: now_ms as f64 / 1000.0, text });
        while bytes > self.bytes_max {
            let Some(oldest) = lines.pop_front() else { break };
            bytes -= oldest.text.len();
        }
        self.bytes.set(bytes);
    }
}

fn captured(f: impl FnOnce(&Captured) -> c_int) -> c_int {
    let found = current(|h| h.request.worker.find_state::<Captured>());
    match found {
        None => NO_REQUEST,
        Some(None) => NOT_SET,
        Some(Some(c)) => f(&c),
    }
}

extern "C" fn set_filter(level: c_int) -> c_int {
    captured(|c| {
        let level = u8::try_from(level).ok().and_then(Level::from_number);
        level.map_or(NOT_FOUND, |level| {
            c.level.set(level);
            DONE
        })
    })
}

/// Takes the oldest line.
extern "C" fn take(level: *mut c_int, at: *mut f64, out: *mut Text) -> c_int {
    captured(|c| {
        let Some(line) = c.lines.borrow_mut().pop_front() else { return NOT_FOUND };
        c.bytes.set(c.bytes.get() - line.text.len());
        // SAFETY: Lua passes pointers to its own.
        unsafe {
            level.write(line.level as c_int);
            at.write(line.at);
            give(out, |b| b.extend_from_slice(&line.text));
        }
        DONE
    })
}
