//! One LuaJIT VM: its libraries, module search, chunks, main-state calls, memory, and the pool of coroutines.
//!
//! A VM belongs to one thread. Its methods must not be called from a function that Lua reached through the FFI
//! (a compiled trace may be running then); from a `lua_CFunction` they may.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_int, c_void};
use std::rc::Rc;
use std::time::Duration;

use mlua_sys as ffi;
use mlua_sys::{lua_CFunction, lua_State};
use smallvec::SmallVec;

use crate::error::{self, ErrorKind, LuaError};
use crate::memory::Bounded;
use crate::raw;
use crate::value::{LuaRef, Value, Values};
use crate::watchdog::Watch;
use crate::{bytecode, modules, op, pending};

/// Stack size that a thread running a VM should have. LuaJIT bounds its own stack (65500 slots), but a C function
/// that calls back, such as `string.gsub`, takes about 8 KiB of C stack a level before that bound is reached.
pub const THREAD_STACK_BYTES: usize = 64 << 20;

/// Idle coroutines that a VM keeps for reuse.
const IDLE_COROUTINES_MAX: usize = 1024;

/// How deep user coroutines may be nested in each other; each level takes C stack.
const COROUTINE_DEPTH_MAX: f64 = 190.0;

/// Positions of the traceback tables on the staging state; see `coroutine.lua`.
const FAILED: c_int = 1;
const FAILED_ERRORS: c_int = 2;

/// What a new VM needs to know.
#[derive(Clone, Debug, Default)]
pub struct VmOptions {
    /// `lua_package_path`; `;;` stands for the default path. None: the default path.
    pub package_path: Option<String>,
    /// `lua_package_cpath`, likewise.
    pub package_cpath: Option<String>,
    /// What stands before LuaJIT's own default path: templates, each ended by a semicolon.
    pub default_path_head: String,
    /// The same of the default path of C modules.
    pub default_cpath_head: String,
    /// Modules in the binary: name and source. Found after everything on the user's paths.
    pub builtin: &'static [(&'static str, &'static [u8])],
    /// How long code may run without waiting before it is ended by an error. None: no limit.
    pub running_time_max: Option<Duration>,
    /// How much memory the VM may hold, in bytes. None: no limit.
    pub memory_bytes_max: Option<usize>,
}

/// A compiled chunk or another function, kept in the VM's registry.
#[derive(Clone, Debug)]
pub struct Chunk(pub(crate) LuaRef);

impl Chunk {
    /// A chunk from a function value, such as one that setup code returned. Calling what is not a function gives a
    /// runtime error.
    pub fn from_ref(function: LuaRef) -> Self {
        Chunk(function)
    }

    pub(crate) fn vm(&self) -> &Rc<Vm> {
        self.0.vm()
    }

    /// Its key in the registry of its VM.
    pub(crate) fn key(&self) -> c_int {
        self.0.key()
    }
}

/// A LuaJIT VM.
pub struct Vm {
    main: *mut lua_State,
    /// Never runs code: a place to touch the registry whatever the main state is doing.
    staging: *mut lua_State,
    globals: *const c_void,
    message_handler: c_int,
    default_path: String,
    default_cpath: String,
    idle: RefCell<Vec<Coroutine>>,
    coroutines_made: Cell<u64>,
    /// There if the running time is limited.
    watch: Option<Watch>,
    /// There if the memory is limited.
    bounded: Option<Box<Bounded>>,
    /// Read by the searcher through a pointer, hence boxed.
    _modules: Box<modules::Builtin>,
}

/// A coroutine and the registry key that keeps it alive.
#[derive(Clone, Copy)]
pub(crate) struct Coroutine {
    pub(crate) state: *mut lua_State,
    pub(crate) key: c_int,
}

