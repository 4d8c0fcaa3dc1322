//! `ngx.pipe`: other processes, their pipes and their end. The pipes are sockets as far as reading and writing go.
//!
//! A process that nothing holds any more is killed and reaped.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, c_int};
use std::future::poll_fn;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use std::time::Duration;

use smallvec::smallvec;
use terrace_event::Source;
use terrace_lua::{Operation, Value, Values, pending};
use tokio::sync::Notify;

use super::socket::{Failed, Ready, Stream, Want};
use crate::ffi::{AWAIT, BAD_CONTEXT, DONE, FAILED, NO_REQUEST, Text, bytes, fail, functions};
use crate::host::current;
use crate::phase::LuaPhase;

functions! {
    "struct terrace_process *(*process_spawn)(const char *, size_t, const char *, size_t, int, int *, terrace_text *)" => spawn,
    "void (*process_free)(struct terrace_process *)" => free,
    "int (*process_pid)(struct terrace_process *)" => pid,
    "void (*process_timeouts)(struct terrace_process *, double, double, double, double)" => timeouts,
    "int (*process_read)(struct terrace_process *, int, int, double, terrace_text *)" => read,
    "int (*process_write)(struct terrace_process *, const char *, size_t, terrace_text *)" => write,
    "int (*process_shutdown)(struct terrace_process *, int, terrace_text *)" => shutdown,
    "int (*process_wait)(struct terrace_process *, terrace_text *)" => wait,
    "int (*process_kill)(struct terrace_process *, int, terrace_text *)" => kill,
}

/// Where no timeout is set.
const TIMEOUT_MS_DEFAULT: u64 = 10_000;
/// A timeout of 0 means none: a year.
const TIMEOUT_MS_MAX: u64 = 366 * 86_400_000;
/// How often a process is asked whether it has ended, where the kernel does not tell.
const ASKED_EVERY: Duration = Duration::from_millis(50);

/// A pipe of a process.
struct Direction {
    stream: Option<Stream>,
    /// Ends who waits for it.
    aborted: Notify,
}

impl Direction {
    fn new(stream: Option<Stream>) -> Direction {
        Direction { stream, aborted: Notify::new() }
    }
}

/// A process.
struct Process {
    child: RefCell<Child>,
    ended: Cell<Option<ExitStatus>>,
    is_waited_for: Cell<bool>,
    /// The end was told once; it is not told again.
    is_over: Cell<bool>,
    wait_ms: Cell<u64>,
    /// Standard input, output and error by their numbers; the last is not there if it is merged.
    pipes: [Direction; 3],
}

impl Process {
    /// How it ended, if it has.
    fn status(&self) -> Option<ExitStatus> {
        if self.ended.get().is_none() {
            self.ended.set(self.child.borrow_mut().try_wait().ok().flatten());
        }
        self.ended.get()
    }

    fn pipe(&self, number: c_int) -> &Direction {
        &self.pipes[usize::try_from(number).unwrap_or(0).min(2)]
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.status().is_some() {
            return;
        }
        let child = self.child.get_mut();
        // It may end just now.
        let _ = child.kill();
        if matches!(child.try_wait(), Ok(None)) {
            let pid = libc::pid_t::try_from(child.id()).unwrap_or(0);
            // Reaped elsewhere, as it takes a moment. Where no thread can be had it stays a zombie.
            let _ = std::thread::Builder::new().name("reaper".into()).spawn(move || {
                // SAFETY: waits for a child of ours that nobody else waits for any more.
                unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
            });
        }
    }
}

/// Starts a process. `args` and `environ` are C strings one after the other; a null `environ` is the server's own.
extern "C" fn spawn(
    args: *const u8,
    args_len: usize,
    environ: *const u8,
    environ_len: usize,
    merge: c_int,
    code: *mut c_int,
    out: *mut Text,
) -> *const Process {
    // SAFETY: Lua strings; the second may be null.
    let (args, own) = unsafe { (bytes(args, args_len), bytes(environ, environ_len)) };
    let environ = (!environ.is_null()).then_some(own);
    let made = match current(|h| h.is_in(LuaPhase::Init as u32)) {
        None => Err(NO_REQUEST),
        Some(true) => Err(BAD_CONTEXT),
        // SAFETY: Lua passes a text of its own.
        Some(false) => start(args, environ, merge != 0).map_err(|e| unsafe { fail(out, &e.to_string()) }),
    };
    let (process, answer) = match made {
        Ok(process) => (Rc::into_raw(Rc::new(process)), DONE),
        Err(code) => (std::ptr::null(), code),
    };
    // SAFETY: Lua passes a pointer to an int of its own.
    unsafe { code.write(answer) };
    process
}

fn strings(packed: &[u8]) -> impl Iterator<Item = &OsStr> {
    packed.split_inclusive(|b| *b == 0).map(|s| OsStr::from_bytes(s.strip_suffix(b"\0").unwrap_or(s)))
}

