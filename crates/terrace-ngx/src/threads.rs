//! `thread_pool`: threads with Lua VMs of their own, for work that would hold a worker up (`ngx.run_worker_thread`).
//!
//! Threads are started as work comes. What goes in and out is copied, as bytes that `string.buffer` of LuaJIT made.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use terrace_lua::{Chunk, LuaError, THREAD_STACK_BYTES, Value};
use tokio::sync::oneshot;

use crate::settings::LuaMain;
use crate::vm;

/// Runs in a pool's VM: `(module, function, packed arguments)` gives packed results, or nil and an error.
const RUNNER: &[u8] = b"return require('terrace.ngx.worker_thread').run(...)";

/// A pool.
pub struct ThreadPool {
    /// Its name.
    pub name: String,
    shared: Arc<Shared>,
}

struct Shared {
    threads_max: usize,
    queue_max: usize,
    /// What a VM is made from.
    main: LuaMain,
    state: Mutex<State>,
    work_came: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    is_closed: bool,
}

/// One call.
pub struct Job {
    /// The module.
    pub module: Vec<u8>,
    /// The name of its function.
    pub function: Vec<u8>,
    /// The packed arguments.
    pub args: Vec<u8>,
    /// Gets the packed results, or an error's text.
    pub reply: oneshot::Sender<Result<Vec<u8>, String>>,
}

impl ThreadPool {
    /// A pool without threads yet. `main` has what a VM needs.
    pub fn new(name: &str, threads_max: usize, queue_max: usize, main: LuaMain) -> ThreadPool {
        let shared =
            Shared { threads_max, queue_max, main, state: Mutex::default(), work_came: Condvar::new() };
        ThreadPool { name: name.to_owned(), shared: Arc::new(shared) }
    }

    /// Hands work over; gives it back where the queue is full or no thread can be had.
    pub fn post(&self, job: Job) -> Result<(), Job> {
        let mut state = self.shared.lock();
        if state.queue.len() >= self.shared.queue_max {
            return Err(job);
        }
        if state.idle <= state.queue.len() && state.threads < self.shared.threads_max {
            let shared = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new()
                .name(format!("lua {}", self.name))
                .stack_size(THREAD_STACK_BYTES)
                .spawn(move || shared.serve());
            match thread {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads == 0 => return Err(job),
                Err(_) => {}
            }
        }
        state.queue.push_back(job);
        drop(state);
        self.shared.work_came.notify_one();
        Ok(())
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shared.lock().is_closed = true;
        self.shared.work_came.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until the pool is dropped.
    fn serve(&self) {
        let mut made = None;
        while let Some(job) = self.next() {
            if made.is_none() {
                match Made::new(&self.main) {
                    Ok(m) => made = Some(m),
                    Err(e) => {
                        // The caller may be gone.
                        let _ = job.reply.send(Err(format!("no available Lua vm: {}", e.message)));
                        continue;
                    }
                }
            }
            let Some(m) = &made else { continue };
            let _ = job.reply.send(m.run(&job.module, &job.function, &job.args));
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                return Some(job);
            }
            if state.is_closed {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            state = self.work_came.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

/// A thread's VM.
struct Made {
    runner: Chunk,
    opened: vm::Opened,
}

impl Made {
    fn new(main: &LuaMain) -> Result<Made, LuaError> {
        let opened = vm::open(main, None)?;
        crate::ffi::worker::set_prefix(main.prefix.clone());
        let runner = opened.vm.load("=ngx.run_worker_thread", RUNNER)?;
        Ok(Made { runner, opened })
    }

    fn run(&self, module: &[u8], function: &[u8], args: &[u8]) -> Result<Vec<u8>, String> {
        let args = [module, function, args].map(|b| Value::from(b.to_vec()));
        let ended = Rc::clone(&self.opened.vm).call_main(&self.runner, &args);
        self.opened.vm.gc_collect();
        let values = ended.map_err(|e| e.message)?;
        match values.as_slice() {
            [Value::String(packed), ..] => Ok(packed.to_vec()),
            [_, Value::String(error), ..] => Err(String::from_utf8_lossy(error).into_owned()),
            _ => Err("no available Lua vm".to_owned()),
        }
    }
}
