//! A bound on a VM's memory: LuaJIT's own allocator behind one that counts. Beyond the bound an allocation fails, which
//! Lua raises as "not enough memory"; well before it, the collector is made to hurry.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr;

use mlua_sys as ffi;
use mlua_sys::{lua_Alloc, lua_State};

/// The collector's speed (`setstepmul`) usually, and near the bound.
const STEP_USUAL: c_int = 200;
/// See [`STEP_USUAL`].
const STEP_HURRIED: c_int = 1000;

/// The allocator of one VM.
pub(crate) struct Bounded {
    inner: lua_Alloc,
    inner_data: *mut c_void,
    main: *mut lua_State,
    held_bytes: Cell<usize>,
    bytes_max: usize,
    /// The collector is told to hurry when this is reached.
    hurry_at_bytes: Cell<usize>,
    is_hurried: Cell<bool>,
    /// Allocations refused.
    refused: Cell<u64>,
    /// As many when a full collection was last asked for.
    refused_before: Cell<u64>,
}

impl Bounded {
    /// Bounds a fresh VM. The answer must outlive the VM's use, and be taken out by [`Bounded::take_out`] before it is
    /// closed.
    ///
    /// # Safety
    /// `main` is a live main state that this thread owns.
    pub(crate) unsafe fn install(main: *mut lua_State, bytes_max: usize) -> Box<Bounded> {
        let mut inner_data = ptr::null_mut();
        // SAFETY: reads the allocator and the count of the state.
        let (inner, held) = unsafe {
            let inner = ffi::lua_getallocf(main, &mut inner_data);
            let kib = usize::try_from(ffi::lua_gc(main, ffi::LUA_GCCOUNT, 0)).unwrap_or(0);
            let rest = usize::try_from(ffi::lua_gc(main, ffi::LUA_GCCOUNTB, 0)).unwrap_or(0);
            (inner, (kib << 10) + rest)
        };
        let bounded = Box::new(Bounded {
            inner,
            inner_data,
            main,
            held_bytes: Cell::new(held),
            bytes_max,
            hurry_at_bytes: Cell::new(bytes_max / 4 * 3),
            is_hurried: Cell::new(false),
            refused: Cell::new(0),
            refused_before: Cell::new(0),
        });
        // SAFETY: the box stays where it is; the function keeps to the inner allocator's contract.
        unsafe { ffi::lua_setallocf(main, allocate, ptr::from_ref(&*bounded).cast_mut().cast()) };
        bounded
    }

    /// Gives the VM its own allocator back, by which it must be closed.
    ///
    /// # Safety
    /// The VM that it was installed in is live.
    pub(crate) unsafe fn take_out(&self) {
        // SAFETY: what `install` found there.
        unsafe { ffi::lua_setallocf(self.main, self.inner, self.inner_data) };
    }

    /// The bound.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// How many allocations were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Whether allocations were refused since this was last asked: what is garbage now should go before anything else
    /// is tried.
    #[inline]
    pub(crate) fn take_exhausted(&self) -> bool {
        self.refused_before.replace(self.refused.get()) != self.refused.get()
    }

    /// Makes the collector work faster, and begin at once.
    #[cold]
    fn hurry(&self, held: usize) {
        // Again when another part of the rest is used up.
        self.hurry_at_bytes.set(held + (self.bytes_max / 32).max(1));
        self.is_hurried.set(true);
        // SAFETY: both set plain numbers of the state and neither allocate nor collect here.
        unsafe {
            ffi::lua_gc(self.main, ffi::LUA_GCSETSTEPMUL, STEP_HURRIED);
            ffi::lua_gc(self.main, ffi::LUA_GCRESTART, 0);
        }
    }

    #[cold]
    fn relax(&self) {
        self.hurry_at_bytes.set(self.bytes_max / 4 * 3);
        self.is_hurried.set(false);
        // SAFETY: sets a number of the state.
        unsafe { ffi::lua_gc(self.main, ffi::LUA_GCSETSTEPMUL, STEP_USUAL) };
    }
}

unsafe extern "C" fn allocate(
    data: *mut c_void,
    block: *mut c_void,
    old_bytes: usize,
    new_bytes: usize,
) -> *mut c_void {
    // SAFETY: the box that `install` registered.
    let bounded = unsafe { &*data.cast::<Bounded>() };
    let held = bounded.held_bytes.get().saturating_sub(old_bytes).saturating_add(new_bytes);
    if new_bytes > old_bytes {
        if held > bounded.bytes_max {
            bounded.refused.set(bounded.refused.get() + 1);
            bounded.hurry(bounded.held_bytes.get());
            return ptr::null_mut();
        }
        if held > bounded.hurry_at_bytes.get() {
            bounded.hurry(held);
        }
    } else if bounded.is_hurried.get() && held < bounded.bytes_max / 2 {
        bounded.relax();
    }
    // SAFETY: Lua's own call, passed on.
    let made = unsafe { (bounded.inner)(bounded.inner_data, block, old_bytes, new_bytes) };
    if !made.is_null() || new_bytes == 0 {
        bounded.held_bytes.set(held);
    }
    made
}
