//! A worker's thread: runs its modules' hooks, accepts connections, takes over those of its predecessor, drains.
//!
//! It accepts only when told to, which the control loop does when every worker of the generation is ready.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use terrace_base::log::Level;
use terrace_base::{OsError, clock};
use terrace_event::{EventLoop, TaskHandle};
use terrace_http::worker::Handover;
use terrace_http::{Generation, Worker, connection};
use terrace_net::{Acceptor, Listener};
use tokio::runtime::Handle;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

/// Connections accepted on one socket before other tasks get their turn.
const ACCEPT_BATCH_MAX: usize = 64;
/// How long a socket rests when the system has no file or memory for another connection.
const ACCEPT_PAUSE_MS: u64 = 500;
/// How often the log says that `worker_connections` are not enough.
const LIMIT_REPORT_MS: u64 = 1000;
/// How old a worker is at least when it is replaced for a script's sake, so that scripts that ask for it at each start do
/// no harm.
const LEAVING_AGE_MS: u64 = 1000;
/// How long modules may take to end when the server is told to stop at once.
const END_HOOKS_MS: u64 = 1000;

/// What a worker is told.
pub enum Control {
    /// Accept connections.
    Serve,
    /// Take nothing new and end with the last request; idle connections go to `successor`.
    Drain {
        /// Who takes idle connections over; without one they are closed.
        successor: Option<UnboundedSender<Handover>>,
        /// How long requests may take; none is no limit.
        timeout_ms: Option<u64>,
    },
    /// End now.
    Stop,
}

/// What a worker's thread says.
#[derive(Debug, Clone, Copy)]
pub enum Report {
    /// A script wants it replaced.
    Leaves(ThreadNumber),
    /// It has ended, however it did.
    Ended(ThreadNumber),
}

/// A number that no other worker's thread of the process has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadNumber(u64);

