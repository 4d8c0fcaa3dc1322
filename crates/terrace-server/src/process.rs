//! The serving process: its control loop, on the main thread, turns signals into starts, drains and ends of workers.
//!
//! Invariant: at every moment up to the stop one generation accepts connections. A new one takes over only when
//! all of its workers are ready; until then the old one serves as if nothing had happened.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use terrace_base::OsError;
use terrace_base::log::{ErrorLog, Level, reopen_all};
use terrace_conf::ConfError;
use terrace_http::Generation;
use terrace_http::persistent::Persistent;
use terrace_http::worker::{AgentWanted, Handover};
use thiserror::Error;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::background;
use crate::channel::Channel;
use crate::load::{Loaded, Source};
use crate::main_conf::MainConf;
use crate::pid_file::PidFile;
use crate::signals::{Command, Signals};
use crate::sockets::{BindError, Sockets};
use crate::worker_thread::{self, Control, Readiness, Report, Spec, ThreadNumber, WorkerHandle};

/// Threads of the runtime for what is not on the request path.
const BACKGROUND_THREADS: usize = 2;
/// How long workers may take to end when the server stops at once.
const STOP_MS: u64 = 2000;
/// How often an address that is in use is tried at the start: its last owner may be about to end.
const BIND_ATTEMPTS: u32 = 5;
/// The pause between these attempts.
const BIND_PAUSE_MS: u64 = 500;

/// Why a generation did not come to serve.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Conf(#[from] ConfError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system refused.
    #[error("{what} failed {}", OsError(error))]
    System {
        /// What was tried.
        what: String,
        /// Why not.
        #[source]
        error: io::Error,
    },
    /// A worker's hook failed.
    #[error("{0}")]
    Worker(String),
}

impl StartError {
    /// For `map_err`: names what was tried.
    pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> StartError {
        let what = what.into();
        |error| StartError::System { what, error }
    }
}

/// Called once the sockets are bound, before threads exist that work for the user.
pub type OnBound = Box<dyn FnOnce(&Loaded) -> Result<(), StartError>>;
/// Called once the first generation is ready to serve; the file lives as long as the server.
pub type OnReady = Box<dyn FnOnce(&Loaded) -> Result<Option<PidFile>, StartError>>;

/// What the control loop begins with.
pub struct Start {
    /// The files.
    pub source: Source,
    /// The end of the channel to the master, where there is one.
    pub master: Option<OwnedFd>,
    /// See [`OnBound`].
    pub on_bound: OnBound,
    /// See [`OnReady`].
    pub on_ready: OnReady,
}

/// Serves until a signal ends it.
///
/// # Errors
/// When the first generation does not come to serve.
pub fn serve(start: Start) -> Result<ExitCode, StartError> {
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(BACKGROUND_THREADS)
        .thread_name("terrace-background")
        .enable_all()
        .build()
        .map_err(StartError::system("starting the background threads"))?;
    let control = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(StartError::system("starting the event loop"))?;
    let persistent = Arc::new(Persistent::new(background.handle().clone()));
    let code = control.block_on(async {
        let (server, signals) = Server::start(start, persistent).await?;
        Ok(server.run(signals).await)
    });
    // A background task that blocks must not keep the process.
    background.shutdown_background();
    code
}

/// Workers of a generation that have not ended, the agent among them.
struct Running {
    shutdown_timeout_ms: Option<u64>,
    workers: Vec<WorkerHandle>,
}

impl Running {
    fn tell(&self, control: impl Fn() -> Control) {
        self.workers.iter().for_each(|w| w.tell(control()));
    }

    fn drain(&self, successor: Option<&UnboundedSender<Handover>>) {
        let timeout_ms = self.shutdown_timeout_ms;
        self.tell(|| Control::Drain { successor: successor.cloned(), timeout_ms });
    }

    fn position(&self, thread: ThreadNumber) -> Option<usize> {
        self.workers.iter().position(|w| w.thread == thread)
    }
}

