//! Ends code that runs too long without waiting. One thread of the process looks at all watched VMs now and then; when
//! one has been in the same stretch of code beyond its limit, a signal to that VM's own thread sets a hook, which raises
//! an error at every instruction until the stretch is over: a script cannot catch its way out. The error is one of memory,
//! since before those no error handler runs, in which hooks would be off.
//!
//! A hook may be set from a signal handler on the VM's thread (`lua_sethook`). Compiled loops look at it because LuaJIT is
//! built with `LUAJIT_ENABLE_CHECKHOOK`. Code inside a single C function, such as a match of a Lua pattern, is not
//! interrupted before the function returns, nor are finalizers and hooks of the script's.
//!
//! Invariant: a VM's thread is signalled only while the VM is registered, and the VM leaves the register before it is
//! closed, on its own thread.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mlua_sys as ffi;
use mlua_sys::{lua_Alloc, lua_Debug, lua_State};

/// Ignored where nobody handles it, and hardly ever used otherwise.
const SIGNAL: c_int = libc::SIGURG;
/// How often the watching thread looks, at the least and at the most.
const TICK_MIN: Duration = Duration::from_millis(10);
/// See [`TICK_MIN`].
const TICK_MAX: Duration = Duration::from_secs(1);
/// What the error says.
const MESSAGE: &str = "the code ran longer than allowed (lua_max_running_time)";

/// What the VM's thread, its signal handler and the watching thread share.
struct Shared {
    main: *mut lua_State,
    thread: libc::pthread_t,
    limit: Duration,
    /// Odd while code runs; another number for each stretch.
    stretch: AtomicU64,
    /// The stretch that is to end; 0 for none.
    condemned: AtomicU64,
    /// How many stretches have been ended.
    ended: AtomicU64,
}

// SAFETY: `main` is used by the VM's own thread only (the signal handler runs there too); the rest is atomic or plain.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

thread_local! {
    /// The VM whose code runs on this thread.
    static RUNNING: Cell<*const Shared> = const { Cell::new(ptr::null()) };
    /// Where the stretch that is being ended was when that began.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
    /// The allocator that is in force again after one allocation was refused.
    static ALLOCATOR: Cell<Option<(lua_Alloc, *mut c_void)>> = const { Cell::new(None) };
}

/// The watch over one VM.
pub(crate) struct Watch {
    shared: Arc<Shared>,
    /// How many resumes are nested in each other.
    depth: Cell<u32>,
    /// Whose code was running before.
    outer: Cell<*const Shared>,
    /// Whether the stretch that came to its end last was condemned.
    was_condemned: Cell<bool>,
}

impl Watch {
    /// Watches a VM of this thread.
    pub(crate) fn new(main: *mut lua_State, limit: Duration) -> Watch {
        install_handler();
        let shared = Arc::new(Shared {
            main,
            // SAFETY: no precondition.
            thread: unsafe { libc::pthread_self() },
            limit,
            stretch: AtomicU64::new(0),
            condemned: AtomicU64::new(0),
            ended: AtomicU64::new(0),
        });
        let mut watched = watched();
        watched.push(Seen { shared: Arc::clone(&shared), stretch: 0, since: Instant::now() });
        drop(watched);
        start_watching();
        Watch { shared, depth: Cell::new(0), outer: Cell::new(ptr::null()), was_condemned: Cell::new(false) }
    }

