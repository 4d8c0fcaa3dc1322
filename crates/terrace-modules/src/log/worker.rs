//! What a worker keeps for access logs: the buffers, and files whose path depends on the request.

use std::cell::{Cell, RefCell};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use terrace_base::log::{BufferedLog, Level, LogFile};
use terrace_base::{OsError, clock};
use terrace_http::{Request, Worker};
use tokio::sync::Notify;

use super::Scratch;
use super::conf::BufferedFiles;

/// How many files with computed paths a worker holds open (`open_log_file_cache` has no effect on it).
const PATHS_MAX: usize = 32;
/// A line buffer that grew beyond this is not kept.
const SCRATCH_KEPT_BYTES_MAX: usize = 16 * 1024;

/// The worker's logs.
pub(super) fn of(worker: &Rc<Worker>) -> Rc<WorkerLogs> {
    worker.state(|| WorkerLogs::new(worker))
}

pub(super) struct WorkerLogs {
    buffers: RefCell<Vec<Buffered>>,
    /// Files with computed paths, the one used last at the end.
    paths: RefCell<Vec<(Vec<u8>, LogFile)>>,
    scratch: Cell<Scratch>,
    /// Wakes the flushing task when an empty buffer gets its first line.
    filled: Notify,
}

struct Buffered {
    log: BufferedLog,
    flush_ms: Option<u64>,
    /// When the oldest line in the buffer was added, monotonic ms.
    since_ms: u64,
}

impl WorkerLogs {
    fn new(worker: &Worker) -> WorkerLogs {
        let files = worker.generation.shared::<BufferedFiles>().unwrap_or_default();
        let buffers = files.0.iter().map(|f| Buffered {
            log: BufferedLog::new(f.file.clone(), f.size_bytes),
            flush_ms: f.flush_ms,
            since_ms: 0,
        });
        WorkerLogs {
            buffers: RefCell::new(buffers.collect()),
            paths: RefCell::default(),
            scratch: Cell::default(),
            filled: Notify::new(),
        }
    }

    /// The buffers for a line. A log line whose making logs another finds fresh ones.
    pub(super) fn take_scratch(&self) -> Scratch {
        self.scratch.take()
    }

    pub(super) fn give_scratch(&self, scratch: Scratch) {
        if scratch.line.capacity().max(scratch.value.capacity()) <= SCRATCH_KEPT_BYTES_MAX {
            self.scratch.set(scratch);
        }
    }

    /// Adds a line to a buffer. Failed writes are counted with the file.
    pub(super) fn append(&self, number: usize, line: &[u8]) {
        if let Some(b) = self.buffers.borrow_mut().get_mut(number) {
            let _ = b.log.append(line);
            if b.log.buffered_bytes() == line.len() {
                b.since_ms = clock::monotonic_ms();
                self.filled.notify_one();
            }
        }
    }

    /// Adds a line to the file at `path`, which is created. As in nginx nothing is written unless the location's
    /// root exists, so that made-up names of hosts leave no files.
    pub(super) fn append_to_path(&self, r: &Request, path: &[u8], line: &[u8]) {
        let root = r.location().core.root_path(r);
        if !std::fs::metadata(OsStr::from_bytes(&root)).is_ok_and(|m| m.is_dir()) {
            return;
        }
        let mut paths = self.paths.borrow_mut();
        if let Some(at) = paths.iter().position(|(p, _)| p == path) {
            paths[at..].rotate_left(1);
        } else {
            let file = match LogFile::open(Path::new(OsStr::from_bytes(path))) {
                Ok(f) => f,
                Err(e) => {
                    let path = String::from_utf8_lossy(path);
                    let os = OsError(&e);
                    return r.log(
                        Level::Crit,
                        format_args!("open() \"{path}\" failed {os} while logging request"),
                    );
                }
            };
            if paths.len() == PATHS_MAX {
                paths.remove(0);
            }
            paths.push((path.to_vec(), file));
        }
        if let Some((_, file)) = paths.last() {
            // Failed writes are counted with the file.
            let _ = file.append(line);
        }
    }

    /// Whether any buffer is to be flushed by time.
    pub(super) fn wants_flushes(&self) -> bool {
        self.buffers.borrow().iter().any(|b| b.flush_ms.is_some())
    }

    /// Writes out all buffers.
    pub(super) fn flush(&self) {
        self.buffers.borrow_mut().iter_mut().for_each(|b| _ = b.log.flush());
    }

    /// Writes out what has waited long enough. The time until there may be more to do, ms; `None` when all is empty.
    fn flush_due(&self) -> Option<u64> {
        let now_ms = clock::monotonic_ms();
        let mut next: Option<u64> = None;
        for b in self.buffers.borrow_mut().iter_mut() {
            let Some(due_ms) = b.flush_ms.map(|age_ms| b.since_ms + age_ms) else { continue };
            if due_ms <= now_ms {
                let _ = b.log.flush();
            } else if b.log.buffered_bytes() > 0 {
                next = Some(next.map_or(due_ms - now_ms, |n| n.min(due_ms - now_ms)));
            }
        }
        next
    }
}

/// The task that flushes by time. It sleeps while all buffers are empty, and ends with its worker.
pub(super) async fn flush_when_due(logs: Rc<WorkerLogs>) {
    loop {
        logs.filled.notified().await;
        while let Some(wait_ms) = logs.flush_due() {
            terrace_event::sleep(Duration::from_millis(wait_ms)).await;
            clock::update();
        }
    }
}