impl Vm {
    /// Opens a VM with the standard libraries, the module searcher and the cooperating `coroutine` library.
    pub fn new(options: VmOptions) -> Result<Rc<Vm>, LuaError> {
        // SAFETY: no precondition; null means no memory.
        let main = unsafe { ffi::luaL_newstate() };
        if main.is_null() {
            return Err(LuaError::memory());
        }
        let mut vm = Vm {
            main,
            staging: std::ptr::null_mut(),
            globals: std::ptr::null(),
            message_handler: ffi::LUA_NOREF,
            default_path: String::new(),
            default_cpath: String::new(),
            idle: RefCell::new(Vec::new()),
            coroutines_made: Cell::new(0),
            watch: None,
            bounded: None,
            _modules: Box::new(modules::Builtin(options.builtin)),
        };
        vm.open()?;
        vm.default_path.insert_str(0, &options.default_path_head);
        vm.default_cpath.insert_str(0, &options.default_cpath_head);
        // SAFETY: the state is this thread's; `drop` takes the allocator out again.
        vm.bounded = options.memory_bytes_max.map(|max| unsafe { Bounded::install(main, max) });
        vm.watch = options.running_time_max.map(|limit| Watch::new(main, limit));
        let vm = Rc::new(vm);
        vm.run_setup("=jit", JIT_BOUNDS, &[])?;
        vm.install_scheduler()?;
        vm.set_package_paths(options.package_path.as_deref(), options.package_cpath.as_deref())?;
        Ok(vm)
    }

