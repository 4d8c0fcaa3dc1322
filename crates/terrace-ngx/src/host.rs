//! The host of a run of Lua code: which request and phase it belongs to. Functions called from Lua find it in a
//! thread-local, set around each resume.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_http::{Request, Step};
use terrace_lua::{Chunk, Host, LuaError, Started, Value, start};

use crate::phase::LuaPhase;
use crate::settings::ResponseStart;
use crate::vm::LuaVm;
use crate::yielding::cache::Loads;

/// What `ngx.exit` and its kin decided, beyond a status.
#[derive(Debug, Clone, Default)]
pub enum Leave {
    /// Nothing special: the code of the exit speaks.
    #[default]
    No,
    /// `ngx.exec`: go to this URI, or `@name`, with these arguments.
    Exec(Box<(Bytes, Bytes)>),
    /// `ngx.req.set_uri(…, true)`: find the location of the new URI.
    Jump,
}

/// The piece of body that a `body_filter_by_lua*` looks at (`ngx.arg`).
#[derive(Debug, Clone, Default)]
pub struct BodyArg {
    /// `ngx.arg[1]`
    pub data: Bytes,
    /// `ngx.arg[2]`
    pub last: bool,
}

/// What `ngx.arg` reads.
#[derive(Debug)]
pub enum Args {
    /// Nothing.
    None,
    /// The arguments of a `set_by_lua*`.
    Set(Box<[Bytes]>),
    /// The piece of a `body_filter_by_lua*`.
    Body(Box<RefCell<BodyArg>>),
}

/// The host of an execution. Small: it is made for each phase with code.
pub struct PhaseHost {
    /// The request; of a timer or a worker's start, one that no client made.
    pub request: Rc<Request>,
    /// The phase.
    pub phase: LuaPhase,
    /// The VM.
    pub lua: Rc<LuaVm>,
    /// How a response begins that the code makes.
    pub start: ResponseStart,
    /// See [`Leave`].
    pub leave: Cell<Leave>,
    /// See [`Args`].
    pub args: Args,
    /// The loads of tiered caches that the code has begun.
    pub loads: OnceCell<Rc<Loads>>,
    outer: Cell<*const PhaseHost>,
}

thread_local! {
    static CURRENT: Cell<*const PhaseHost> = const { Cell::new(std::ptr::null()) };
}

impl PhaseHost {
    /// A host for one run.
    #[inline]
    pub fn new(
        request: Rc<Request>,
        phase: LuaPhase,
        lua: Rc<LuaVm>,
        start: ResponseStart,
        args: Args,
    ) -> PhaseHost {
        PhaseHost {
            request,
            phase,
            lua,
            start,
            leave: Cell::default(),
            args,
            loads: OnceCell::new(),
            outer: Cell::new(std::ptr::null()),
        }
    }

    /// The piece of body that the code looks at, in a body filter.
    pub fn body(&self) -> Option<&RefCell<BodyArg>> {
        match &self.args {
            Args::Body(body) => Some(body),
            _ => None,
        }
    }

    /// The piece of body that a body filter left.
    pub fn take_body(&self) -> BodyArg {
        self.body().map(RefCell::take).unwrap_or_default()
    }

    /// Whether the phase is one of these bits.
    pub fn is_in(&self, phases: u32) -> bool {
        self.phase as u32 & phases != 0
    }
}

/// An execution of a phase's code that came to its end.
pub type Ended = terrace_lua::Ended<PhaseHost>;

/// Runs code to its end; at once where nothing waits.
#[inline(always)]
#[allow(clippy::inline_always, reason = "as for `start`")]
pub fn execute(chunk: &Chunk, args: &[Value], host: PhaseHost) -> Step<Ended> {
    match start(chunk, args, host) {
        Started::Done(ended) => Step::Ready(ended),
        Started::Waits(run) => Step::wait(run),
    }
}

impl Host for PhaseHost {
    fn enter(&self) {
        self.outer.set(CURRENT.replace(self));
    }

    fn leave(&self) {
        CURRENT.set(self.outer.replace(std::ptr::null()));
    }

    fn thread_error(&self, error: &LuaError) {
        log_error(&self.request, "lua user thread aborted", error);
    }
}

/// Writes a Lua error with its traceback, as OpenResty does.
pub fn log_error(r: &Request, what: &str, error: &LuaError) {
    r.log(
        Level::Error,
        format_args!("{what}: {}: {}\n{}", error.kind.as_str(), error.message, error.traceback),
    );
}

/// Calls `f` with the host of the running Lua code; `None` when no run is under way (`init_by_lua*`).
pub fn current<R>(f: impl FnOnce(&PhaseHost) -> R) -> Option<R> {
    let host = CURRENT.get();
    if host.is_null() {
        return None;
    }
    // SAFETY: set by `enter` to the host inside the run under way, and reset by `leave`; in between the run is borrowed
    // by its own step, so that it neither moves nor ends. Everything happens on this thread.
    Some(f(unsafe { &*host }))
}
