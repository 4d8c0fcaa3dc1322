//! Log files: shared by path, reopened together after rotation, and appended to without a shared lock.
//!
//! One path is opened once per process. Each thread keeps its own reference to the open file and compares one
//! global number, the reopen epoch, before a write; only after [`reopen_all`] has raised it does the thread take
//! the file's lock to fetch the new one. Files are in append mode, so a line that goes out in one `write` is whole.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use nix::errno::Errno;
use parking_lot::Mutex;

use super::{Level, Syslog};

/// How many distinct log files may be open at a time in one process.
pub const LOG_FILES_MAX: usize = 4096;

/// Raised by each reopen; a thread's files are valid only for the epoch in which it fetched them.
static EPOCH: AtomicU64 = AtomicU64::new(0);
/// All open files; the index is the file's slot. Slots of dropped files are used again.
static OPEN_FILES: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
/// Tells a slot's present file from its predecessors in the threads' caches.
static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);
static LOST_WRITES: AtomicU64 = AtomicU64::new(0);

/// A place that log lines are appended to. Cheap to clone; clones and equal paths share one open file.
#[derive(Debug, Clone)]
pub struct LogFile(Target);

/// A log file that could not be opened again. The old one stays in use.
#[derive(Debug)]
pub struct ReopenError {
    /// The file's path.
    pub path: PathBuf,
    /// Why it could not be opened.
    pub error: io::Error,
}

#[derive(Debug, Clone)]
enum Target {
    Stderr,
    File(Arc<Shared>),
    Syslog(Arc<Syslog>),
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    slot: usize,
    serial: u64,
    current: Mutex<Arc<File>>,
}

impl LogFile {
    /// Standard error, whatever it is connected to at the time of each write. Not reopened.
    #[must_use]
    pub fn stderr() -> LogFile {
        LogFile(Target::Stderr)
    }

    /// A syslog server. There is nothing to reopen.
    #[must_use]
    pub fn syslog(server: Arc<Syslog>) -> LogFile {
        LogFile(Target::Syslog(server))
    }

    /// Opens `path` for appending, creating it with mode 0644, or joins the handle that is open for the same path.
    ///
    /// # Errors
    /// When the file cannot be opened, or when [`LOG_FILES_MAX`] files are open.
    pub fn open(path: &Path) -> io::Result<LogFile> {
        let mut files = OPEN_FILES.lock();
        let shared = files.iter().filter_map(Weak::upgrade).find(|shared| shared.path == path);
        if let Some(shared) = shared {
            return Ok(LogFile(Target::File(shared)));
        }
        let slot = files.iter().position(|file| file.strong_count() == 0).unwrap_or(files.len());
        if slot == LOG_FILES_MAX {
            return Err(io::Error::from(Errno::EMFILE));
        }
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            slot,
            serial: NEXT_SERIAL.fetch_add(1, Ordering::Relaxed),
            current: Mutex::new(Arc::new(open_append(path)?)),
        });
        let weak = Arc::downgrade(&shared);
        match files.get_mut(slot) {
            Some(vacant) => *vacant = weak,
            None => files.push(weak),
        }
        Ok(LogFile(Target::File(shared)))
    }

    /// The path this was opened with, `None` for what is no file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Target::Stderr | Target::Syslog(_) => None,
            Target::File(shared) => Some(&shared.path),
        }
    }

    /// Appends `bytes` with one `write`. What the kernel does not take of it (a full disk, say) is lost.
    ///
    /// # Errors
    /// The write's error; it has also been counted in [`lost_writes`], as has a short write, which is no error.
    pub fn append(&self, bytes: &[u8]) -> io::Result<()> {
        self.append_at(None, bytes)
    }

    /// As [`LogFile::append`], for a line of an error log, whose level a syslog server is told.
    pub(super) fn append_at(&self, level: Option<Level>, bytes: &[u8]) -> io::Result<()> {
        let written = match &self.0 {
            Target::Syslog(server) => {
                return server.send(level, bytes).inspect_err(|_| {
                    LOST_WRITES.fetch_add(1, Ordering::Relaxed);
                });
            }
            Target::Stderr => write_once(|| nix::unistd::write(io::stderr(), bytes)),
            Target::File(shared) => {
                shared.with_current(|file| write_once(|| nix::unistd::write(file, bytes)))
            }
        };
        if written != Ok(bytes.len()) {
            LOST_WRITES.fetch_add(1, Ordering::Relaxed);
        }
        written.map(|_| ()).map_err(io::Error::from)
    }
}

/// Opens every log file anew by its path, as after a rotation, and returns the ones that failed.
///
/// Lines are written to the new file from each thread's next write on.
pub fn reopen_all() -> Vec<ReopenError> {
    let files: Vec<Arc<Shared>> = OPEN_FILES.lock().iter().filter_map(Weak::upgrade).collect();
    let mut failed = Vec::new();
    for shared in files {
        match open_append(&shared.path) {
            Ok(file) => *shared.current.lock() = Arc::new(file),
            Err(error) => failed.push(ReopenError { path: shared.path.clone(), error }),
        }
    }
    // After the files are in place: a thread that sees the new epoch finds the new files.
    EPOCH.fetch_add(1, Ordering::Release);
    failed
}

/// How many log writes failed or were cut short by the kernel since the process began.
#[must_use]
pub fn lost_writes() -> u64 {
    LOST_WRITES.load(Ordering::Relaxed)
}

/// One thread's references to open files, by slot, with the serial of the file they belong to.
struct Cached {
    epoch: u64,
    files: Vec<Option<(u64, Arc<File>)>>,
}

thread_local! {
    static CACHED: RefCell<Cached> = const { RefCell::new(Cached { epoch: 0, files: Vec::new() }) };
}

impl Shared {
    /// Calls `write` with the file of the present epoch, from the thread's cache as long as it has one.
    fn with_current<R>(&self, write: impl Fn(&File) -> R) -> R {
        let written = CACHED.try_with(|cached| Some(write(cached.try_borrow_mut().ok()?.file(self))));
        // A thread that is ending has lost its cache.
        written.ok().flatten().unwrap_or_else(|| write(&self.current.lock().clone()))
    }
}

impl Cached {
    fn file(&mut self, shared: &Shared) -> &File {
        let epoch = EPOCH.load(Ordering::Acquire);
        if self.epoch != epoch {
            // All of them, so that no file is held open by a thread that does not write to it any more.
            self.files.clear();
            self.epoch = epoch;
        }
        if self.files.len() <= shared.slot {
            self.files.resize(shared.slot + 1, None);
        }
        let entry = &mut self.files[shared.slot];
        if entry.as_ref().is_some_and(|(serial, _)| *serial != shared.serial) {
            *entry = None;
        }
        &entry.get_or_insert_with(|| (shared.serial, shared.current.lock().clone())).1
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o644).open(path)
}

/// One system call, repeated only when a signal came first.
fn write_once(mut write: impl FnMut() -> nix::Result<usize>) -> nix::Result<usize> {
    loop {
        match write() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}