    /// The parts of `new` that need no `Rc`.
    fn open(&mut self) -> Result<(), LuaError> {
        let builtin: *const modules::Builtin = &*self._modules;
        let (mut staging, mut handler) = (std::ptr::null_mut(), ffi::LUA_NOREF);
        // SAFETY: the closure holds only plain values; the stack stays within the 20 slots of a C function.
        let status = unsafe {
            raw::protected(self.main, &mut |state| {
                ffi::luaL_openlibs(state);
                staging = ffi::lua_newthread(state);
                ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX);
                ffi::lua_pushcclosure(state, message_handler, 0);
                handler = ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX);
                // Makes the registry's free list, so that releasing a key never allocates.
                ffi::lua_pushboolean(state, 1);
                let key = ffi::luaL_ref(state, ffi::LUA_REGISTRYINDEX);
                ffi::luaL_unref(state, ffi::LUA_REGISTRYINDEX, key);
                modules::install(state, builtin);
            })
        };
        if status != ffi::LUA_OK {
            return Err(LuaError::new(ErrorKind::from_status(status), "cannot open the Lua libraries"));
        }
        self.staging = staging;
        self.message_handler = handler;
        // SAFETY: asks for the identity of the main state's globals only.
        self.globals = unsafe { ffi::lua_topointer(self.main, ffi::LUA_GLOBALSINDEX) };
        self.default_path = self.package_field(c"path");
        self.default_cpath = self.package_field(c"cpath");
        Ok(())
    }

    fn install_scheduler(self: &Rc<Self>) -> Result<(), LuaError> {
        let code = include_bytes!("coroutine.lua");
        // SAFETY: the function holds nothing to drop and does not panic.
        unsafe { self.preload("terrace.yielded", modules::open_yielded)? };
        let name = error::SCHEDULER_CHUNK.to_str().unwrap_or_default();
        let args = [
            Value::LightUserdata(op::sentinel()),
            Value::Number(f64::from(op::AWAIT)),
            Value::Number(f64::from(op::SPAWN)),
            Value::Number(f64::from(op::WAIT)),
            Value::Number(f64::from(op::KILL)),
            Value::Number(f64::from(op::EXIT)),
            Value::Number(COROUTINE_DEPTH_MAX),
            Value::Number(f64::from(op::AWAIT_IDLE)),
        ];
        let tables = self.run_setup(name, code, &args)?;
        // SAFETY: the staging state is empty, and two references are plain values.
        if !unsafe { raw::push_all(self, self.staging, &tables) } || tables.len() != 2 {
            return Err(LuaError::memory());
        }
        Ok(())
    }

    /// Sets `package.path` and `package.cpath`. `;;` stands for the default path; None restores the default.
    pub fn set_package_paths(&self, path: Option<&str>, cpath: Option<&str>) -> Result<(), LuaError> {
        let path = expand(path, &self.default_path);
        let cpath = expand(cpath, &self.default_cpath);
        // SAFETY: the closure borrows the two strings and owns nothing.
        let status = unsafe {
            raw::protected(self.main, &mut |state| {
                ffi::lua_getfield_(state, ffi::LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
                ffi::lua_getfield_(state, -1, c"package".as_ptr());
                ffi::lua_pushlstring_(state, path.as_ptr().cast(), path.len());
                ffi::lua_setfield(state, -2, c"path".as_ptr());
                ffi::lua_pushlstring_(state, cpath.as_ptr().cast(), cpath.len());
                ffi::lua_setfield(state, -2, c"cpath".as_ptr());
            })
        };
        if status == ffi::LUA_OK { Ok(()) } else { Err(LuaError::memory()) }
    }

    fn package_field(&self, field: &CStr) -> String {
        let mut text: *const [u8] = &[];
        // SAFETY: the closure owns nothing; the string stays alive in the package table while it is copied below.
        unsafe {
            raw::protected(self.main, &mut |state| {
                ffi::lua_getfield_(state, ffi::LUA_REGISTRYINDEX, ffi::LUA_LOADED_TABLE);
                ffi::lua_getfield_(state, -1, c"package".as_ptr());
                ffi::lua_getfield_(state, -1, field.as_ptr());
                if ffi::lua_type(state, -1) == ffi::LUA_TSTRING {
                    text = raw::bytes_at(state, -1);
                }
            });
            String::from_utf8_lossy(&*text).into_owned()
        }
    }

    /// Makes a native module available to `require`, behind the user's paths and before `VmOptions::builtin`.
    ///
    /// # Safety
    /// `open` must keep Lua's rules for C functions: it may raise only while it holds nothing to drop, must not
    /// panic, and must be sound for any arguments.
    pub unsafe fn preload(&self, name: &str, open: lua_CFunction) -> Result<(), LuaError> {
        // SAFETY: the closure borrows the name and owns nothing.
        let status = unsafe { raw::protected(self.main, &mut |state| modules::preload(state, name, open)) };
        if status == ffi::LUA_OK { Ok(()) } else { Err(LuaError::memory()) }
    }

    /// Compiles a chunk. `name` is Lua's chunk name: `=text` is shown as it is, `@path` as a file.
    pub fn load(self: &Rc<Self>, name: &str, code: &[u8]) -> Result<Chunk, LuaError> {
        self.make_room();
        let name: Vec<u8> = name.bytes().filter(|&b| b != 0).collect();
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: there is room for three values; the one that is left is taken off.
        unsafe {
            if ffi::lua_checkstack(self.main, 3) == 0 {
                return Err(LuaError::memory());
            }
            let status = bytecode::load(self.main, code, &name);
            let result = if status == ffi::LUA_OK {
                bytecode::drop_arguments(self.main, code, &name);
                self.reference_at(self.main, -1).map(Chunk).ok_or_else(LuaError::memory)
            } else {
                Err(LuaError::new(ErrorKind::from_status(status), self.message_at(self.main, -1)))
            };
            ffi::lua_settop(self.main, -2);
            result
        }
    }

    /// Calls a chunk on the main state, as `init_by_lua` needs it: it may not wait.
    pub fn call_main(self: &Rc<Self>, chunk: &Chunk, args: &[Value]) -> Result<Values, LuaError> {
        let count = c_int::try_from(args.len()).map_err(|_| LuaError::memory())?;
        // SAFETY: arguments are staged and moved, neither of which raises; the registry reads do not allocate; the
        // call is protected; results are read without conversion.
        unsafe {
            let base = ffi::lua_gettop(self.main);
            if ffi::lua_checkstack(self.main, count.saturating_add(4)) == 0
                || !raw::push_all(self, self.staging, args)
            {
                return Err(LuaError::memory());
            }
            ffi::lua_rawgeti_(self.main, ffi::LUA_REGISTRYINDEX, self.message_handler);
            match chunk.0.key_in(self) {
                Some(key) => ffi::lua_rawgeti_(self.main, ffi::LUA_REGISTRYINDEX, key),
                None => ffi::lua_pushnil(self.main),
            }
            ffi::lua_xmove(self.staging, self.main, count);
            let status = ffi::lua_pcall(self.main, count, ffi::LUA_MULTRET, base + 1);
            drop(pending::take());
            let result = if status == ffi::LUA_OK {
                let top = ffi::lua_gettop(self.main);
                Ok((base + 2..=top).map(|index| self.value_at(self.main, index)).collect())
            } else {
                Err(LuaError {
                    kind: ErrorKind::from_status(status),
                    message: self.message_at(self.main, -1),
                    traceback: TRACEBACK.take().unwrap_or_default(),
                })
            };
            ffi::lua_settop(self.main, base);
            result
        }
    }

    /// Compiles and calls setup code on the main state. `LightUserdata` arguments reach Lua as pointers that it can
    /// `ffi.cast`.
    pub fn run_setup(self: &Rc<Self>, name: &str, code: &[u8], args: &[Value]) -> Result<Values, LuaError> {
        self.call_main(&self.load(name, code)?, args)
    }

    /// Bytes that Lua's allocator has handed out.
    pub fn memory_bytes(&self) -> usize {
        // SAFETY: reads two counters.
        let (kib, rest) = unsafe {
            (ffi::lua_gc(self.main, ffi::LUA_GCCOUNT, 0), ffi::lua_gc(self.main, ffi::LUA_GCCOUNTB, 0))
        };
        (usize::try_from(kib).unwrap_or(0) << 10) + usize::try_from(rest).unwrap_or(0)
    }

    /// How much memory the VM may hold, in bytes.
    pub fn memory_bytes_max(&self) -> Option<usize> {
        self.bounded.as_ref().map(|b| b.bytes_max())
    }

    /// How many allocations the bound has refused.
    pub fn allocations_refused(&self) -> u64 {
        self.bounded.as_ref().map_or(0, |b| b.refused())
    }

    /// How often code was ended because it ran too long.
    pub fn stretches_ended(&self) -> u64 {
        self.watch.as_ref().map_or(0, Watch::ended)
    }

    /// The watch over how long code runs.
    #[inline]
    pub(crate) fn watch(&self) -> Option<&Watch> {
        self.watch.as_ref()
    }

    /// Runs a full collection.
    pub fn gc_collect(&self) {
        self.gc(ffi::LUA_GCCOLLECT, 0);
    }

    /// Runs an incremental collection step of about `kib` KiB.
    pub fn gc_step(&self, kib: i32) {
        self.gc(ffi::LUA_GCSTEP, kib);
    }

    fn gc(&self, what: c_int, data: c_int) {
        // SAFETY: finalizers may run, so the call is protected; the closure owns nothing.
        unsafe {
            raw::protected(self.main, &mut |state| {
                ffi::lua_gc(state, what, data);
            });
        }
    }

    /// Coroutines that the VM has made for runs so far; those that came from the pool do not count.
    pub fn coroutines_made(&self) -> u64 {
        self.coroutines_made.get()
    }

    /// The main state, for native modules.
    pub fn main_state(&self) -> *mut lua_State {
        self.main
    }
}

