//! One worker of one generation: a thread with its own runtime, connections, pools and script VM.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustc_hash::FxHashMap;
use terrace_base::clock;
use terrace_base::log::Level;
use terrace_net::{Address, Detached};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;

use crate::Request;
use crate::connection::Client;
use crate::generation::Generation;
use crate::headers_in::SentHead;
use crate::typemap::TypeMap;

/// How many workers serve a generation; shared with it (`worker_processes`).
pub struct WorkerCount(pub usize);

/// Whether a generation's scripts want an agent beside its workers (`ngx.process.enable_privileged_agent`); shared with it.
#[derive(Debug, Default)]
pub struct AgentWanted(AtomicBool);

impl AgentWanted {
    /// Wants one.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether one is wanted.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection on its way to a worker of the next generation.
pub struct Handover {
    /// The stream, off its runtime. No byte of a next request has been read.
    pub stream: Detached,
    /// Its peer.
    pub peer: Address,
    /// The address it was accepted on.
    pub listen: Address,
    /// Its connection number in logs.
    pub number: u64,
    /// How many requests it has carried.
    pub requests: u32,
}

/// Gets what a worker's requests write to the error log: the level, the connection's number, and the message.
pub type LogTap = Rc<dyn Fn(Level, Option<u64>, &[u8])>;

/// Numbers of connections, unique in the process.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// How many heads with their buffers, and how many requests, a worker keeps for reuse.
const KEPT_MAX: usize = 64;
/// Buffers that grew beyond this are not kept.
const BUFFER_KEPT_BYTES_MAX: usize = 64 * 1024;
/// An event loop that always has work never rests, which is when it reads the clock; this many requests do.
const UNTIMED_REQUESTS_MAX: u32 = 16;
/// The size of a fresh read buffer.
const BUFFER_BYTES: usize = 4096;

/// One worker. Never shared between threads.
pub struct Worker {
    /// Its number, from 0 (`ngx.worker.id()`); the agent, which serves no connections, has none.
    pub id: Option<usize>,
    /// The configuration it serves.
    pub generation: Arc<Generation>,
    /// Open connections, to wake the idle ones for a drain.
    clients: RefCell<FxHashMap<u64, Rc<Client>>>,
    draining: Cell<bool>,
    successor: RefCell<Option<UnboundedSender<Handover>>>,
    state: RefCell<TypeMap>,
    /// Heads with their buffers, for reuse.
    #[allow(clippy::vec_box, reason = "a head is large, and moves to its request and back as a pointer")]
    heads: RefCell<Vec<Box<SentHead>>>,
    /// Blank requests, for reuse. Each holds the worker: they go with the last connection.
    requests: RefCell<Vec<Rc<Request>>>,
    tasks: Cell<usize>,
    /// Requests since the clock was last read for their sake.
    untimed: Cell<u32>,
    /// A connection or task has ended.
    left: Notify,
    drain_began: Notify,
    /// It shall be replaced.
    resigns: Notify,
    log_tap: RefCell<Option<LogTap>>,
}

impl Worker {
    /// A worker that has no connection yet.
    pub fn new(id: Option<usize>, generation: Arc<Generation>) -> Rc<Worker> {
        Rc::new(Worker {
            id,
            generation,
            clients: RefCell::default(),
            draining: Cell::new(false),
            successor: RefCell::default(),
            state: RefCell::default(),
            heads: RefCell::default(),
            requests: RefCell::default(),
            tasks: Cell::new(0),
            untimed: Cell::new(0),
            left: Notify::new(),
            drain_began: Notify::new(),
            resigns: Notify::new(),
            log_tap: RefCell::default(),
        })
    }