struct Server {
    source: Source,
    persistent: Arc<Persistent>,
    sockets: Sockets,
    log: Arc<ErrorLog>,
    number: u64,
    /// The generation that serves.
    served: Arc<Generation>,
    current: Option<Running>,
    /// Workers that drain.
    old: Vec<Running>,
    /// What threads of workers say.
    reports: UnboundedReceiver<Report>,
    reports_tx: UnboundedSender<Report>,
    /// Where draining workers send idle connections: to the workers of whatever generation is current then.
    successor: UnboundedSender<Handover>,
    takers: Rc<RefCell<Vec<UnboundedSender<Handover>>>>,
    /// Removed when the server ends.
    pid_file: Option<PidFile>,
    /// Whether standard error is the error log.
    in_background: bool,
}

impl Server {
    async fn start(start: Start, persistent: Arc<Persistent>) -> Result<(Server, Signals), StartError> {
        let signals = Signals::new().map_err(StartError::system("signal()"))?;
        let master = start.master.map(Channel::new).transpose();
        let sockets = Sockets::new(master.map_err(StartError::system("opening the channel"))?);
        let loaded = start.source.load(&persistent, 1, false)?;
        let (reports_tx, reports) = unbounded_channel();
        let (successor, orphans) = unbounded_channel();
        let takers = Rc::default();
        tokio::task::spawn_local(hand_on(orphans, Rc::clone(&takers)));
        let mut server = Server {
            source: start.source,
            persistent,
            sockets,
            log: Arc::clone(&loaded.generation.log),
            number: 1,
            served: Arc::clone(&loaded.generation),
            current: None,
            old: Vec::new(),
            reports,
            reports_tx,
            successor,
            takers,
            pid_file: None,
            in_background: loaded.main.daemon(),
        };
        match server.start_first(&loaded, start.on_bound, start.on_ready).await {
            Ok(()) => Ok((server, signals)),
            Err(error) => {
                server.log_to_files(&error);
                server.sockets.close();
                Err(error)
            }
        }
    }

    async fn start_first(
        &mut self,
        loaded: &Loaded,
        on_bound: OnBound,
        on_ready: OnReady,
    ) -> Result<(), StartError> {
        self.bind_first(loaded).await?;
        on_bound(loaded)?;
        let running = self.start_workers(loaded).await?;
        self.pid_file = on_ready(loaded)?;
        self.redirect_errors();
        if let Some(master) = self.sockets.master() {
            master.ready().await.map_err(StartError::system("telling the master"))?;
        }
        self.switch_to(running);
        Ok(())
    }

    /// Logs an error that standard error gets as well.
    fn log_to_files(&self, error: &StartError) {
        if self.log.sinks().iter().all(|sink| sink.file.path().is_some()) {
            self.log_error(error);
        }
    }

    fn log_error(&self, error: &StartError) {
        let text = error.to_string().replace('\n', ", ");
        self.log.print(Level::Emerg, None, format_args!("{text}"));
    }

    /// Binds; an address in use may be about to become free, as when a server is stopped and started.
    async fn bind_first(&mut self, loaded: &Loaded) -> Result<(), BindError> {
        for attempt in 1.. {
            match self.sockets.prepare(&loaded.generation, loaded.main.workers()).await {
                Err(e) if e.error.kind() == io::ErrorKind::AddrInUse && attempt < BIND_ATTEMPTS => {
                    self.log.print(Level::Emerg, None, format_args!("{e}"));
                    tokio::time::sleep(Duration::from_millis(BIND_PAUSE_MS)).await;
                }
                result => return result,
            }
        }
        Ok(())
    }

    /// Starts the workers of a generation whose sockets are bound and waits until all are ready. When one fails,
    /// all end.
    async fn start_workers(&self, loaded: &Loaded) -> Result<Running, StartError> {
        for (level, warning) in &loaded.warnings {
            self.log.print(*level, None, format_args!("{warning}"));
        }
        let count = loaded.main.workers();
        let generation = &loaded.generation;
        let mut running = Running {
            shutdown_timeout_ms: loaded.main.shutdown_timeout_ms,
            workers: Vec::with_capacity(count),
        };
        generation.log.print(Level::Notice, None, format_args!("start worker threads"));
        let mut waiting = Vec::new();
        for id in 0..count {
            let (worker, ready) = self.start_worker(generation, &loaded.main, Some(id))?;
            running.workers.push(worker);
            waiting.push(ready);
        }
        for ready in waiting {
            until_ready(ready).await?;
        }
        // Which `init_by_lua` has asked for by now. As in nginx, there is none without a master.
        let wants_agent = generation.shared::<AgentWanted>().is_some_and(|wanted| wanted.is_set());
        if wants_agent && self.sockets.master().is_some() {
            let (agent, ready) = self.start_worker(generation, &loaded.main, None)?;
            running.workers.push(agent);
            until_ready(ready).await?;
        }
        Ok(running)
    }