impl ThreadNumber {
    fn next() -> ThreadNumber {
        static LAST: AtomicU64 = AtomicU64::new(0);
        ThreadNumber(LAST.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a worker is made of.
pub struct Spec {
    /// Its number; the agent has none.
    pub id: Option<usize>,
    /// What it serves.
    pub generation: Arc<Generation>,
    /// Its sockets, each with the index of its address.
    pub sockets: Vec<(usize, Listener)>,
    /// `worker_connections`.
    pub connections_max: usize,
    /// The runtime for what is not on the request path.
    pub background: Option<Handle>,
    /// Where it says what becomes of it.
    pub reports: UnboundedSender<Report>,
}

/// A worker that runs. Dropping the handle ends it.
pub struct WorkerHandle {
    /// Its number; the agent has none.
    pub id: Option<usize>,
    /// Its thread.
    pub thread: ThreadNumber,
    control: UnboundedSender<Control>,
    /// Takes connections over.
    pub handover: UnboundedSender<Handover>,
}

impl WorkerHandle {
    /// Tells it something. One that has ended does not hear it.
    pub fn tell(&self, control: Control) {
        let _ = self.control.send(control);
    }
}

/// Whether a worker's hooks succeeded.
pub type Readiness = oneshot::Receiver<Result<(), String>>;

/// Starts a worker's thread.
///
/// # Errors
/// When the system has no thread for it.
pub fn start(spec: Spec) -> io::Result<(WorkerHandle, Readiness)> {
    let (control, control_rx) = unbounded_channel();
    let (handover, handover_rx) = unbounded_channel();
    let (ready_tx, ready) = oneshot::channel();
    let (id, thread) = (spec.id, ThreadNumber::next());
    thread::Builder::new()
        .name(id.map_or("agent".to_owned(), |id| format!("worker {id}")))
        .stack_size(terrace_lua::THREAD_STACK_BYTES)
        .spawn(move || {
            let _ended = Ended { thread, to: spec.reports.clone() };
            // For what blocks, and for the clients of stores.
            let background = spec.background.clone();
            let _entered = background.as_ref().map(Handle::enter);
            match EventLoop::new(clock::update_at) {
                Ok(events) => events.block_on(run(spec, thread, control_rx, handover_rx, ready_tx)),
                Err(e) => _ = ready_tx.send(Err(format!("cannot start an event loop {}", OsError(&e)))),
            }
        })?;
    Ok((WorkerHandle { id, thread, control, handover }, ready))
}

/// Reports the end of the thread, also when it panics.
struct Ended {
    thread: ThreadNumber,
    to: UnboundedSender<Report>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        // Nobody listens when the process is ending.
        let _ = self.to.send(Report::Ended(self.thread));
    }
}

async fn run(
    spec: Spec,
    thread: ThreadNumber,
    mut control: UnboundedReceiver<Control>,
    mut handover: UnboundedReceiver<Handover>,
    ready: oneshot::Sender<Result<(), String>>,
) {
    clock::update();
    let worker = Worker::new(spec.id, Arc::clone(&spec.generation));
    let started = start_modules(&worker).await;
    let failed = started.is_err();
    if ready.send(started).is_err() || failed {
        return;
    }
    let mut accepting = Vec::new();
    let old_enough = Instant::now() + Duration::from_millis(LEAVING_AGE_MS);
    let end = loop {
        tokio::select! {
            biased;
            told = control.recv() => match told {
                Some(Control::Serve) => accepting = accept_all(&worker, &spec),
                Some(Control::Drain { successor, timeout_ms }) => break Some((successor, timeout_ms)),
                Some(Control::Stop) | None => break None,
            },
            Some(h) = handover.recv() => take_over(&worker, h),
            () = leaving(&worker, old_enough) => {
                // Without anybody who listens the process is ending.
                let _ = spec.reports.send(Report::Leaves(thread));
            }
        }
    };
    accepting.iter().for_each(TaskHandle::abort);
    drop(spec.sockets);
    if let Some((successor, timeout_ms)) = end {
        // What was sent before the drain came goes on to the successor in its turn.
        while let Ok(h) = handover.try_recv() {
            take_over(&worker, h);
        }
        worker.drain(successor);
        drain(&worker, &mut control, timeout_ms).await;
    }
    let hooks = end_modules(&worker);
    // Hooks that take longer are given up: the process must be able to end.
    let _ = terrace_event::timeout(Duration::from_millis(END_HOOKS_MS), hooks).await;
}

/// Ready when a script wants the worker replaced and it is old enough for that.
async fn leaving(worker: &Worker, old_enough: Instant) {
    terrace_event::sleep_until(old_enough).await;
    worker.resigned().await;
}

async fn start_modules(worker: &Rc<Worker>) -> Result<(), String> {
    for module in worker.generation.modules {
        if let Some(hook) = module.worker_start(worker) {
            hook.await?;
        }
    }
    Ok(())
}

async fn end_modules(worker: &Rc<Worker>) {
    for module in worker.generation.modules {
        if let Some(hook) = module.worker_end(worker) {
            hook.await;
        }
    }
}

/// Waits until nothing is left to do, the time is over, or the worker is told to stop.
async fn drain(worker: &Rc<Worker>, control: &mut UnboundedReceiver<Control>, timeout_ms: Option<u64>) {
    let over = async {
        match timeout_ms {
            Some(ms) => terrace_event::sleep(Duration::from_millis(ms)).await,
            None => std::future::pending().await,
        }
    };
    let told_to_stop = async { while !matches!(control.recv().await, Some(Control::Stop) | None) {} };
    tokio::select! {
        () = worker.drained() => {}
        () = over => {
            let left = worker.connections();
            let log = &worker.generation.log;
            log.print(Level::Notice, None, format_args!("worker_shutdown_timeout: {left} connections closed"));
        }
        () = told_to_stop => {}
    }
}

/// Serves a connection that an earlier generation accepted; one whose address is gone is closed.
fn take_over(worker: &Rc<Worker>, handover: Handover) {
    let listen = worker.generation.listens.iter().position(|l| l.address == handover.listen);
    if let (Some(listen), Ok(stream)) = (listen, handover.stream.attach()) {
        let Handover { peer, number, requests, .. } = handover;
        let serving = connection::serve(Rc::clone(worker), stream, peer, listen, number, requests);
        terrace_event::spawn(serving);
    }
}

fn accept_all(worker: &Rc<Worker>, spec: &Spec) -> Vec<TaskHandle> {
    let mut tasks = Vec::new();
    for (listen, listener) in &spec.sockets {
        match listener.acceptor() {
            Ok(acceptor) => {
                let (worker, listen, max) = (Rc::clone(worker), *listen, spec.connections_max);
                tasks.push(terrace_event::spawn(accept(worker, acceptor, listen, max)));
            }
            Err(e) => {
                let (address, e) = (listener.address(), OsError(&e));
                let log = &spec.generation.log;
                log.print(Level::Emerg, None, format_args!("cannot accept on {address} {e}"));
            }
        }
    }
    tasks
}

/// Accepts until the task is ended.
async fn accept(worker: Rc<Worker>, acceptor: Acceptor, listen: usize, connections_max: usize) {
    let mut reported_ms = None;
    let mut batch = 0;
    loop {
        if worker.connections() >= connections_max {
            report_limit(&worker, connections_max, &mut reported_ms);
            worker.room(connections_max).await;
        }
        match acceptor.accept().await {
            Ok((stream, peer)) => {
                let number = Worker::next_number();
                let serving = connection::serve(Rc::clone(&worker), stream, peer, listen, number, 0);
                terrace_event::spawn(serving);
            }
            Err(e) => accept_failed(&worker, &e).await,
        }
        batch += 1;
        if batch % ACCEPT_BATCH_MAX == 0 {
            terrace_event::yield_now().await;
        }
    }
}

fn report_limit(worker: &Worker, connections_max: usize, reported_ms: &mut Option<u64>) {
    let now = clock::monotonic_ms();
    if reported_ms.is_none_or(|at| now >= at + LIMIT_REPORT_MS) {
        *reported_ms = Some(now);
        let text = format_args!("{connections_max} worker_connections are not enough");
        worker.generation.log.print(Level::Alert, None, text);
    }
}

async fn accept_failed(worker: &Worker, error: &io::Error) {
    let log = &worker.generation.log;
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM) => {
            log.print(Level::Crit, None, format_args!("accept4() failed {}", OsError(error)));
            terrace_event::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
        }
        // The connection ended before it was taken.
        _ => log.print(Level::Info, None, format_args!("accept4() failed {}", OsError(error))),
    }
}