/// What runs and values need from the VM.
impl Vm {
    /// Collects garbage if the bound on memory has made code fail since the last time.
    #[inline]
    fn make_room(&self) {
        if self.bounded.as_ref().is_some_and(|b| b.take_exhausted()) {
            self.gc_collect();
        }
    }

    /// An idle coroutine with an empty stack, from the pool if there is one.
    #[inline]
    pub(crate) fn checkout(&self) -> Option<Coroutine> {
        self.make_room();
        let idle = self.idle.borrow_mut().pop();
        idle.or_else(|| self.new_coroutine())
    }

    fn new_coroutine(&self) -> Option<Coroutine> {
        let (mut state, mut key) = (std::ptr::null_mut(), ffi::LUA_NOREF);
        // SAFETY: the closure holds plain values.
        let status = unsafe {
            raw::protected(self.main, &mut |main| {
                state = ffi::lua_newthread(main);
                key = ffi::luaL_ref(main, ffi::LUA_REGISTRYINDEX);
            })
        };
        self.coroutines_made.set(self.coroutines_made.get() + 1);
        (status == ffi::LUA_OK).then_some(Coroutine { state, key })
    }

    /// Takes a coroutine back: into the pool if it ended well and has the globals it began with.
    pub(crate) fn checkin(&self, coroutine: Coroutine) {
        // SAFETY: the registry key keeps the coroutine alive; these reads do not raise.
        let ended = unsafe {
            ffi::lua_status(coroutine.state) == ffi::LUA_OK && ffi::lua_gettop(coroutine.state) == 0
        };
        if ended {
            self.checkin_ended(coroutine);
        } else {
            self.release_key(coroutine.key);
        }
    }

