//! The master: holds the listening sockets and the pid file, starts the serving process, and starts it again should it
//! die. Clients wait in the sockets' backlog meanwhile. It reads no request and runs no script.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitCode, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use terrace_base::OsError;
use terrace_base::log::{ErrorLog, Level, reopen_all};
use terrace_net::{Address, Listener};
use tokio::runtime::LocalOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::background;
use crate::channel::{self, Channel};
use crate::main_conf::{MainConf, WORKERS_MAX};
use crate::message::{Answer, Request};
use crate::pid_file::PidFile;
use crate::process::StartError;
use crate::signals::{Command, Signals};
use crate::sockets;
use crate::stage::Stage;

/// The first pause before a serving process that died is started again; doubled while it keeps dying.
const RESTART_PAUSE_MS: u64 = 100;
/// The longest such pause.
const RESTART_PAUSE_MS_MAX: u64 = 5000;
/// A serving process that lived this long starts again after the first pause.
const STABLE_MS: u64 = 10_000;
/// How long the serving process may take to stop at once before it is killed.
const KILL_MS: u64 = 5000;
/// The most addresses whose sockets are held.
const ADDRESSES_MAX: usize = 4096;

/// What the master begins with.
pub struct Start {
    /// The words of the command line, for the serving process.
    pub args: Vec<OsString>,
    /// The main level's settings.
    pub main: Arc<MainConf>,
    /// The error log.
    pub log: Arc<ErrorLog>,
    /// Whether a first process waits for it.
    pub background: bool,
}

/// Runs until a signal ends it and the serving process is gone.
///
/// # Errors
/// When nothing can be started.
pub fn run(start: Start) -> Result<ExitCode, StartError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(StartError::system("starting the event loop"))?;
    runtime.block_on(async {
        let mut signals = Signals::new().map_err(StartError::system("signal()"))?;
        let mut children = signal(SignalKind::child()).map_err(StartError::system("signal()"))?;
        let mut master = Master::new(start);
        master.start_child()?;
        loop {
            tokio::select! {
                command = signals.next() => master.command(command),
                _ = children.recv() => {}
                said = said(master.child.as_ref()) => master.answer(said).await?,
                () = until(master.due) => master.pass_time()?,
            }
            if let Some(code) = master.reap() {
                return Ok(code);
            }
        }
    })
}

struct Serving {
    process: Child,
    channel: Channel,
    started: Instant,
    channel_open: bool,
}

struct Master {
    start: Start,
    sockets: Vec<(Address, Vec<Listener>)>,
    child: Option<Serving>,
    /// Written once the first serving process serves.
    pid_file: Option<PidFile>,
    has_served: bool,
    ending: bool,
    pause_ms: u64,
    /// When to start the serving process again, or, while ending, to kill it.
    due: Option<Instant>,
}

impl Master {
    fn new(start: Start) -> Master {
        Master {
            start,
            sockets: Vec::new(),
            child: None,
            pid_file: None,
            has_served: false,
            ending: false,
            pause_ms: RESTART_PAUSE_MS,
            due: None,
        }
    }

    fn log(&self, level: Level, text: std::fmt::Arguments<'_>) {
        self.start.log.print(level, None, text);
    }

    fn start_child(&mut self) -> Result<(), StartError> {
        let start = || -> io::Result<Serving> {
            let (mine, theirs) = channel::pair()?;
            let stdout = if self.start.background { Stdio::null() } else { Stdio::inherit() };
            let process = Stage::Worker.spawn(&self.start.args, theirs.into(), stdout, &self.start.main)?;
            Ok(Serving { process, channel: Channel::new(mine)?, started: Instant::now(), channel_open: true })
        };
        let serving = start().map_err(StartError::system("starting the serving process"))?;
        self.log(Level::Notice, format_args!("start worker process {}", serving.process.id()));
        self.child = Some(serving);
        self.due = None;
        Ok(())
    }

