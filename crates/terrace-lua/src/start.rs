//! The beginning of an execution. Most code never waits: it takes one turn in a coroutine of the pool and is over. What does
//! not end with that turn goes on as a [`Run`].

use std::ffi::c_int;
use std::rc::Rc;

use mlua_sys as ffi;

use crate::error::LuaError;
use crate::run::Run;
use crate::value::Value;
use crate::vm::{Chunk, Coroutine, Vm};
use crate::{pending, raw};

/// What the host does around an execution's code.
pub trait Host {
    /// Called before each resume: make the host's "current request" this execution's, remembering the previous one.
    fn enter(&self) {}
    /// Called after each resume: restore what was current before.
    fn leave(&self) {}
    /// A spawned thread died of an error; the run goes on.
    fn thread_error(&self, error: &LuaError) {
        let _ = error;
    }
}

/// A host that needs none of it.
impl Host for () {}

/// How an execution ended.
#[derive(Debug)]
pub enum Finish {
    /// All threads ended.
    Returned,
    /// A thread called `sched.exit`; the code is the host's.
    Exit(i32),
    /// The entry thread failed. Boxed: the ends of what succeeds are moved about.
    Error(Box<LuaError>),
}

/// An execution that came to its end, and what it left.
pub struct Ended<H> {
    /// The host it began with.
    pub host: H,
    /// The end.
    pub finish: Finish,
    /// What the entry thread returned.
    pub returned: Vec<Value>,
}

/// How far an execution came without waiting.
pub enum Started<H: Host> {
    /// It ended.
    Done(Ended<H>),
    /// It waits: await the run.
    Waits(Run<H>),
}

/// Executes a chunk with arguments as far as it can go without waiting. An operation that is ready at once does not
/// interrupt it.
#[inline(always)]
#[allow(
    clippy::inline_always,
    reason = "the host and what is answered are large, and stay where they are built"
)]
pub fn start<H: Host>(chunk: &Chunk, args: &[Value], host: H) -> Started<H> {
    let vm = chunk.vm();
    let Some(coroutine) = prepare(vm, chunk, args) else {
        return Started::Done(Ended {
            host,
            finish: Finish::Error(Box::new(LuaError::memory())),
            returned: Vec::new(),
        });
    };
    let (finish, returned) = match resume(vm, &host, coroutine, args.len() as c_int) {
        ffi::LUA_OK => {
            drop(pending::take());
            let returned = take_results(vm, coroutine);
            vm.checkin_ended(coroutine);
            (Finish::Returned, returned)
        }
        ffi::LUA_YIELD => return Run::go_on(vm, coroutine, host),
        status => (Finish::Error(failed(vm, coroutine, status)), Vec::new()),
    };
    Started::Done(Ended { host, finish, returned })
}

/// A coroutine with the chunk and its arguments; none where there is no memory.
#[inline]
fn prepare(vm: &Rc<Vm>, chunk: &Chunk, args: &[Value]) -> Option<Coroutine> {
    let coroutine = vm.checkout()?;
    // SAFETY: a pooled coroutine is suspended with an empty stack, which has room for a few values; a registry read does
    // not raise.
    let is_ready = unsafe {
        ffi::lua_rawgeti_(coroutine.state, ffi::LUA_REGISTRYINDEX, chunk.key());
        args.is_empty() || raw::push_all(vm, coroutine.state, args)
    };
    if !is_ready {
        vm.release_key(coroutine.key);
        return None;
    }
    Some(coroutine)
}

/// Resumes a coroutine that is fresh or suspended, with so many values on its stack (above a function when fresh).
#[inline]
pub(crate) fn resume<H: Host>(vm: &Vm, host: &H, coroutine: Coroutine, values: c_int) -> c_int {
    host.enter();
    if let Some(watch) = vm.watch() {
        watch.enter();
    }
    // SAFETY: the caller's promise; lua_resume catches every error.
    let status = unsafe { ffi::lua_resume_(coroutine.state, values) };
    if let Some(watch) = vm.watch() {
        watch.leave();
    }
    host.leave();
    status
}

/// The results of a coroutine that has ended, which leaves its stack empty.
#[inline]
pub(crate) fn take_results(vm: &Rc<Vm>, coroutine: Coroutine) -> Vec<Value> {
    // SAFETY: the results are the whole of the coroutine's stack, which is the host's now.
    unsafe {
        let count = ffi::lua_gettop(coroutine.state);
        if count == 0 {
            return Vec::new();
        }
        let results = (1..=count).map(|i| vm.value_at(coroutine.state, i)).collect();
        ffi::lua_settop(coroutine.state, 0);
        results
    }
}

#[cold]
fn failed(vm: &Vm, coroutine: Coroutine, status: c_int) -> Box<LuaError> {
    drop(pending::take());
    let error = vm.coroutine_error(coroutine, status);
    vm.release_key(coroutine.key);
    Box::new(error)
}