    /// Starts a worker, or without a number the agent.
    fn start_worker(
        &self,
        generation: &Arc<Generation>,
        main: &MainConf,
        id: Option<usize>,
    ) -> Result<(WorkerHandle, Readiness), StartError> {
        let sockets = id.map(|id| self.sockets.of_worker(generation, id, main.workers()));
        let started = worker_thread::start(Spec {
            id,
            generation: Arc::clone(generation),
            sockets: sockets.unwrap_or_default(),
            connections_max: main.worker_connections(),
            background: self.persistent.background(),
            reports: self.reports_tx.clone(),
        });
        let started = started.map_err(StartError::system("pthread_create()"))?;
        match id {
            Some(id) => generation.log.print(Level::Notice, None, format_args!("start worker thread {id}")),
            None => generation.log.print(Level::Notice, None, format_args!("start privileged agent thread")),
        }
        Ok(started)
    }

    /// Lets a generation serve and the one before it drain.
    fn switch_to(&mut self, running: Running) {
        running.tell(|| Control::Serve);
        let before = self.current.replace(running);
        self.choose_takers();
        if let Some(before) = before {
            before.drain(Some(&self.successor));
            self.old.push(before);
        }
    }

    /// Idle connections go to the current workers; the agent takes none.
    fn choose_takers(&self) {
        let workers = self.current.iter().flat_map(|r| &r.workers).filter(|w| w.id.is_some());
        self.takers.replace(workers.map(|w| w.handover.clone()).collect());
    }

    /// Lets a new worker take the place of one, which drains. One that drains already does so anyway; when no new one
    /// comes, the old one stays.
    async fn replace(&mut self, thread: ThreadNumber) {
        let Some(id) = self.current.as_ref().and_then(|r| Some(r.workers[r.position(thread)?].id)) else {
            return;
        };
        let main = self.served.shared::<MainConf>().unwrap_or_default();
        let started = match self.start_worker(&self.served, &main, id) {
            Ok((worker, ready)) => until_ready(ready).await.map(|()| worker),
            Err(error) => Err(error),
        };
        let worker = match started {
            Ok(worker) => worker,
            Err(error) => return self.log_error(&error),
        };
        worker.tell(Control::Serve);
        if let Some(current) = &mut self.current
            && let Some(position) = current.position(thread)
        {
            let shutdown_timeout_ms = current.shutdown_timeout_ms;
            let workers = vec![std::mem::replace(&mut current.workers[position], worker)];
            self.choose_takers();
            let leaving = Running { shutdown_timeout_ms, workers };
            leaving.drain(Some(&self.successor));
            self.old.push(leaving);
        }
    }

    async fn reload(&mut self) {
        match self.next_generation().await {
            Ok(generation) => {
                self.log = Arc::clone(&generation.log);
                self.served = generation;
                self.redirect_errors();
            }
            Err(error) => self.log_error(&error),
        }
        // Addresses that went, or that were bound for a configuration that failed.
        self.sockets.keep_only(&self.served).await;
    }

    async fn next_generation(&mut self) -> Result<Arc<Generation>, StartError> {
        self.number += 1;
        let loaded = self.source.load(&self.persistent, self.number, false)?;
        self.sockets.prepare(&loaded.generation, loaded.main.workers()).await?;
        let running = self.start_workers(&loaded).await?;
        self.switch_to(running);
        Ok(loaded.generation)
    }

