//! A process that was started for a test or for the stack, and what one does to it: pause, kill, start again.
//!
//! All children are started by one thread that lives as long as this process: the system sends the signal "your parent
//! died" when the *thread* that started a child ends, and a test's thread ends long before a shared service may.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::Home;
use crate::{PATIENCE, wait_for};

/// How long a process may take to follow a request to end, before it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// How much of a log a failure shows, in lines.
const LOG_LINES_SHOWN: usize = 40;

/// A process in a home. Dropping it kills it, unless it was let go with [`Process::release`].
pub struct Process {
    name: String,
    home: Home,
    argv: Vec<String>,
    ready: Box<dyn Fn() -> bool + Send + Sync>,
    child: Mutex<Option<Child>>,
    released: bool,
}

impl Process {
    /// Starts `argv` in its home and waits until `ready`, a question in the service's own protocol, says yes. What it
    /// prints goes to the file `log`. Panics with the log's end if it does not come up.
    pub fn start<A: Into<String>>(
        name: &str,
        home: Home,
        argv: impl IntoIterator<Item = A>,
        ready: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Process {
        let argv = argv.into_iter().map(Into::into).collect();
        let ready = Box::new(ready);
        let process =
            Process { name: name.to_string(), home, argv, ready, child: Mutex::new(None), released: false };
        process.launch();
        process.wait_until_ready();
        process
    }

    /// Starts it, if it does not run, without waiting.
    pub fn launch(&self) {
        let mut child = self.child();
        if !child.as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(None))) {
            let started = self.command().and_then(spawn);
            *child = Some(started.unwrap_or_else(|e| {
                panic!("{} ({}): {e}; `scripts/needs test` installs it", self.name, self.argv[0])
            }));
        }
    }

    /// Waits until it answers.
    pub fn wait_until_ready(&self) {
        let end = Instant::now() + PATIENCE;
        while !(self.ready)() {
            assert!(self.is_running(), "{} ended instead of starting:\n{}", self.name, self.log_end());
            assert!(Instant::now() < end, "{} does not answer:\n{}", self.name, self.log_end());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder and ports.
    pub fn home(&self) -> &Home {
        &self.home
    }

    /// The process number; `None` if it was killed.
    pub fn pid(&self) -> Option<Pid> {
        self.child().as_ref().map(|c| Pid::from_raw(c.id() as i32))
    }

    /// Whether it runs. A paused process does.
    pub fn is_running(&self) -> bool {
        self.child().as_mut().is_some_and(|c| matches!(c.try_wait(), Ok(None)))
    }

    /// Sends a signal, if it runs.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may have ended by itself.
            let _ = kill(pid, signal);
        }
    }

    /// Stops it where it is: connections stay open and nothing answers. It stands still when this returns.
    pub fn pause(&self) {
        let Some(pid) = self.pid() else { return };
        self.signal(Signal::SIGSTOP);
        wait_for("the process stands still", || {
            let seen = waitid(Id::Pid(pid), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG);
            (matches!(seen, Ok(WaitStatus::Stopped(..))) || !self.is_running()).then_some(())
        });
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Kills it; it is gone when this returns. Folder and ports stay.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Asks it to end and waits for that; kills it if it does not.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
        self.resume();
        let end = Instant::now() + END_TIMEOUT;
        while self.is_running() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
    }

    /// Kills it if it runs, starts it anew on its ports and waits until it answers.
    pub fn restart(&self) {
        self.kill();
        self.launch();
        self.wait_until_ready();
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.home.path().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Lets it live on when this is dropped.
    pub fn release(&mut self) {
        self.released = true;
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_end(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    fn command(&self) -> io::Result<Command> {
        let log: File = OpenOptions::new().create(true).append(true).open(self.home.path().join("log"))?;
        let mut command = if self.home.is_lasting() {
            // A session of its own, so that it outlives the terminal.
            Command::new("setsid")
        } else {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL"]).process_group(0);
            command
        };
        command.args(&self.argv).current_dir(self.home.path());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(command)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.released {
            self.kill();
        }
    }
}

type Order = (Command, SyncSender<io::Result<Child>>);

fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Order>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, started) = sync_channel(1);
    spawner.send((command, answer)).map_err(io::Error::other)?;
    started.recv().map_err(io::Error::other)?
}