    /// Code begins to run.
    #[inline]
    pub(crate) fn enter(&self) {
        let depth = self.depth.get();
        self.depth.set(depth + 1);
        if depth == 0 {
            let shared = &self.shared;
            shared.stretch.store(shared.stretch.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            self.outer.set(RUNNING.replace(Arc::as_ptr(shared)));
            self.was_condemned.set(false);
        }
    }

    /// Code has come back.
    #[inline]
    pub(crate) fn leave(&self) {
        let depth = self.depth.get() - 1;
        self.depth.set(depth);
        if depth == 0 {
            let shared = &self.shared;
            RUNNING.set(self.outer.get());
            shared.stretch.store(shared.stretch.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            if shared.condemned.load(Ordering::Relaxed) != 0 {
                self.pardon();
            }
        }
    }

    #[cold]
    fn pardon(&self) {
        self.shared.condemned.store(0, Ordering::Relaxed);
        self.shared.ended.fetch_add(1, Ordering::Relaxed);
        self.was_condemned.set(true);
        // SAFETY: the VM is alive and on this thread, and no code of it runs.
        unsafe { ffi::lua_sethook(self.shared.main, None, 0, 0) };
    }

    /// The error's message, if the code that has just come back with an error was made to.
    pub(crate) fn verdict(&self) -> Option<String> {
        let is_condemned = self.was_condemned.get() || self.shared.condemned.load(Ordering::Relaxed) != 0;
        is_condemned.then(|| format!("{}{MESSAGE}", PLACE.take()))
    }

    /// How many stretches of code were ended.
    pub(crate) fn ended(&self) -> u64 {
        self.shared.ended.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        watched().retain(|seen| !Arc::ptr_eq(&seen.shared, &self.shared));
    }
}

/// A VM as the watching thread saw it last.
struct Seen {
    shared: Arc<Shared>,
    stretch: u64,
    since: Instant,
}

static WATCHED: Mutex<Vec<Seen>> = Mutex::new(Vec::new());
static IS_WATCHING: AtomicBool = AtomicBool::new(false);

fn watched() -> MutexGuard<'static, Vec<Seen>> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start_watching() {
    if IS_WATCHING.swap(true, Ordering::AcqRel) {
        return;
    }
    let started = std::thread::Builder::new().name("lua watchdog".into()).spawn(|| {
        loop {
            let tick = look();
            std::thread::sleep(tick);
        }
    });
    if started.is_err() {
        // The next VM tries again.
        IS_WATCHING.store(false, Ordering::Release);
    }
}

/// Looks at all VMs once. Answers when to look again.
fn look() -> Duration {
    let mut tick = TICK_MAX;
    for seen in watched().iter_mut() {
        let shared = &seen.shared;
        tick = tick.min(shared.limit / 8);
        let stretch = shared.stretch.load(Ordering::Relaxed);
        if stretch != seen.stretch {
            seen.stretch = stretch;
            seen.since = Instant::now();
        } else if stretch % 2 == 1 && seen.since.elapsed() >= shared.limit {
            shared.condemned.store(stretch, Ordering::Relaxed);
            // Again at each look, should the first have come at a moment at which the hook got lost.
            // SAFETY: registered VMs' threads live: a VM leaves the register, under this lock, on its own thread.
            unsafe { libc::pthread_kill(shared.thread, SIGNAL) };
        }
    }
    tick.max(TICK_MIN)
}

fn install_handler() {
    static INSTALLED: std::sync::Once = std::sync::Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: a zeroed sigaction is a valid one; the handler does only what a signal handler may.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
            libc::sigaction(SIGNAL, &action, ptr::null_mut());
        }
    });
}

extern "C" fn on_signal(_: c_int) {
    let running = RUNNING.get();
    if running.is_null() {
        return;
    }
    // SAFETY: set by `enter` on this thread, and reset by `leave`; the watch lives in between.
    let shared = unsafe { &*running };
    let condemned = shared.condemned.load(Ordering::Relaxed);
    if condemned != 0 && condemned == shared.stretch.load(Ordering::Relaxed) {
        // SAFETY: the VM's code is running on this thread, and lua_sethook may be called from a signal handler. The
        // hook is taken out first, so that a second signal sets all of it anew.
        unsafe {
            ffi::lua_sethook(shared.main, None, 0, 0);
            ffi::lua_sethook(shared.main, Some(raise), ffi::LUA_MASKCOUNT, 1);
        }
    }
}

/// The hook: raises an error where the code is.
unsafe extern "C-unwind" fn raise(state: *mut lua_State, debug: *mut lua_Debug) {
    // SAFETY: called by Lua with the record of the running function. What needs dropping is gone before the last line,
    // which raises. The collector is stopped so that the one allocation that is refused is the userdata's.
    unsafe {
        note_place(state, debug);
        let mut data = ptr::null_mut();
        let allocator = ffi::lua_getallocf(state, &mut data);
        ALLOCATOR.set(Some((allocator, data)));
        ffi::lua_gc(state, ffi::LUA_GCSTOP, 0);
        ffi::lua_setallocf(state, refuse_once, state.cast());
        ffi::lua_newuserdata(state, 1);
    }
}

/// Notes where the code is, unless it was noted before.
unsafe fn note_place(state: *mut lua_State, debug: *mut lua_Debug) {
    // SAFETY: called from the hook; filling the record does not raise, and short_src is a NUL-terminated array.
    unsafe {
        if ffi::lua_getinfo(state, c"Sl".as_ptr(), debug) == 0 || (*debug).currentline <= 0 {
            return;
        }
        let source = CStr::from_ptr((*debug).short_src.as_ptr()).to_string_lossy();
        let line = (*debug).currentline;
        PLACE.with(|place| {
            if let Ok(mut place) = place.try_borrow_mut()
                && place.is_empty()
            {
                *place = format!("{source}:{line}: ");
            }
        });
    }
}

/// The allocator while the error is raised: refuses the first allocation and is gone.
unsafe extern "C" fn refuse_once(
    state: *mut c_void,
    block: *mut c_void,
    old_bytes: usize,
    new_bytes: usize,
) -> *mut c_void {
    let Some((allocator, data)) = ALLOCATOR.get() else { return ptr::null_mut() };
    // SAFETY: what `raise` found and the state that it was called with; Lua's own call is passed on.
    unsafe {
        if new_bytes <= old_bytes {
            return allocator(data, block, old_bytes, new_bytes);
        }
        let state = state.cast();
        ffi::lua_setallocf(state, allocator, data);
        ffi::lua_gc(state, ffi::LUA_GCRESTART, -1);
    }
    ptr::null_mut()
}