    async fn run(mut self, mut signals: Signals) -> ExitCode {
        loop {
            let command = tokio::select! {
                command = signals.next() => command,
                Some(report) = self.reports.recv() => match report {
                    // Without a master the server is one process with a worker, as it were.
                    Report::Leaves(_) if self.sockets.master().is_none() => return self.quit(signals).await,
                    Report::Leaves(thread) => {
                        let stop = tokio::select! {
                            () = self.replace(thread) => continue,
                            command = signals.stop() => command,
                        };
                        self.log.print(Level::Notice, None, format_args!("{}", stop.received()));
                        return self.stop().await;
                    }
                    Report::Ended(thread) => {
                        if !self.worker_ended(thread) {
                            continue;
                        }
                        self.log.print(Level::Alert, None, format_args!("a worker thread ended by itself"));
                        self.stop().await;
                        return ExitCode::from(2);
                    }
                },
                () = until_closed(self.sockets.master()) => {
                    let text = format_args!("the master process is gone, shutting down");
                    self.log.print(Level::Alert, None, text);
                    return self.quit(signals).await;
                }
            };
            self.log.print(Level::Notice, None, format_args!("{}", command.received()));
            match command {
                Command::Reload => {
                    let stop = tokio::select! {
                        () = self.reload() => continue,
                        command = signals.stop() => command,
                    };
                    self.log.print(Level::Notice, None, format_args!("{}", stop.received()));
                    return self.stop().await;
                }
                Command::Reopen => self.reopen(),
                Command::Unsupported(_) => {}
                Command::Stop(_) => return self.stop().await,
                Command::Quit => return self.quit(signals).await,
            }
        }
    }

    /// Whether a worker has ended that must not.
    fn worker_ended(&mut self, thread: ThreadNumber) -> bool {
        for running in &mut self.old {
            running.workers.retain(|w| w.thread != thread);
        }
        self.old.retain(|r| !r.workers.is_empty());
        self.current.as_ref().is_some_and(|r| r.position(thread).is_some())
    }

    fn reopen(&self) {
        for failed in reopen_all() {
            let (path, error) = (failed.path.display(), OsError(&failed.error));
            self.log.print(Level::Emerg, None, format_args!("open() \"{path}\" failed {error}"));
        }
        self.redirect_errors();
    }

    /// In the background, standard error follows the error log.
    fn redirect_errors(&self) {
        if self.in_background
            && let Err(e) = background::detach(&self.log)
        {
            self.log_error(&e);
        }
    }

    /// Takes nothing new, finishes what is under way, ends.
    async fn quit(mut self, mut signals: Signals) -> ExitCode {
        self.takers.borrow_mut().clear();
        if let Some(current) = self.current.take() {
            current.drain(None);
            self.old.push(current);
        }
        self.sockets.close();
        while !self.old.is_empty() {
            tokio::select! {
                Some(report) = self.reports.recv() => {
                    if let Report::Ended(thread) = report {
                        self.worker_ended(thread);
                    }
                }
                command = signals.stop() => {
                    self.log.print(Level::Notice, None, format_args!("{}", command.received()));
                    return self.stop().await;
                }
            }
        }
        self.pid_file = None;
        self.log.print(Level::Notice, None, format_args!("exit"));
        ExitCode::SUCCESS
    }

    /// Ends now.
    async fn stop(&mut self) -> ExitCode {
        self.takers.borrow_mut().clear();
        self.old.extend(self.current.take());
        self.old.iter().for_each(|r| r.tell(|| Control::Stop));
        self.sockets.close();
        let ended = async {
            while !self.old.is_empty() {
                match self.reports.recv().await {
                    Some(Report::Ended(thread)) => _ = self.worker_ended(thread),
                    Some(Report::Leaves(_)) => {}
                    None => return,
                }
            }
        };
        // Threads that are stuck end with the process.
        let _ = tokio::time::timeout(Duration::from_millis(STOP_MS), ended).await;
        self.pid_file = None;
        self.log.print(Level::Notice, None, format_args!("exit"));
        ExitCode::SUCCESS
    }
}

/// The error is a worker's that did not get ready.
async fn until_ready(ready: Readiness) -> Result<(), StartError> {
    let ended = || Err("a worker ended while it started".to_owned());
    ready.await.unwrap_or_else(|_| ended()).map_err(StartError::Worker)
}

/// Distributes connections of draining workers over the current ones; without any they are closed.
async fn hand_on(
    mut orphans: UnboundedReceiver<Handover>,
    takers: Rc<RefCell<Vec<UnboundedSender<Handover>>>>,
) {
    let mut turn = 0_usize;
    while let Some(handover) = orphans.recv().await {
        let takers = takers.borrow();
        turn = turn.wrapping_add(1);
        if let Some(taker) = takers.get(turn % takers.len().max(1)) {
            // A worker that ended by itself ends the process.
            let _ = taker.send(handover);
        }
    }
}

async fn until_closed(master: Option<&Channel>) {
    match master {
        Some(channel) => channel.closed().await,
        None => std::future::pending().await,
    }
}
