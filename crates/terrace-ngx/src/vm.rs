//! The Lua VM of a worker (or, with `lua_code_cache off`, of one request or subrequest): LuaJIT with the `ngx` table and the
//! library set up, and the compiled code of the configuration.

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use terrace_http::{Request, Worker};
use terrace_lua::{Chunk, LuaError, Value, Vm, VmOptions};

use crate::chunks::{Code, Source};
use crate::settings::LuaMain;
use crate::{ffi, lualib, native, packages};

/// A VM and what belongs to it.
pub struct LuaVm {
    /// The VM.
    pub vm: Rc<Vm>,
    inline: RefCell<Vec<Option<Chunk>>>,
    files: RefCell<FxHashMap<Vec<u8>, Chunk>>,
    /// Keys of `ngx.ctx` tables that ended requests gave back.
    free_contexts: RefCell<Vec<i32>>,
    contexts: Cell<i32>,
    // Fields drop in order: what holds the VM goes first, as its finalizers still use what follows.
    /// Settings of the generation; also keeps the dictionaries that Lua knows by address.
    pub main: Arc<LuaMain>,
    /// The functions' addresses, which Lua reads through a pointer to this block.
    _native: Box<[*const c_void]>,
}

/// The worker of this thread that asked for its VM last (of two while one drains), and the VM, which all code of its
/// requests runs in. Holds neither.
struct Last {
    worker: Weak<Worker>,
    vm: Weak<LuaVm>,
}

thread_local! {
    static LAST: RefCell<Last> = const { RefCell::new(Last { worker: Weak::new(), vm: Weak::new() }) };
}

impl Last {
    #[inline]
    fn vm_of(&self, worker: &Rc<Worker>) -> Option<Rc<LuaVm>> {
        if std::ptr::eq(self.worker.as_ptr(), Rc::as_ptr(worker)) { self.vm.upgrade() } else { None }
    }
}

/// Why no code could be run.
#[derive(Debug)]
pub enum ChunkError {
    /// The file is not there.
    Missing(std::io::Error),
    /// It does not compile.
    Lua(LuaError),
}

impl LuaVm {
    /// The VM for a request: its worker's, or its own with `lua_code_cache off`.
    #[inline]
    pub fn of(r: &Rc<Request>) -> Result<Rc<LuaVm>, LuaError> {
        LAST.with_borrow(|last| last.vm_of(&r.worker)).map_or_else(|| LuaVm::find(r), Ok)
    }

    #[cold]
    fn find(r: &Rc<Request>) -> Result<Rc<LuaVm>, LuaError> {
        if let Some(vm) = r.worker.find_state::<LuaVm>().filter(|vm| !vm.main.code_cache_off) {
            LAST.replace(Last { worker: Rc::downgrade(&r.worker), vm: Rc::downgrade(&vm) });
            return Ok(vm);
        }
        let main = LuaMain::of(r.generation());
        if !main.code_cache_off {
            return LuaVm::of_worker(&r.worker);
        }
        if let Some(own) = r.state::<LuaVm>() {
            return Ok(own);
        }
        let made = LuaVm::new(&r.worker, main)?;
        r.put_state(Rc::clone(&made));
        Ok(made)
    }

    /// The VM of a worker, made on first use.
    pub fn of_worker(worker: &Rc<Worker>) -> Result<Rc<LuaVm>, LuaError> {
        if let Some(vm) = worker.find_state() {
            return Ok(vm);
        }
        let made = LuaVm::new(worker, LuaMain::of(&worker.generation))?;
        worker.put_state(Rc::clone(&made));
        Ok(made)
    }

    fn new(worker: &Rc<Worker>, main: Arc<LuaMain>) -> Result<Rc<LuaVm>, LuaError> {
        let Opened { vm, native } = open(&main, main.running_time_max())?;
        let made = Rc::new(LuaVm {
            vm,
            inline: RefCell::new(vec![None; main.codes]),
            main: Arc::clone(&main),
            files: RefCell::default(),
            free_contexts: RefCell::default(),
            contexts: Cell::new(0),
            _native: native,
        });
        if let Some(init) = &main.init {
            crate::handlers::init(worker, &made, init)?;
        }
        Ok(made)
    }

