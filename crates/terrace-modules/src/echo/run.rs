//! Runs the commands of a location, one by one. Does not wait unless a command or the client makes it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_http::subrequest::parse_uri;
use terrace_http::{Chunk, Handler, LocalFuture, Outcome, Request, Step, Value};

use super::subrequests::{self, Queue};
use super::variables::{now_ms, state};
use super::{Command, Spec, body};

/// How much `echo_duplicate` makes at once.
const PIECE_BYTES: usize = 32 * 1024;
/// The longest sleep, in seconds: a year.
const SECONDS_MAX: f64 = 366.0 * 86400.0;

pub(super) struct EchoHandler {
    pub(super) commands: Arc<Vec<Command>>,
    pub(super) status: u16,
}

impl Handler for EchoHandler {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let mut run = Run {
            r: Rc::clone(r),
            commands: Arc::clone(&self.commands),
            status: self.status,
            next: 0,
            parts: None,
            queue: Queue::default(),
        };
        match run.go_on() {
            Next::End(outcome) => Step::Ready(outcome),
            wait => Step::wait(run.wait(wait)),
        }
    }
}

/// What follows a command.
enum Next {
    /// The next command.
    Command,
    End(Outcome),
    /// This, then the next command.
    Sent(LocalFuture<bool>),
    Sleep(Duration),
    ReadBody,
    SendBody,
    /// The subrequest of the command at this index.
    Subrequest(usize),
    /// A text, so many times.
    Repeat(Bytes, u64),
    /// The end of the commands: everything is sent.
    Drain,
}

/// The loop that a run is in.
struct Parts {
    left: VecDeque<Bytes>,
    /// The index of its first command.
    start: usize,
}

struct Run {
    r: Rc<Request>,
    commands: Arc<Vec<Command>>,
    status: u16,
    next: usize,
    parts: Option<Parts>,
    queue: Queue,
}

impl Run {
    /// Runs up to the end or what must be waited for.
    fn go_on(&mut self) -> Next {
        let commands = Arc::clone(&self.commands);
        while let Some(command) = commands.get(self.next) {
            self.next += 1;
            match self.command(command) {
                Next::Command => {}
                other => return other,
            }
        }
        if !self.queue.is_empty() {
            return Next::Drain;
        }
        self.begin();
        match self.r.send(Chunk { last: true, ..Chunk::default() }) {
            Step::Ready(_) => Next::End(Outcome::Done),
            Step::Wait(sending) => Next::Sent(sending),
        }
    }

    async fn wait(mut self, mut next: Next) -> Outcome {
        loop {
            if let Some(end) = self.carry_out(next).await {
                return end;
            }
            if self.r.output.is_finished() || self.r.output.is_aborted() {
                return Outcome::Done;
            }
            self.queue.send_ready(&self.r).await;
            next = self.go_on();
        }
    }

    /// Does what must be waited for. The answer ends the run.
    async fn carry_out(&mut self, what: Next) -> Option<Outcome> {
        match what {
            Next::Command => {}
            Next::End(outcome) => return Some(outcome),
            Next::Sent(sending) => {
                self.queue.beside(sending).await;
            }
            Next::Sleep(duration) => self.queue.beside(terrace_event::sleep(duration)).await,
            Next::ReadBody => return self.read_body().await,
            Next::SendBody => return self.send_body().await,
            Next::Subrequest(at) => return self.subrequest(at).await,
            Next::Repeat(text, count) => self.repeat(&text, count).await,
            Next::Drain => self.queue.drain(&self.r).await,
        }
        None
    }

