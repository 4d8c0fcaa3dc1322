//! nginx's error log: levels, sinks and the line format.
//!
//! A line is `2026/11/21 07:38:00 [error] 123#456: *7 message`: local time, level, process, thread and, when the
//! line belongs to one, the connection's number. Each line is one append to each sink that wants its level, so
//! lines of several threads never mix. Logging never fails towards its caller; lost writes are counted.

mod buffered;
mod file;
mod syslog;

use std::cell::Cell;
use std::fmt::{self, Write as _};
use std::sync::Arc;

pub use buffered::BufferedLog;
pub use file::{LOG_FILES_MAX, LogFile, ReopenError, lost_writes, reopen_all};
pub use syslog::Syslog;

use crate::clock;

/// Longest message of a line in bytes; what is beyond is cut. nginx cuts the whole line at 2048, which loses the
/// end of most Lua tracebacks.
pub const MESSAGE_BYTES_MAX: usize = 8192;

/// Room for what stands before the message.
const PREFIX_BYTES: usize = 96;

/// How grave a line is. The order is nginx's: the gravest is the smallest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Written whatever the sink's level.
    Stderr = 0,
    /// The process cannot go on.
    Emerg,
    /// Something must be done at once.
    Alert,
    /// A part has failed.
    Crit,
    /// A request has failed.
    Error,
    /// Something is odd.
    Warn,
    /// Worth knowing: start, reload, stop.
    Notice,
    /// Details of normal work.
    Info,
    /// For finding faults.
    Debug,
}

impl Level {
    /// All levels, gravest first; the index is the level's number in `ngx.STDERR` to `ngx.DEBUG`.
    pub const ALL: [Level; 9] = [
        Level::Stderr,
        Level::Emerg,
        Level::Alert,
        Level::Crit,
        Level::Error,
        Level::Warn,
        Level::Notice,
        Level::Info,
        Level::Debug,
    ];

    /// The level's name in configuration and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Level::Stderr => "stderr",
            Level::Emerg => "emerg",
            Level::Alert => "alert",
            Level::Crit => "crit",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Notice => "notice",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// The level a configuration names: `emerg` to `debug`. `stderr` is no level one can ask for.
    #[must_use]
    pub fn parse(name: &[u8]) -> Option<Level> {
        Level::ALL.into_iter().skip(1).find(|level| level.name().as_bytes() == name)
    }

    /// The level with the number `number`, as Lua counts them: 0 is `Stderr`, 8 is `Debug`.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Level> {
        Level::ALL.get(usize::from(number)).copied()
    }
}

/// One destination of an error log.
#[derive(Debug, Clone)]
pub struct Sink {
    /// Where the lines go.
    pub file: LogFile,
    /// The least grave level that is written.
    pub level: Level,
}

/// The error log of a configuration context: all the sinks its `error_log` directives name.
///
/// Cloning is one reference count. The default has no sink and drops everything.
#[derive(Debug, Clone)]
pub struct ErrorLog {
    sinks: Arc<[Sink]>,
    /// The least grave level that any sink wants; `Stderr` when there is none.
    level: Level,
}

impl ErrorLog {
    /// A log that writes to each of `sinks` what its level admits.
    #[must_use]
    pub fn new(sinks: Vec<Sink>) -> ErrorLog {
        let level = sinks.iter().map(|sink| sink.level).max().unwrap_or(Level::Stderr);
        ErrorLog { sinks: sinks.into(), level }
    }

    /// A log to standard error, as it is used before the configuration is read.
    #[must_use]
    pub fn stderr(level: Level) -> ErrorLog {
        ErrorLog::new(vec![Sink { file: LogFile::stderr(), level }])
    }

    /// Whether any sink wants `level`. Ask before a message is built.
    #[inline]
    #[must_use]
    pub fn enabled(&self, level: Level) -> bool {
        level <= self.level
    }

    /// The least grave level that is written to any sink.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level
    }

    /// The sinks, in the order they were given.
    #[must_use]
    pub fn sinks(&self) -> &[Sink] {
        &self.sinks
    }

    /// Writes one line with a message of any bytes, cut at [`MESSAGE_BYTES_MAX`].
    pub fn write(&self, level: Level, connection: Option<u64>, message: &[u8]) {
        if !self.enabled(level) {
            return;
        }
        let message = &message[..message.len().min(MESSAGE_BYTES_MAX)];
        let mut line = start_line(level, connection, message.len());
        line.extend_from_slice(message);
        self.append(level, line);
    }

    /// Writes one line with a formatted message, cut at [`MESSAGE_BYTES_MAX`]:
    /// `log.print(Level::Warn, None, format_args!("{count} left"))`.
    pub fn print(&self, level: Level, connection: Option<u64>, message: fmt::Arguments<'_>) {
        if !self.enabled(level) {
            return;
        }
        let line = start_line(level, connection, 128);
        let mut bounded = Bounded { room: MESSAGE_BYTES_MAX, line };
        // The only error is "full", and a cut message is what is wanted then.
        let _ = bounded.write_fmt(message);
        self.append(level, bounded.line);
    }

    fn append(&self, level: Level, mut line: Vec<u8>) {
        line.push(b'\n');
        for sink in self.sinks.iter().filter(|sink| level <= sink.level) {
            // A failure is counted where it happens; there is no better place to report it.
            let _ = sink.file.append_at(Some(level), &line);
        }
    }
}

impl Default for ErrorLog {
    fn default() -> Self {
        ErrorLog::new(Vec::new())
    }
}

/// Everything of a line that stands before the message.
fn start_line(level: Level, connection: Option<u64>, message_len: usize) -> Vec<u8> {
    let mut line = Vec::with_capacity(PREFIX_BYTES + message_len);
    line.extend_from_slice(&current_log_time());
    let (process, thread) = process_and_thread();
    let mut bounded = Bounded { room: PREFIX_BYTES, line };
    // As nginx, which has no word for lines that are written in any case.
    let name = if level == Level::Stderr { "" } else { level.name() };
    let _ = match connection {
        Some(number) => write!(bounded, " [{name}] {process}#{thread}: *{number} "),
        None => write!(bounded, " [{name}] {process}#{thread}: "),
    };
    bounded.line
}

/// The log's own date: it reads the clock, since a thread without an event loop has a stale cached time.
fn current_log_time() -> clock::LogTime {
    thread_local! {
        static RENDERED: Cell<(u64, clock::LogTime)> = const { Cell::new((u64::MAX, [0; 19])) };
    }
    let second = clock::unix_ms() / 1000;
    let (rendered_second, text) = RENDERED.get();
    if rendered_second == second {
        return text;
    }
    let text = clock::format_log_time(second);
    RENDERED.set((second, text));
    text
}

/// Process and thread number. The thread's is cached until the process changes, that is until a fork.
fn process_and_thread() -> (u32, i32) {
    thread_local! {
        static THREAD: Cell<(u32, i32)> = const { Cell::new((0, 0)) };
    }
    let process = std::process::id();
    let (cached_process, thread) = THREAD.get();
    if cached_process == process {
        return (process, thread);
    }
    let thread = nix::unistd::gettid().as_raw();
    THREAD.set((process, thread));
    (process, thread)
}

/// Formats into a line and stops at a bound.
struct Bounded {
    line: Vec<u8>,
    room: usize,
}

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let taken = text.len().min(self.room);
        self.line.extend_from_slice(&text.as_bytes()[..taken]);
        self.room -= taken;
        if taken == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}

#[cfg(test)]
mod tests;