    /// As [`Vm::checkin`], for one that ended well and has an empty stack.
    #[inline]
    pub(crate) fn checkin_ended(&self, coroutine: Coroutine) {
        let mut idle = self.idle.borrow_mut();
        // SAFETY: as above.
        let globals = unsafe { ffi::lua_topointer(coroutine.state, ffi::LUA_GLOBALSINDEX) };
        if globals == self.globals && idle.len() < IDLE_COROUTINES_MAX {
            idle.push(coroutine);
        } else {
            drop(idle);
            self.release_key(coroutine.key);
        }
    }

    /// Keeps a thread that lies on the stack of a suspended coroutine alive.
    pub(crate) fn anchor_at(&self, state: *mut lua_State, index: c_int) -> Option<c_int> {
        // SAFETY: room is checked; the copy moves into the protected frame before anything can raise.
        unsafe {
            if ffi::lua_checkstack(state, 1) == 0 {
                return None;
            }
            ffi::lua_pushvalue(state, index);
            ffi::lua_xmove(state, self.staging, 1);
        }
        let mut key = ffi::LUA_NOREF;
        let staging = self.staging;
        // SAFETY: the closure holds plain values.
        let status = unsafe {
            raw::protected(self.main, &mut |main| {
                ffi::lua_xmove(staging, main, 1);
                key = ffi::luaL_ref(main, ffi::LUA_REGISTRYINDEX);
            })
        };
        if status != ffi::LUA_OK {
            // SAFETY: the traceback tables lie below; a value that was not moved goes.
            unsafe { ffi::lua_settop(staging, ffi::lua_gettop(staging).min(FAILED_ERRORS)) };
            return None;
        }
        Some(key)
    }

    /// Releases a registry key. Safe at any time: the staging state runs no code and the free list exists.
    pub(crate) fn release_key(&self, key: c_int) {
        // SAFETY: luaL_unref writes existing slots only, so it does not allocate.
        unsafe { ffi::luaL_unref(self.staging, ffi::LUA_REGISTRYINDEX, key) };
    }

    /// Reads any value; `nil` when there is no memory for a reference.
    pub(crate) fn value_at(self: &Rc<Self>, state: *mut lua_State, index: c_int) -> Value {
        // SAFETY: callers pass a valid index of a state that is not running.
        match unsafe { raw::simple_at(state, index) } {
            Some(value) => value,
            None => self.reference_at(state, index).map_or(Value::Nil, Value::Ref),
        }
    }

    fn reference_at(self: &Rc<Self>, state: *mut lua_State, index: c_int) -> Option<LuaRef> {
        self.anchor_at(state, index).map(|key| LuaRef::new(self, key))
    }

    /// The text of an error object.
    pub(crate) fn message_at(&self, state: *mut lua_State, index: c_int) -> String {
        // SAFETY: a string is read in place.
        unsafe {
            if ffi::lua_type(state, index) == ffi::LUA_TSTRING {
                return String::from_utf8_lossy(raw::bytes_at(state, index)).into_owned();
            }
            if ffi::lua_checkstack(state, 1) == 0 {
                return UNKNOWN.to_owned();
            }
            ffi::lua_pushvalue(state, index);
            ffi::lua_xmove(state, self.staging, 1);
        }
        let staging = self.staging;
        let mut message = None;
        // SAFETY: the metamethod runs in the protected frame; the text is copied after the last raising call.
        unsafe {
            raw::protected(self.main, &mut |main| {
                ffi::lua_xmove(staging, main, 1);
                let number = ffi::lua_type(main, -1) == ffi::LUA_TNUMBER;
                if number {
                    ffi::lua_tolstring(main, -1, std::ptr::null_mut());
                }
                if (number || ffi::luaL_callmeta(main, -1, c"__tostring".as_ptr()) != 0)
                    && ffi::lua_type(main, -1) == ffi::LUA_TSTRING
                {
                    message = Some(String::from_utf8_lossy(raw::bytes_at(main, -1)).into_owned());
                }
            });
            // Nothing is left there unless the protected call itself could not begin.
            ffi::lua_settop(staging, ffi::lua_gettop(staging).min(FAILED_ERRORS));
        }
        message.unwrap_or_else(|| UNKNOWN.to_owned())
    }