    fn command(&mut self, command: &Command) -> Next {
        match command {
            Command::Echo(line) => {
                let mut text = Vec::with_capacity(64);
                line.append(&self.r, &mut text);
                self.send(Chunk { data: text.into(), ..Chunk::default() })
            }
            Command::Duplicate(count, text) => self.duplicate(count, text),
            Command::Flush => self.send(Chunk { flush: true, ..Chunk::default() }),
            Command::Sleep(secs) => match self.duration(secs) {
                Ok(duration) => Next::Sleep(duration),
                Err(status) => self.fail(status),
            },
            Command::BlockingSleep(secs) => match self.duration(secs) {
                Ok(duration) => {
                    std::thread::sleep(duration);
                    Next::Command
                }
                Err(status) => self.fail(status),
            },
            Command::ResetTimer => {
                state(&self.r).timer_ms.set(Some(now_ms()));
                Next::Command
            }
            Command::ReadBody => Next::ReadBody,
            Command::RequestBody if self.r.body.is_empty() => Next::Command,
            Command::RequestBody => Next::SendBody,
            Command::Subrequest(_) => Next::Subrequest(self.next - 1),
            Command::ForEach(delimiter, text) => self.for_each(delimiter, text),
            Command::End => self.end_part(),
            Command::Exec(uri, query) => self.exec(uri, query.as_ref()),
        }
    }

    /// Sets up the header, where it is not out yet.
    fn begin(&self) {
        if self.r.output.is_started() {
            return;
        }
        let h = &self.r.headers_out;
        h.status.set(self.status);
        self.r.set_default_type();
        h.content_length.set(None);
        h.allow_ranges.set(false);
        self.r.output.hold_back.set(false);
    }

    fn send(&mut self, chunk: Chunk) -> Next {
        if !self.queue.is_empty() {
            self.queue.push_output(chunk);
            return Next::Command;
        }
        self.begin();
        match self.r.send(chunk) {
            Step::Ready(_) => Next::Command,
            Step::Wait(sending) => Next::Sent(sending),
        }
    }

    fn error(&self, status: u16, message: &str) -> Next {
        self.r.log(Level::Error, format_args!("{message}"));
        self.fail(status)
    }

    fn fail(&self, status: u16) -> Next {
        Next::End(Outcome::Status(status))
    }

    fn duration(&self, secs: &Value) -> Result<Duration, u16> {
        let text = secs.eval_bytes(&self.r);
        let text = String::from_utf8_lossy(&text);
        let is_plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match text.parse() {
            Ok(secs) if is_plain && secs <= SECONDS_MAX => Ok(Duration::from_secs_f64(secs)),
            _ => {
                self.r.log(Level::Error, format_args!("invalid sleep duration \"{text}\""));
                Err(400)
            }
        }
    }

    fn duplicate(&mut self, count: &Value, text: &Value) -> Next {
        let count = count.eval_bytes(&self.r);
        let digits: Vec<u8> = count.iter().copied().filter(|b| *b != b'_').collect();
        let number = std::str::from_utf8(&digits).ok().filter(|d| !d.starts_with('+'));
        let Some(number) = number.and_then(|d| d.parse().ok()) else {
            let count = String::from_utf8_lossy(&count);
            return self.error(500, &format!("invalid size specified: \"{count}\""));
        };
        let text = text.eval_bytes(&self.r);
        match usize::try_from(number).ok().and_then(|n| text.len().checked_mul(n)) {
            Some(len) if len <= PIECE_BYTES => {
                let data = text.repeat(number as usize).into();
                self.send(Chunk { data, ..Chunk::default() })
            }
            _ => Next::Repeat(text, number),
        }
    }

    async fn repeat(&mut self, text: &Bytes, mut count: u64) {
        let at_once = (PIECE_BYTES / text.len().max(1)).max(1);
        let data = Bytes::from(text.repeat(at_once));
        while count > 0 {
            let times = usize::try_from(count).unwrap_or(at_once).min(at_once);
            count -= times as u64;
            let chunk = Chunk { data: data.slice(..times * text.len()), ..Chunk::default() };
            if let Next::Sent(sending) = self.send(chunk)
                && !self.queue.beside(sending).await
            {
                return;
            }
        }
    }

    async fn read_body(&mut self) -> Option<Outcome> {
        let reading = self.r.read_body();
        self.queue.beside(reading.get()).await.err().map(Outcome::Status)
    }

