//! The scheduler: the execution of a chunk in an entry coroutine, with the light threads spawned by it.
//!
//! Invariants: at most one coroutine of a run executes at a time; `alive` counts the threads that have not ended and are
//! not idle;
//! every coroutine of a run is released exactly once, when its thread is forgotten or the run ends.

use std::collections::VecDeque;
use std::ffi::c_int;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mlua_sys as ffi;
use mlua_sys::lua_State;

use crate::error::{ErrorKind, LuaError};
use crate::operations::Operations;
use crate::start::{self, Ended, Finish, Host, Started};
use crate::value::{Value, Values};
use crate::vm::{Coroutine, Vm};
use crate::{op, pending, raw};

/// Resumes of one poll before the run lets others of its worker run.
const RESUMES_PER_POLL: u32 = 256;

/// Light threads of one run that exist at the same time, ended ones that nobody has waited for included.
const LIGHT_THREADS_MAX: usize = 16_384;

/// The thread that runs the chunk itself.
const ENTRY: usize = 0;

/// An execution whose first turn was not its last; see [`crate::start`]. Dropping a run drops its pending operations and
/// coroutines.
pub struct Run<H: Host> {
    vm: Rc<Vm>,
    /// There until the end.
    host: Option<H>,
    threads: Vec<Thread>,
    /// Indices of forgotten threads, for reuse.
    vacant: Vec<usize>,
    /// The thread to run before those in `ready`.
    next: Option<usize>,
    ready: VecDeque<usize>,
    operations: Operations,
    alive: usize,
    resumes: u32,
    returned: Vec<Value>,
    finished: bool,
}

struct Thread {
    coroutine: Coroutine,
    /// The thread in which it was spawned.
    parent: usize,
    state: State,
}

enum State {
    /// May be resumed; that many values for it are on its stack.
    Ready(c_int),
    /// Has an operation.
    Awaiting,
    /// Has an operation, but the run ends without it.
    Idle,
    /// Waits for one of these threads to end.
    Waiting(Vec<usize>),
    /// Ended, not yet waited for; that many results (or the error object) are on its stack.
    Zombie { ok: bool, results: c_int },
    /// Forgotten, its coroutine released.
    Gone,
}

impl Thread {
    fn is_gone(&self) -> bool {
        matches!(self.state, State::Gone)
    }
}

/// What a thread's turn led to.
enum Turn {
    Next,
    Finish(Finish),
}

impl<H: Host> Run<H> {
    /// Goes on with the entry thread, which has just yielded.
    #[inline(never)]
    pub(crate) fn go_on(vm: &Rc<Vm>, coroutine: Coroutine, host: H) -> Started<H> {
        let mut run = Run {
            vm: Rc::clone(vm),
            host: Some(host),
            threads: vec![Thread { coroutine, parent: ENTRY, state: State::Ready(0) }],
            vacant: Vec::new(),
            next: None,
            ready: VecDeque::new(),
            operations: Operations::default(),
            alive: 1,
            resumes: 0,
            returned: Vec::new(),
            finished: false,
        };
        let cx = &mut Context::from_waker(Waker::noop());
        let progress = match run.yielded(ENTRY, coroutine, cx) {
            Turn::Next => run.advance(cx),
            Turn::Finish(finish) => run.ended_with(finish),
        };
        match progress {
            Poll::Ready(ended) => Started::Done(ended),
            Poll::Pending => Started::Waits(run),
        }
    }