    /// The error of a coroutine that has just died, its error object on top.
    pub(crate) fn coroutine_error(&self, coroutine: Coroutine, status: c_int) -> LuaError {
        let failed = self.failed_inside(coroutine);
        // SAFETY: the coroutines are referenced by the registry or by the traceback tables, and none runs.
        let traceback = unsafe { error::coroutines_traceback(&failed) };
        let mut message = self.message_at(coroutine.state, -1);
        if let Some(message) = self.watch.as_ref().and_then(Watch::verdict) {
            return LuaError { kind: ErrorKind::Runtime, message, traceback };
        }
        if let (Some(bounded), ffi::LUA_ERRMEM) = (&self.bounded, status) {
            let (held, max) = (self.memory_bytes(), bounded.bytes_max());
            message.push_str(&format!(": the VM holds {held} of {max} bytes (lua_max_memory)"));
        }
        LuaError { kind: ErrorKind::from_status(status), message, traceback }
    }

    /// The coroutines through whose `coroutine.wrap` an error came, the innermost first, `coroutine` last.
    fn failed_inside(&self, coroutine: Coroutine) -> SmallVec<[*mut lua_State; 4]> {
        let mut chain = SmallVec::from_slice(&[coroutine.state]);
        let staging = self.staging;
        // SAFETY: raw reads of two tables on the staging state, which has room for a few values; the error object
        // is copied when there is room. Nothing here allocates or raises.
        unsafe {
            if ffi::lua_checkstack(coroutine.state, 1) == 0 || ffi::lua_checkstack(staging, 4) == 0 {
                return chain;
            }
            ffi::lua_pushvalue(coroutine.state, -1);
            ffi::lua_xmove(coroutine.state, staging, 1);
            let error = ffi::lua_gettop(staging);
            ffi::lua_rawgeti_(staging, ffi::LUA_REGISTRYINDEX, coroutine.key);
            while chain.len() < error::TRACEBACK_COROUTINES_MAX {
                ffi::lua_pushvalue(staging, -1);
                ffi::lua_rawget_(staging, FAILED_ERRORS);
                if ffi::lua_rawequal(staging, -1, error) == 0 {
                    break;
                }
                ffi::lua_settop(staging, -2);
                ffi::lua_rawget_(staging, FAILED);
                let inner = ffi::lua_tothread(staging, -1);
                if inner.is_null() {
                    break;
                }
                chain.insert(0, inner);
            }
            ffi::lua_settop(staging, FAILED_ERRORS);
        }
        chain
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // The watching thread must have let go before the state goes.
        self.watch = None;
        // SAFETY: runs and references hold the VM by `Rc`, so nothing points into the state any more.
        unsafe {
            if let Some(bounded) = &self.bounded {
                bounded.take_out();
            }
            ffi::lua_close(self.main);
        }
    }
}

/// How much the JIT compiler keeps: the defaults of OpenResty's LuaJIT, which are for applications of its size (traces,
/// instructions of one, the least between two C calls, KiB of machine code).
const JIT_BOUNDS: &[u8] =
    b"require('jit.opt').start('maxtrace=8000', 'maxrecord=16000', 'minstitch=3', 'maxmcode=40960')";

const UNKNOWN: &str = "unknown reason";

thread_local! {
    /// The traceback that the message handler took of the last failed main-state call.
    static TRACEBACK: Cell<Option<String>> = const { Cell::new(None) };
}

/// Takes the traceback while the failing frames still stand; leaves the error object as it is.
unsafe extern "C-unwind" fn message_handler(state: *mut lua_State) -> c_int {
    // SAFETY: called by Lua with a live state; nothing in it raises. Level 0 is this function.
    TRACEBACK.set(Some(unsafe { error::state_traceback(state, 1) }));
    1
}

/// Puts the default in place of `;;`.
fn expand(path: Option<&str>, default: &str) -> String {
    let Some(path) = path else { return default.to_owned() };
    path.replace(";;", &format!(";{default};")).trim_matches(';').to_owned()
}
