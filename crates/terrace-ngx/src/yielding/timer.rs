//! `ngx.timer.*`: Lua functions that run later, on a request of their own that no client made. The functions and
//! their arguments stay in Lua, by number. When the worker drains, timers that wait run at once, told so.

use std::cell::{Cell, RefCell};
use std::ffi::c_int;
use std::rc::{Rc, Weak};
use std::time::Duration;

use terrace_http::log::Origin;
use terrace_http::{Request, Worker};
use terrace_lua::{Chunk, Finish, LuaError, Value};

use crate::ffi::{BAD_CONTEXT, DONE, NO_REQUEST, functions};
use crate::host::{Args, PhaseHost, current, execute, log_error};
use crate::phase::LuaPhase;
use crate::settings::ResponseStart;
use crate::vm::LuaVm;

functions! {
    "int (*timer_at)(double, double, int)" => timer_at,
    "int (*timers_running)(void)" => timers_running,
    "int (*timers_pending)(void)" => timers_pending,
}

/// The worker drains.
const EXITING: c_int = -2;
/// As many timers wait as may.
const TOO_MANY: c_int = -3;
/// `lua_max_pending_timers`
const PENDING_MAX: usize = 1024;
/// `lua_max_running_timers`
const RUNNING_MAX: usize = 256;
/// The longest delay: a year.
const DELAY_MS_MAX: f64 = 366.0 * 86_400_000.0;
/// Where no timer may be made.
const FORBIDDEN: u32 = LuaPhase::Init as u32 | LuaPhase::ExitWorker as u32;

/// The timers of a worker.
#[derive(Default)]
struct Timers {
    pending: Cell<usize>,
    running: Cell<usize>,
    /// The Lua function that runs a timer's function, with the VM it belongs to.
    fire: RefCell<Option<(Weak<LuaVm>, Chunk)>>,
}

/// Counts while it lives.
struct Counted(Rc<Timers>, fn(&Timers) -> &Cell<usize>);

impl Counted {
    fn new(timers: &Rc<Timers>, count: fn(&Timers) -> &Cell<usize>) -> Counted {
        count(timers).set(count(timers).get() + 1);
        Counted(Rc::clone(timers), count)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = (self.1)(&self.0);
        count.set(count.get().saturating_sub(1));
    }
}

/// One timer.
struct Timer {
    lua: Rc<LuaVm>,
    timers: Rc<Timers>,
    /// The request that made it, for its settings.
    server: terrace_http::generation::ServerIndex,
    location: terrace_http::location_tree::LocationIndex,
    worker: Rc<Worker>,
    /// Whose request it was, for the error log.
    origin: Option<Rc<Origin>>,
    /// Its number in Lua.
    id: f64,
    delay: Duration,
}

/// Makes a timer, once or again and again.
extern "C" fn timer_at(seconds: f64, id: f64, every: c_int) -> c_int {
    current(|h| {
        if h.is_in(FORBIDDEN) {
            return BAD_CONTEXT;
        }
        let worker = &h.request.worker;
        // Whole milliseconds, as nginx's timers.
        let delay = Duration::from_millis((seconds * 1000.0).clamp(0.0, DELAY_MS_MAX) as u64);
        if worker.is_draining() && !delay.is_zero() {
            return EXITING;
        }
        let timers = worker.state(Timers::default);
        if timers.pending.get() >= h.lua.main.pending_timers_max.unwrap_or(PENDING_MAX) {
            return TOO_MANY;
        }
        let pending = Counted::new(&timers, |t| &t.pending);
        let timer = Rc::new(Timer {
            lua: Rc::clone(&h.lua),
            timers,
            server: h.request.server_index(),
            location: h.request.location_index(),
            worker: Rc::clone(worker),
            origin: Origin::of(&h.request).map(Rc::new),
            id,
            delay,
        });
        if every != 0 {
            worker.spawn(timer.repeat(pending));
        } else {
            worker.spawn(timer.once(pending));
        }
        DONE
    })
    .unwrap_or(NO_REQUEST)
}

extern "C" fn timers_running() -> c_int {
    count(|t| t.running.get())
}

extern "C" fn timers_pending() -> c_int {
    count(|t| t.pending.get())
}

fn count(read: impl FnOnce(&Timers) -> usize) -> c_int {
    current(|h| {
        let timers = h.request.worker.find_state::<Timers>();
        c_int::try_from(timers.map_or(0, |t| read(&t))).unwrap_or(c_int::MAX)
    })
    .unwrap_or(NO_REQUEST)
}

impl Timer {
    async fn once(self: Rc<Self>, pending: Counted) {
        let is_premature = self.wait().await;
        drop(pending);
        self.fire(is_premature, true).await;
    }

    /// Runs may overlap, as each takes as long as it takes.
    async fn repeat(self: Rc<Self>, pending: Counted) {
        while !self.wait().await {
            let timer = Rc::clone(&self);
            self.worker.spawn(async move { timer.fire(false, false).await });
        }
        drop(pending);
        self.fire(true, true).await;
    }

    /// Whether the drain began before the time was over.
    async fn wait(&self) -> bool {
        if self.delay.is_zero() {
            terrace_event::yield_now().await;
            return false;
        }
        tokio::select! {
            biased;
            () = self.worker.draining() => true,
            () = terrace_event::sleep(self.delay) => false,
        }
    }

    async fn fire(&self, is_premature: bool, is_last: bool) {
        let r = Request::detached(&self.worker, self.server);
        r.set_location(self.location);
        if let Some(origin) = &self.origin {
            r.put_state(Rc::clone(origin));
        }
        let chunk = match self.chunk() {
            Ok(chunk) => chunk,
            Err(e) => return log_error(&r, "failed to run a timer", &e),
        };
        let running_max = self.lua.main.running_timers_max.unwrap_or(RUNNING_MAX);
        let problem = match self.timers.running.get() < running_max {
            true => Value::Nil,
            false => Value::from(format!("{running_max} lua_max_running_timers are not enough")),
        };
        let _running = Counted::new(&self.timers, |t| &t.running);
        let start = ResponseStart::at(&r);
        let host = PhaseHost::new(Rc::clone(&r), LuaPhase::Timer, Rc::clone(&self.lua), start, Args::None);
        let args = [Value::Number(self.id), Value::Bool(is_premature), Value::Bool(is_last), problem];
        let ended = execute(&chunk, &args, host).get().await;
        if let Finish::Error(e) = &ended.finish {
            log_error(&r, "lua entry thread aborted", e);
        }
    }

    fn chunk(&self) -> Result<Chunk, LuaError> {
        if let Some((lua, chunk)) = &*self.timers.fire.borrow()
            && std::ptr::eq(lua.as_ptr(), Rc::as_ptr(&self.lua))
        {
            return Ok(chunk.clone());
        }
        let chunk = self.lua.vm.load("=ngx.timer", b"return require('terrace.ngx.timer').fire(...)")?;
        self.timers.fire.replace(Some((Rc::downgrade(&self.lua), chunk.clone())));
        Ok(chunk)
    }
}