    /// The compiled code of a directive.
    #[inline]
    pub fn chunk(&self, code: &Code, r: &Request) -> Result<Chunk, ChunkError> {
        // Code in files is never there.
        let compiled = self.inline.borrow().get(code.id).cloned().flatten();
        compiled.map_or_else(|| self.find_chunk(code, r), Ok)
    }

    fn find_chunk(&self, code: &Code, r: &Request) -> Result<Chunk, ChunkError> {
        match &code.source {
            Source::Inline(text) => {
                let chunk = self.vm.load(&code.chunk_name, text).map_err(ChunkError::Lua)?;
                if let Some(slot) = self.inline.borrow_mut().get_mut(code.id) {
                    *slot = Some(chunk.clone());
                }
                Ok(chunk)
            }
            Source::File(path) => {
                let mut name = Vec::new();
                path.eval(r, &mut name);
                self.file(&name, &self.main.prefix)
            }
        }
    }

    fn file(&self, name: &[u8], prefix: &Path) -> Result<Chunk, ChunkError> {
        if let Some(chunk) = self.files.borrow().get(name) {
            return Ok(chunk.clone());
        }
        let path = prefix.join(String::from_utf8_lossy(name).as_ref());
        let text = std::fs::read(&path).map_err(ChunkError::Missing)?;
        let chunk_name = format!("@{}", path.display());
        let chunk = self.vm.load(&chunk_name, &text).map_err(ChunkError::Lua)?;
        let mut files = self.files.borrow_mut();
        if files.len() >= FILES_MAX {
            files.clear();
        }
        files.insert(name.to_vec(), chunk.clone());
        Ok(chunk)
    }

    /// A key for a request's `ngx.ctx`; keys of ended requests are used again.
    pub fn take_context(&self) -> i32 {
        self.free_contexts.borrow_mut().pop().unwrap_or_else(|| {
            self.contexts.set(self.contexts.get() + 1);
            self.contexts.get()
        })
    }

    /// Gives a key back.
    pub fn give_context(&self, key: i32) {
        self.free_contexts.borrow_mut().push(key);
    }
}

/// A VM with the `ngx` table, and the block of functions' addresses that it reads.
pub struct Opened {
    /// The VM; dropped first.
    pub vm: Rc<Vm>,
    /// The block.
    pub native: Box<[*const c_void]>,
}

/// Opens a VM with the `ngx` table and the library. `main`'s dictionaries must outlive it.
pub fn open(main: &LuaMain, running_time_max: Option<Duration>) -> Result<Opened, LuaError> {
    let home = std::env::var_os("HOME");
    let trees = packages::Trees::of(&main.prefix, home.as_deref().map(Path::new));
    let vm = Vm::new(VmOptions {
        package_path: main.package_path.clone(),
        package_cpath: main.package_cpath.clone(),
        default_path_head: trees.path,
        default_cpath_head: trees.cpath,
        builtin: lualib::MODULES,
        running_time_max,
        memory_bytes_max: main.vm_bytes_max(),
    })?;
    native::preload(&vm)?;
    let (declaration, block) = ffi::table();
    let native = block.into_boxed_slice();
    let pointer = Value::LightUserdata(native.as_ptr().cast_mut().cast());
    let args: Vec<Value> =
        [pointer, Value::from(declaration)].into_iter().chain(ffi::shared::handles(&main.dicts)).collect();
    vm.run_setup("=terrace.setup", lualib::SETUP, &args)?;
    Ok(Opened { vm, native })
}

/// How many files' code a VM keeps; paths may come from clients through variables.
const FILES_MAX: usize = 4096;