    /// A number for a new connection.
    pub fn next_number() -> u64 {
        NUMBERS.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether the worker finishes what it has and takes nothing new.
    pub fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Begins the drain: idle connections go to `successor`, or are closed where there is none.
    pub fn drain(&self, successor: Option<UnboundedSender<Handover>>) {
        self.draining.set(true);
        self.successor.replace(successor);
        self.clients.borrow().values().for_each(|c| c.wake_idle());
        self.drain_began.notify_waiters();
    }

    /// Lets another worker take this one's place, which then drains.
    pub fn resign(&self) {
        self.resigns.notify_one();
    }

    /// Ready once for all calls of [`Worker::resign`] before it.
    pub async fn resigned(&self) {
        self.resigns.notified().await;
    }

    /// Ready once the drain has begun, for tasks that would wait beyond it.
    pub async fn draining(&self) {
        let began = self.drain_began.notified();
        if !self.is_draining() {
            began.await;
        }
    }

    /// Hands an idle connection on; gives it back when there is nobody to take it.
    pub(crate) fn hand_over(&self, handover: Handover) -> Result<(), Handover> {
        match &*self.successor.borrow() {
            Some(s) => s.send(handover).map_err(|e| e.0),
            None => Err(handover),
        }
    }

    /// How many connections and tasks are alive.
    pub fn in_flight(&self) -> usize {
        self.clients.borrow().len() + self.tasks.get()
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.clients.borrow().len()
    }

    /// Called once a request: now and then reads the clock.
    pub(crate) fn keep_time(&self) {
        self.untimed.set(self.untimed.get() + 1);
        if self.untimed.get() >= UNTIMED_REQUESTS_MAX {
            self.untimed.set(0);
            clock::update();
        }
    }

    pub(crate) fn enter(&self, client: &Rc<Client>) {
        self.clients.borrow_mut().insert(client.number, Rc::clone(client));
    }

    pub(crate) fn leave(&self, client: &Client) {
        let mut clients = self.clients.borrow_mut();
        clients.remove(&client.number);
        if clients.is_empty() {
            self.requests.take();
        }
        drop(clients);
        self.left.notify_waiters();
    }

    /// Ready once no connection and no task is alive.
    pub async fn drained(&self) {
        self.until(|w| w.in_flight() == 0).await;
    }

    /// Ready once fewer than `connections_max` connections are open.
    pub async fn room(&self, connections_max: usize) {
        self.until(|w| w.connections() < connections_max).await;
    }

    async fn until(&self, holds: impl Fn(&Worker) -> bool) {
        loop {
            let left = self.left.notified();
            if holds(self) {
                return;
            }
            left.await;
        }
    }

    /// Lets `tap` see each message of a request that goes to the error log.
    pub fn tap_log(&self, tap: LogTap) {
        self.log_tap.replace(Some(tap));
    }

    pub(crate) fn log_tap(&self) -> Option<LogTap> {
        self.log_tap.borrow().clone()
    }

    /// Runs a task that the drain waits for (a timer that is due, a background refresh).
    pub fn spawn(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        let guard = TaskGuard::new(Rc::clone(self));
        terrace_event::spawn(async move {
            let _guard = guard;
            task.await;
        });
    }

    /// A module's state of this worker, made on first use.
    pub fn state<T: 'static>(&self, make: impl FnOnce() -> T) -> Rc<T> {
        if let Some(s) = self.state.borrow().find() {
            return s;
        }
        let made = Rc::new(make());
        self.state.borrow_mut().put(Rc::clone(&made));
        made
    }

    /// A module's state of this worker, if it was made.
    pub fn find_state<T: 'static>(&self) -> Option<Rc<T>> {
        self.state.borrow().find()
    }

    /// Puts a module's state of this worker, which was made elsewhere.
    pub fn put_state<T: 'static>(&self, made: Rc<T>) {
        self.state.borrow_mut().put(made);
    }

    /// A head to read a request into.
    pub(crate) fn take_head(&self) -> Box<SentHead> {
        self.heads
            .borrow_mut()
            .pop()
            .unwrap_or_else(|| Box::new(SentHead { buf: vec![0; BUFFER_BYTES], ..SentHead::default() }))
    }

    /// A blank request, if one is kept.
    pub(crate) fn take_request(&self) -> Option<Rc<Request>> {
        self.requests.borrow_mut().pop()
    }

    /// Keeps a request that [`Request::recycle`] has made blank.
    pub(crate) fn give_request(&self, request: Rc<Request>) {
        let mut kept = self.requests.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(request);
        }
    }

    pub(crate) fn give_head(&self, mut head: Box<SentHead>) {
        let mut kept = self.heads.borrow_mut();
        if kept.len() < KEPT_MAX && (BUFFER_BYTES..=BUFFER_KEPT_BYTES_MAX).contains(&head.buf.len()) {
            head.head.clear();
            kept.push(head);
        }
    }
}

struct TaskGuard(Rc<Worker>);

impl TaskGuard {
    fn new(worker: Rc<Worker>) -> TaskGuard {
        worker.tasks.set(worker.tasks.get() + 1);
        TaskGuard(worker)
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        self.0.tasks.set(self.0.tasks.get() - 1);
        self.0.left.notify_waiters();
    }
}