fn start(args: &[u8], environ: Option<&[u8]>, merge: bool) -> io::Result<Process> {
    let mut args = strings(args);
    let mut command = Command::new(args.next().ok_or(io::ErrorKind::InvalidInput)?);
    command.args(args).stdin(Stdio::piped());
    if let Some(environ) = environ {
        command.env_clear();
        for entry in strings(environ) {
            let entry = entry.as_bytes();
            let at = entry.iter().skip(1).position(|b| *b == b'=').map_or(entry.len(), |i| i + 1);
            let value = entry.get(at + 1..).unwrap_or_default();
            command.env(OsStr::from_bytes(&entry[..at]), OsStr::from_bytes(value));
        }
    }
    let (mut child, stdout) = if merge {
        let (reader, writer) = io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let child = command.spawn()?;
        (child, Some(OwnedFd::from(reader)))
    } else {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().map(OwnedFd::from);
        (child, stdout)
    };
    // The command keeps ends of the merged pipe open.
    drop(command);
    let stdin = child.stdin.take().map(|s| Stream::of_pipe(s.into())).transpose()?;
    let stderr = child.stderr.take().map(|s| Stream::of_pipe(s.into())).transpose()?;
    let stdout = stdout.map(Stream::of_pipe).transpose()?;
    let process = Process {
        child: RefCell::new(child),
        ended: Cell::new(None),
        is_waited_for: Cell::new(false),
        is_over: Cell::new(false),
        wait_ms: Cell::new(TIMEOUT_MS_DEFAULT),
        pipes: [Direction::new(stdin), Direction::new(stdout), Direction::new(stderr)],
    };
    for direction in &process.pipes {
        if let Some(stream) = &direction.stream {
            stream.set_timeout_ms(TIMEOUT_MS_DEFAULT);
        }
    }
    Ok(process)
}

extern "C" fn free(process: *const Process) {
    if !process.is_null() {
        // SAFETY: a pointer that `spawn` gave; Lua's collector passes it here once.
        drop(unsafe { Rc::from_raw(process) });
    }
}

/// Calls `f` with the process behind a pointer of Lua's.
fn with(process: *const Process, f: impl FnOnce(&Rc<Process>) -> c_int) -> c_int {
    if process.is_null() {
        return FAILED;
    }
    // SAFETY: LuaJIT lets only pointers of this type through, all of which `spawn` made; the caller's table keeps it
    // alive during the call, and the count is raised before a second owner is made.
    let process = unsafe {
        Rc::increment_strong_count(process);
        Rc::from_raw(process)
    };
    f(&process)
}

extern "C" fn pid(process: *const Process) -> c_int {
    with(process, |p| c_int::try_from(p.child.borrow().id()).unwrap_or(0))
}

/// In ms; 0 is none, below 0 leaves a timeout as it is.
extern "C" fn timeouts(process: *const Process, write: f64, stdout: f64, stderr: f64, wait: f64) {
    let given = |ms: f64| match ms {
        ms if ms < 0.0 => None,
        ms => Some(ms as u64).map(|ms| if ms == 0 { TIMEOUT_MS_MAX } else { ms.min(TIMEOUT_MS_MAX) }),
    };
    with(process, |p| {
        for (direction, ms) in p.pipes.iter().zip([write, stdout, stderr]) {
            if let (Some(stream), Some(ms)) = (&direction.stream, given(ms)) {
                stream.set_timeout_ms(ms);
            }
        }
        if let Some(ms) = given(wait) {
            p.wait_ms.set(ms);
        }
        DONE
    });
}