    async fn send_body(&mut self) -> Option<Outcome> {
        // The body's place is behind what waits.
        self.queue.drain(&self.r).await;
        self.begin();
        let sent = body::send_body(&self.r).await;
        sent.err().map(|e| {
            self.r.log(Level::Error, format_args!("reading the request body's file failed: {e}"));
            Outcome::Status(500)
        })
    }

    async fn subrequest(&mut self, at: usize) -> Option<Outcome> {
        let commands = Arc::clone(&self.commands);
        let Some(Command::Subrequest(spec)) = commands.get(at) else { return None };
        let spec: &Spec = spec;
        if let Some(end) = self.read_body().await {
            return Some(end);
        }
        let sub = match subrequests::make(&self.r, spec) {
            Ok(sub) => sub,
            Err(status) => return Some(Outcome::Status(status)),
        };
        self.begin();
        let header = self.r.send_header();
        self.queue.beside(header.get()).await;
        if self.r.header_only.get() {
            return None;
        }
        self.queue.push_subrequest(sub);
        if spec.waits {
            self.queue.last_ended().await;
        }
        None
    }

    fn for_each(&mut self, delimiter: &Value, text: &Value) -> Next {
        if self.parts.is_some() {
            return self.error(500, "Nested echo_foreach not supported yet.");
        }
        let (delimiter, text) = (delimiter.eval_bytes(&self.r), text.eval_bytes(&self.r));
        let mut left: VecDeque<Bytes> = split(&text, &delimiter).filter(|part| !part.is_empty()).collect();
        let Some(first) = left.pop_front() else {
            let is_end = |command: &Command| matches!(command, Command::End);
            let rest = self.commands.get(self.next..).unwrap_or_default();
            self.next = rest.iter().position(is_end).map_or(self.commands.len(), |at| self.next + at + 1);
            return Next::Command;
        };
        state(&self.r).it.replace(Some(first));
        self.parts = Some(Parts { left, start: self.next });
        Next::Command
    }

    fn end_part(&mut self) -> Next {
        let Some(parts) = &mut self.parts else {
            let message = "Found a echo_end that has no corresponding echo_foreach before it.";
            return self.error(500, message);
        };
        let part = parts.left.pop_front();
        if part.is_some() {
            self.next = parts.start;
        } else {
            self.parts = None;
        }
        state(&self.r).it.replace(part);
        Next::Command
    }

    fn exec(&self, uri: &Value, query: Option<&Value>) -> Next {
        let r = &self.r;
        let uri = uri.eval_bytes(r);
        let query = query.map(|q| q.eval_bytes(r));
        let shown = String::from_utf8_lossy(&uri);
        if uri.is_empty() {
            return self.fail(400);
        }
        let Some((path, own_query)) = parse_uri(&uri) else {
            return self.error(500, &format!("the URI \"{shown}\" of echo_exec is unsafe"));
        };
        let query = query.unwrap_or_else(|| Bytes::copy_from_slice(own_query));
        if path.first() == Some(&b'@') {
            if !query.is_empty() {
                let query = String::from_utf8_lossy(&query);
                let text = format_args!("querystring {query} ignored when exec'ing named location {shown}");
                r.log(Level::Warn, text);
            }
            if !r.redirect_to_named(&path) {
                return self.error(500, &format!("could not find named location \"{shown}\""));
            }
        } else {
            r.redirect_to_uri(path, query);
        }
        Next::End(Outcome::Redirected)
    }
}

/// The parts of a text between the delimiters.
fn split<'a>(text: &'a Bytes, delimiter: &'a [u8]) -> impl Iterator<Item = Bytes> + 'a {
    let mut rest = Some(0);
    std::iter::from_fn(move || {
        let start = rest?;
        let found = if delimiter.is_empty() { None } else { memchr::memmem::find(&text[start..], delimiter) };
        let end = found.map_or(text.len(), |at| start + at);
        rest = found.map(|_| end + delimiter.len());
        Some(text.slice(start..end))
    })
}