    fn command(&mut self, command: Command) {
        self.log(Level::Notice, format_args!("{}", command.received()));
        match command {
            Command::Unsupported(_) => return,
            Command::Reopen => {
                for failed in reopen_all() {
                    let (path, error) = (failed.path.display(), OsError(&failed.error));
                    self.log(Level::Emerg, format_args!("open() \"{path}\" failed {error}"));
                }
                if self.start.background {
                    // Without it errors go to the file as it was, which is no reason to end.
                    let _ = background::detach(&self.start.log);
                }
            }
            // A serving process that waits to be started may find a better configuration now.
            Command::Reload if self.child.is_none() => self.due = Some(Instant::now()),
            Command::Reload => {}
            Command::Quit => self.ending = true,
            Command::Stop(_) => {
                self.ending = true;
                self.due = Some(Instant::now() + Duration::from_millis(KILL_MS));
            }
        }
        if let Ok(signal) = Signal::try_from(command.number()) {
            self.signal(signal);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.child.as_ref().and_then(|c| i32::try_from(c.process.id()).ok()) {
            // One that has ended is noticed by its end.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Carries out what the serving process asks for.
    async fn answer(&mut self, said: io::Result<String>) -> Result<(), StartError> {
        let request = said.as_deref().map(Request::parse);
        match request {
            Ok(Some(Request::Ready)) => self.serves(),
            Ok(Some(Request::Release(address))) => {
                sockets::remove_file(&address);
                self.sockets.retain(|(a, _)| *a != address);
                Ok(())
            }
            Ok(Some(Request::Bind { index, address, options })) => {
                let socket = self.socket(index, &address, &options);
                self.reply(socket).await;
                Ok(())
            }
            // It is about to end, or says what no version of it says: the channel is of no use any more.
            Ok(None) | Err(_) => {
                self.child.iter_mut().for_each(|c| c.channel_open = false);
                Ok(())
            }
        }
    }

    fn serves(&mut self) -> Result<(), StartError> {
        if std::mem::replace(&mut self.has_served, true) {
            return Ok(());
        }
        let written = PidFile::write(&self.start.main.pid_path());
        if written.is_err() {
            self.signal(Signal::SIGTERM);
        }
        self.pid_file = Some(written?);
        if self.start.background {
            background::report_ready();
            background::detach(&self.start.log)?;
        }
        Ok(())
    }

    fn socket(
        &mut self,
        index: usize,
        address: &Address,
        options: &terrace_net::ListenOptions,
    ) -> io::Result<Listener> {
        let held = self.sockets.iter().find(|(a, _)| a == address).map_or(&[][..], |(_, held)| held);
        if let Some(listener) = held.get(index) {
            return Ok(listener.clone());
        }
        if held.len() >= WORKERS_MAX || self.sockets.len() >= ADDRESSES_MAX {
            return Err(io::Error::from(nix::errno::Errno::EMFILE));
        }
        let listener = sockets::bind(address, options, self.sockets.iter().map(|(a, _)| a))?;
        match self.sockets.iter_mut().find(|(a, _)| a == address) {
            Some((_, held)) => held.push(listener.clone()),
            None => self.sockets.push((address.clone(), vec![listener.clone()])),
        }
        Ok(listener)
    }

    async fn reply(&self, socket: io::Result<Listener>) {
        let Some(child) = &self.child else { return };
        // A serving process that is gone needs no answer.
        let _ = match socket {
            Ok(listener) => {
                let file = listener.socket().as_fd();
                child.channel.send(&Answer::Ok.to_string(), Some(file)).await
            }
            Err(e) => {
                let number = e.raw_os_error().unwrap_or(nix::errno::Errno::EIO as i32);
                child.channel.send(&Answer::Error(number).to_string(), None).await
            }
        };
    }

    fn pass_time(&mut self) -> Result<(), StartError> {
        self.due = None;
        if self.ending {
            self.signal(Signal::SIGKILL);
            return Ok(());
        }
        if self.child.is_none() { self.start_child() } else { Ok(()) }
    }

    /// Looks whether the serving process has ended; `Some` when this one should end too.
    fn reap(&mut self) -> Option<ExitCode> {
        if let Some(status) = self.child.as_mut().and_then(|c| c.process.try_wait().transpose()) {
            if let Some(child) = self.child.take() {
                self.child_ended(child.process.id(), status.ok(), child.started.elapsed());
            }
            if !self.has_served {
                // It has said why.
                return Some(ExitCode::FAILURE);
            }
        }
        if !self.ending || self.child.is_some() {
            return None;
        }
        self.sockets.iter().for_each(|(address, _)| sockets::remove_file(address));
        self.log(Level::Notice, format_args!("exit"));
        Some(ExitCode::SUCCESS)
    }

    fn child_ended(&mut self, pid: u32, status: Option<ExitStatus>, lived: Duration) {
        let signal = status.and_then(|s| s.signal());
        let code = status.and_then(|s| s.code()).unwrap_or_default();
        let level = if self.ending && signal.is_none() { Level::Notice } else { Level::Alert };
        match signal {
            Some(number) => {
                self.log(level, format_args!("worker process {pid} exited on signal {number}"));
            }
            None => self.log(level, format_args!("worker process {pid} exited with code {code}")),
        }
        if self.ending {
            return;
        }
        if lived >= Duration::from_millis(STABLE_MS) {
            self.pause_ms = RESTART_PAUSE_MS;
        }
        self.due = Some(Instant::now() + Duration::from_millis(self.pause_ms));
        self.pause_ms = (self.pause_ms * 2).min(RESTART_PAUSE_MS_MAX);
    }
}

async fn said(child: Option<&Serving>) -> io::Result<String> {
    match child {
        Some(child) if child.channel_open => match child.channel.receive().await {
            Ok((text, _)) => Ok(text),
            Err(e) => Err(e),
        },
        _ => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