/// A failure in this module's words.
fn refusal(failed: Failed, busy: &'static str) -> Cow<'static, str> {
    match failed {
        Failed::Closed => "closed".into(),
        Failed::Busy => busy.into(),
        Failed::NoRequest => "no request found".into(),
        Failed::Text(text) if text == "broken pipe" => "closed".into(),
        Failed::Text(text) => text.into(),
    }
}

/// Reads: 0 a line, 1 so many bytes, 2 at most so many, 3 all. `out` is two texts as of `tcp_receive`.
extern "C" fn read(process: *const Process, pipe: c_int, kind: c_int, size: f64, out: *mut Text) -> c_int {
    let want = match kind {
        0 => Want::Line,
        1 => Want::Bytes(size as usize),
        2 => Want::Any(size as usize),
        _ => Want::All,
    };
    with(process, |p| {
        let Some(stream) = &p.pipe(pipe).stream else {
            // SAFETY: Lua passes texts of its own.
            return unsafe { fail_whole(out, "merged to stdout") };
        };
        // SAFETY: Lua passes two texts of its own.
        match unsafe { stream.receive(want, out) } {
            Ok(Ready::Done(code)) => code,
            Ok(Ready::Waits(operation)) => hold(p, pipe, operation),
            // SAFETY: as above.
            Err(failed) => unsafe { fail_whole(out, &refusal(failed, "pipe busy reading")) },
        }
    })
}

/// Leaves an error's text, and nothing that was read before.
///
/// # Safety
/// `out` must point at two texts of the caller.
unsafe fn fail_whole(out: *mut Text, text: &str) -> c_int {
    // SAFETY: the caller's promise.
    unsafe {
        out.add(1).write(Text::of(b""));
        fail(out, text)
    }
}

/// Waits for the operation, or for the end of its pipe by `shutdown`.
fn hold(process: &Rc<Process>, pipe: c_int, operation: Operation) -> c_int {
    let process = Rc::clone(process);
    pending::set(Box::pin(async move {
        tokio::select! {
            biased;
            values = operation => values,
            () = process.pipe(pipe).aborted.notified() => failed("aborted"),
        }
    }));
    AWAIT
}

fn failed(text: &'static str) -> Values {
    smallvec![Value::Nil, Value::from(text)]
}

extern "C" fn write(process: *const Process, data: *const u8, len: usize, out: *mut Text) -> c_int {
    // SAFETY: a Lua string; what is kept of it is copied.
    let data = unsafe { bytes(data, len) };
    with(process, |p| {
        let Some(stream) = &p.pipe(0).stream else { return FAILED };
        match stream.send(data) {
            Ok(Ready::Done(sent)) => {
                // SAFETY: Lua passes a text of its own, whose length it takes for the count.
                unsafe { out.write(Text::of_len(sent)) };
                DONE
            }
            Ok(Ready::Waits(operation)) => hold(p, 0, operation),
            // SAFETY: as above.
            Err(failed) => unsafe { fail(out, &refusal(failed, "pipe busy writing")) },
        }
    })
}

extern "C" fn shutdown(process: *const Process, pipe: c_int, out: *mut Text) -> c_int {
    with(process, |p| {
        let direction = p.pipe(pipe);
        let Some(stream) = &direction.stream else {
            // SAFETY: Lua passes a text of its own.
            return unsafe { fail(out, "merged to stdout") };
        };
        if p.is_over.get() {
            // SAFETY: as above.
            return unsafe { fail(out, "closed") };
        }
        direction.aborted.notify_waiters();
        stream.close();
        DONE
    })
}

extern "C" fn kill(process: *const Process, signal: c_int, out: *mut Text) -> c_int {
    with(process, |p| {
        if p.status().is_some() {
            // SAFETY: Lua passes a text of its own.
            return unsafe { fail(out, "exited") };
        }
        let id = libc::pid_t::try_from(p.child.borrow().id()).unwrap_or(0);
        // SAFETY: a child that has not been reaped, so the number is its own.
        if unsafe { libc::kill(id, signal) } == 0 {
            return DONE;
        }
        let text = match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EINVAL) => Cow::Borrowed("invalid signal"),
            e => Cow::Owned(e.to_string()),
        };
        // SAFETY: Lua passes a text of its own.
        unsafe { fail(out, &text) }
    })
}

/// Waits for the end. The values are whether it was a good one, how it came, and the status or signal.
extern "C" fn wait(process: *const Process, out: *mut Text) -> c_int {
    with(process, |p| {
        // SAFETY: Lua passes a text of its own.
        let refused = |text: &str| unsafe { fail(out, text) };
        if p.is_waited_for.get() {
            return refused("pipe busy waiting");
        }
        if p.is_over.get() {
            return refused("exited");
        }
        let p = Rc::clone(p);
        pending::set(Box::pin(async move {
            let waiting = Waiting::new(&p);
            let limit = Duration::from_millis(p.wait_ms.get());
            let ended = terrace_event::timeout(limit, ended(&p)).await;
            drop(waiting);
            let Ok(status) = ended else { return failed("timeout") };
            p.is_over.set(true);
            let (reason, number) = match (status.code(), status.signal()) {
                (Some(code), _) => ("exit", code),
                (None, Some(signal)) => ("signal", signal),
                (None, None) => ("unknown", 0),
            };
            smallvec![Value::Bool(status.success()), Value::from(reason), Value::Number(f64::from(number))]
        }));
        AWAIT
    })
}

/// Marks a process that somebody waits for.
struct Waiting(Rc<Process>);

impl Waiting {
    fn new(process: &Rc<Process>) -> Waiting {
        process.is_waited_for.set(true);
        Waiting(Rc::clone(process))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.is_waited_for.set(false);
    }
}

async fn ended(process: &Process) -> ExitStatus {
    let descriptor = descriptor_of(process.child.borrow().id());
    loop {
        if let Some(status) = process.status() {
            return status;
        }
        match &descriptor {
            // Readable once the process has ended.
            Some(fd) => poll_fn(|cx| fd.poll_read_ready(cx)).await,
            None => terrace_event::sleep(ASKED_EVERY).await,
        }
    }
}

/// A descriptor that tells of a process's end.
fn descriptor_of(pid: u32) -> Option<Source<OwnedFd>> {
    // SAFETY: makes a descriptor of a child; nothing of ours is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = c_int::try_from(fd).ok().filter(|fd| *fd >= 0)?;
    // SAFETY: a descriptor that was made just now and that nothing else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    Source::new(fd).ok()
}