    fn advance(&mut self, cx: &mut Context<'_>) -> Poll<Ended<H>> {
        self.resumes = 0;
        loop {
            if !self.operations.is_empty() {
                while let Poll::Ready((thread, values)) = self.operations.poll(cx) {
                    self.deliver(thread, &values);
                    self.ready.push_back(thread);
                }
            }
            while let Some(thread) = self.next.take().or_else(|| self.ready.pop_front()) {
                if self.resumes == RESUMES_PER_POLL {
                    self.ready.push_front(thread);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                self.resumes += 1;
                if let Turn::Finish(finish) = self.turn(thread, cx) {
                    return self.ended_with(finish);
                }
            }
            if self.alive == 0 {
                return self.ended_with(Finish::Returned);
            }
            if self.operations.is_empty() {
                let error = LuaError::new(ErrorKind::Runtime, "all light threads wait for each other");
                return self.ended_with(Finish::Error(Box::new(error)));
            }
            if self.threads.len() == 1 {
                // Its operation has been polled in this step.
                return Poll::Pending;
            }
            // Operations begun in this step have been polled once already, and those that go to the set need a
            // poll there to register; a second look is cheap.
            match self.operations.poll(cx) {
                Poll::Ready((thread, values)) => {
                    self.deliver(thread, &values);
                    self.next = Some(thread);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn ended_with(&mut self, finish: Finish) -> Poll<Ended<H>> {
        self.end();
        match self.host.take() {
            Some(host) => Poll::Ready(Ended { host, finish, returned: std::mem::take(&mut self.returned) }),
            None => unreachable!("a run that has ended is not polled"),
        }
    }

    /// Resumes a ready thread once and deals with how it came back.
    fn turn(&mut self, index: usize, cx: &mut Context<'_>) -> Turn {
        let (Some(thread), Some(host)) = (self.threads.get_mut(index), &self.host) else { return Turn::Next };
        let State::Ready(values) = thread.state else { return Turn::Next };
        let coroutine = thread.coroutine;
        match start::resume(&self.vm, host, coroutine, values) {
            ffi::LUA_OK => self.ended(index, coroutine),
            ffi::LUA_YIELD => self.yielded(index, coroutine, cx),
            status => self.died(index, coroutine, status),
        }
    }

    fn ended(&mut self, index: usize, coroutine: Coroutine) -> Turn {
        if index != ENTRY {
            // SAFETY: the coroutine has ended and its results are the whole of its stack.
            let results = unsafe { ffi::lua_gettop(coroutine.state) };
            self.bury(index, true, results);
            return Turn::Next;
        }
        self.returned = start::take_results(&self.vm, coroutine);
        self.alive -= 1;
        self.threads[ENTRY].state = State::Gone;
        self.vm.checkin_ended(coroutine);
        self.forget_zombies_of(ENTRY);
        Turn::Next
    }

    fn died(&mut self, index: usize, coroutine: Coroutine, status: c_int) -> Turn {
        drop(pending::take());
        let error = self.vm.coroutine_error(coroutine, status);
        if index == ENTRY {
            return Turn::Finish(Finish::Error(Box::new(error)));
        }
        if let Some(host) = &self.host {
            host.thread_error(&error);
        }
        if status == ffi::LUA_ERRMEM {
            // What was raised says less than is known: who waits for the thread is told the whole.
            // SAFETY: the coroutine is dead, and its stack the host's.
            unsafe { raw::push_all(&self.vm, coroutine.state, &[Value::from(error.message)]) };
        }
        self.bury(index, false, 1);
        Turn::Next
    }

    fn yielded(&mut self, index: usize, coroutine: Coroutine, cx: &mut Context<'_>) -> Turn {
        let state = coroutine.state;
        // SAFETY: the coroutine is suspended with the yielded values as its whole stack; type checks come first.
        let code = unsafe {
            if ffi::lua_gettop(state) >= 2
                && ffi::lua_type(state, 1) == ffi::LUA_TLIGHTUSERDATA
                && ffi::lua_touserdata(state, 1) == op::sentinel()
            {
                // lua_tonumber, as lua_tointeger differs between builds; saturating on the way to an int.
                ffi::lua_tonumber(state, 2) as c_int
            } else {
                0
            }
        };
        match code {
            op::AWAIT => self.start_waiting(index, State::Awaiting, cx),
            op::AWAIT_IDLE => self.start_waiting(index, State::Idle, cx),
            op::SPAWN => self.spawn(index, coroutine),
            op::WAIT => self.wait(index, coroutine),
            op::KILL => {
                if let Some(victim) = self.thread_at(state, 3) {
                    self.kill(victim);
                }
                self.answer(index, &[]);
                self.next = Some(index);
            }
            op::EXIT => {
                // SAFETY: reading beyond the top gives 0.
                let code = unsafe { ffi::lua_tonumber(state, 3) } as i32;
                return Turn::Finish(Finish::Exit(code));
            }
            // The thread itself yielded: others have a turn, then it goes on.
            _ => {
                self.answer(index, &[]);
                self.ready.push_back(index);
            }
        }
        Turn::Next
    }

    fn start_waiting(&mut self, index: usize, waiting: State, cx: &mut Context<'_>) {
        let Some(mut operation) = pending::take() else {
            self.answer(index, &[Value::Nil, Value::from("no operation to wait for")]);
            self.next = Some(index);
            return;
        };
        match operation.as_mut().poll(cx) {
            Poll::Ready(values) => {
                self.deliver(index, &values);
                self.next = Some(index);
            }
            Poll::Pending => {
                self.clear_stack(index);
                if matches!(waiting, State::Idle) {
                    self.alive -= 1;
                }
                self.threads[index].state = waiting;
                self.operations.add(index, operation);
            }
        }
    }

    /// The new thread runs first; its spawner gets the thread object and comes after those already ready.
    fn spawn(&mut self, spawner: usize, coroutine: Coroutine) {
        let state = coroutine.state;
        let child = match self.adopt(spawner, state) {
            Ok(child) => child,
            Err(reason) => {
                self.answer(spawner, &[Value::Nil, Value::from(reason)]);
                self.next = Some(spawner);
                return;
            }
        };
        self.next = Some(child);
        let key = self.threads[child].coroutine.key;
        // SAFETY: the stack is emptied first, so there is room for one value; a registry read does not raise.
        unsafe {
            ffi::lua_settop(state, 0);
            ffi::lua_rawgeti_(state, ffi::LUA_REGISTRYINDEX, key);
        }
        self.threads[spawner].state = State::Ready(1);
        self.ready.push_back(spawner);
    }

    /// Makes a thread of the fresh coroutine at position 3, moving the arguments above it there.
    fn adopt(&mut self, parent: usize, state: *mut lua_State) -> Result<usize, &'static str> {
        if self.threads.len() - self.vacant.len() > LIGHT_THREADS_MAX {
            return Err("too many light threads");
        }
        // SAFETY: reads the yielded values; `sched.spawn` put a coroutine that has not begun at position 3.
        let (child, count) = unsafe { (ffi::lua_tothread(state, 3), ffi::lua_gettop(state) - 3) };
        // SAFETY: a null check before the coroutine is touched; checkstack does not raise.
        if child.is_null() || unsafe { ffi::lua_checkstack(child, count + 1) } == 0 {
            return Err("no memory");
        }
        let key = self.vm.anchor_at(state, 3).ok_or("no memory")?;
        // SAFETY: there is room in the child for the arguments.
        unsafe { ffi::lua_xmove(state, child, count) };
        let coroutine = Coroutine { state: child, key };
        let thread = Thread { coroutine, parent, state: State::Ready(count) };
        self.alive += 1;
        Ok(match self.vacant.pop() {
            Some(index) => {
                self.threads[index] = thread;
                index
            }
            None => {
                self.threads.push(thread);
                self.threads.len() - 1
            }
        })
    }

    fn wait(&mut self, waiter: usize, coroutine: Coroutine) {
        let state = coroutine.state;
        // SAFETY: reads the number of yielded values.
        let top = unsafe { ffi::lua_gettop(state) };
        let mut wanted = Vec::new();
        for position in 3..=top {
            let Some(index) = self.thread_at(state, position) else { continue };
            if let State::Zombie { ok, results } = self.threads[index].state {
                self.clear_stack(waiter);
                self.hand_over(index, waiter, ok, results);
                self.next = Some(waiter);
                return;
            }
            wanted.push(index);
        }
        self.clear_stack(waiter);
        if wanted.is_empty() {
            self.answer(waiter, &[Value::Bool(false), Value::Nil, Value::from("already waited or killed")]);
            self.next = Some(waiter);
        } else {
            self.threads[waiter].state = State::Waiting(wanted);
        }
    }

    /// A spawned thread has ended: its results go to who waits, or stay until somebody does.
    fn bury(&mut self, index: usize, ok: bool, results: c_int) {
        self.alive -= 1;
        self.forget_zombies_of(index);
        self.threads[index].state = State::Zombie { ok, results };
        let waiter = self.threads.iter().position(|thread| match &thread.state {
            State::Waiting(wanted) => wanted.contains(&index),
            _ => false,
        });
        if let Some(waiter) = waiter {
            self.hand_over(index, waiter, ok, results);
            self.next = Some(waiter);
        } else if self.is_over(self.threads[index].parent) {
            self.forget(index);
        }
    }

    /// Moves an ended thread's results to a waiter: the thread object, success, the results.
    fn hand_over(&mut self, ended: usize, waiter: usize, ok: bool, results: c_int) {
        let from = self.threads[ended].coroutine;
        let to = self.threads[waiter].coroutine.state;
        // SAFETY: both coroutines are suspended; the results are on top of the ended one's stack; room is checked
        // before anything is pushed, and two slots are always there on an emptied stack.
        let count = unsafe {
            let fits = ffi::lua_checkstack(to, results + 2) != 0;
            ffi::lua_rawgeti_(to, ffi::LUA_REGISTRYINDEX, from.key);
            ffi::lua_pushboolean(to, c_int::from(ok && fits));
            if fits {
                ffi::lua_xmove(from.state, to, results);
                results + 2
            } else {
                2
            }
        };
        self.threads[waiter].state = State::Ready(count);
        self.forget(ended);
    }

    fn kill(&mut self, index: usize) {
        if !matches!(self.threads[index].state, State::Zombie { .. } | State::Idle) {
            self.alive -= 1;
        }
        self.operations.cancel(index);
        self.ready.retain(|&thread| thread != index);
        self.forget_zombies_of(index);
        self.forget(index);
    }

    /// The thread of this run whose coroutine lies at a stack position.
    fn thread_at(&self, state: *mut lua_State, position: c_int) -> Option<usize> {
        // SAFETY: any position may be asked for.
        let wanted = unsafe { ffi::lua_tothread(state, position) };
        self.threads
            .iter()
            .position(|thread| thread.coroutine.state == wanted && !thread.is_gone())
            .filter(|&index| index != ENTRY && !wanted.is_null())
    }

    fn is_over(&self, index: usize) -> bool {
        matches!(self.threads[index].state, State::Zombie { .. } | State::Gone)
    }

    fn forget_zombies_of(&mut self, parent: usize) {
        for index in 1..self.threads.len() {
            let thread = &self.threads[index];
            if thread.parent == parent && matches!(thread.state, State::Zombie { .. }) {
                self.forget(index);
            }
        }
    }

    /// Releases a thread's coroutine and its place.
    fn forget(&mut self, index: usize) {
        let thread = &mut self.threads[index];
        if thread.is_gone() {
            return;
        }
        thread.state = State::Gone;
        if index == ENTRY {
            self.vm.checkin(thread.coroutine);
        } else {
            self.vm.release_key(thread.coroutine.key);
            self.vacant.push(index);
        }
    }

    fn clear_stack(&mut self, index: usize) {
        // SAFETY: the coroutine is suspended; what it yielded is the host's to drop.
        unsafe { ffi::lua_settop(self.threads[index].coroutine.state, 0) };
    }

    /// Makes a suspended thread ready with these values in place of what it yielded.
    fn answer(&mut self, index: usize, values: &[Value]) {
        self.clear_stack(index);
        let state = self.threads[index].coroutine.state;
        // SAFETY: the coroutine is suspended with an empty stack.
        let pushed = values.is_empty() || unsafe { raw::push_all(&self.vm, state, values) };
        let count = if pushed { c_int::try_from(values.len()).unwrap_or(0) } else { 0 };
        self.threads[index].state = State::Ready(count);
    }

    /// As `answer`, for an operation's values.
    fn deliver(&mut self, index: usize, values: &Values) {
        if matches!(self.threads[index].state, State::Idle) {
            self.alive += 1;
        }
        self.answer(index, values);
    }

    fn end(&mut self) {
        self.finished = true;
        drop(pending::take());
        self.operations.clear();
        self.next = None;
        self.ready.clear();
        for index in 0..self.threads.len() {
            self.forget(index);
        }
    }
}

impl<H: Host + Unpin> Future for Run<H> {
    type Output = Ended<H>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended<H>> {
        self.advance(cx)
    }
}

impl<H: Host> Drop for Run<H> {
    fn drop(&mut self) {
        if !self.finished {
            self.end();
        }
    }
}
