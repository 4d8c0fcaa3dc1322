//! `log_format` and `access_log`: a line for each request.
//!
//! A line is made in a buffer that its worker keeps, so that logging allocates nothing. Where a log has a buffer,
//! each worker has its own; a task writes it out when its oldest line has waited long enough.

mod conf;
mod escape;
mod format;
#[cfg(test)]
mod tests;
mod worker;

use std::rc::Rc;
use std::sync::Arc;

use terrace_base::log::LogFile;
use terrace_conf::{ConfError, Directive};
use terrace_http::phase::LocalFuture;
use terrace_http::{Builder, Handler, LocationBuilder, Module, Outcome, Phase, Request, Step, Value, Worker};

use format::Format;
use worker::WorkerLogs;

/// The module.
pub struct AccessLog;

impl Module for AccessLog {
    fn directives(&self) -> &'static [Directive<Builder>] {
        conf::DIRECTIVES
    }

    fn location(&self, b: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        let logs = conf::resolve(b, location)?;
        if !logs.is_empty() {
            location.add(Phase::Log, Write { logs });
        }
        Ok(())
    }

    fn finish(&self, b: &mut Builder) -> Result<(), ConfError> {
        conf::share_buffers(b);
        Ok(())
    }

    fn worker_start(&self, w: &Rc<Worker>) -> Option<LocalFuture<Result<(), String>>> {
        let logs = worker::of(w);
        logs.wants_flushes().then(|| -> LocalFuture<_> {
            Box::pin(async move {
                terrace_event::spawn(worker::flush_when_due(logs));
                Ok(())
            })
        })
    }

    fn worker_end(&self, w: &Rc<Worker>) -> Option<LocalFuture<()>> {
        worker::of(w).flush();
        None
    }
}

/// One access log of a location.
struct Log {
    format: Arc<Format>,
    to: Destination,
    /// `if=`: the line is left out when this is empty or `0`.
    condition: Option<Value>,
}

enum Destination {
    /// Each line is one write.
    File(LogFile),
    /// The buffer of this number.
    Buffered(usize),
    /// Which file depends on the request.
    Computed(Value),
}

struct Write {
    logs: Vec<Log>,
}

impl Handler for Write {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let worker = worker::of(&r.worker);
        let mut scratch = worker.take_scratch();
        for log in &self.logs {
            if log.is_wanted(r, &mut scratch.line) {
                log.write(r, &worker, &mut scratch);
            }
        }
        worker.give_scratch(scratch);
        Outcome::Declined.into()
    }
}

/// Buffers for the line being made.
#[derive(Default)]
struct Scratch {
    line: Vec<u8>,
    value: Vec<u8>,
}

impl Log {
    fn is_wanted(&self, r: &Request, scratch: &mut Vec<u8>) -> bool {
        let Some(condition) = &self.condition else { return true };
        scratch.clear();
        condition.eval(r, scratch);
        !matches!(&scratch[..], b"" | b"0")
    }

    fn write(&self, r: &Request, worker: &WorkerLogs, scratch: &mut Scratch) {
        let Scratch { line, value } = scratch;
        line.clear();
        self.format.render(r, line, value);
        line.push(b'\n');
        match &self.to {
            // A write that fails is counted with the file; the request is over and nobody could be told.
            Destination::File(file) => _ = file.append(line),
            Destination::Buffered(number) => worker.append(*number, line),
            Destination::Computed(path) => {
                value.clear();
                path.eval(r, value);
                worker.append_to_path(r, value, line);
            }
        }
    }
}
