//! Runs the code of `*_by_lua` directives in their phases and turns its end into an outcome.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_http::{
    BodyFilter, Chunk, Handler, HeaderFilter, LocalFuture, Outcome, Request, Step, Worker, status,
};
use terrace_lua::{ErrorKind, Finish, LuaError, Value};

use crate::chunks::{Code, Source};
use crate::host::{Args, BodyArg, Ended, Leave, PhaseHost, execute, log_error};
use crate::phase::LuaPhase;
use crate::settings::ResponseStart;
use crate::vm::{ChunkError, LuaVm};
use crate::yielding::abort::OnAbort;

/// `ngx.OK`
const OK: i32 = 0;
/// `ngx.ERROR`
const ERROR: i32 = -1;
/// `ngx.DECLINED`
const DECLINED: i32 = -5;

/// Runs a directive's code. The error is a status: it could not be started, which is logged.
pub fn run(r: &Rc<Request>, code: &Code, phase: LuaPhase, args: Args) -> Step<Result<Ended, u16>> {
    match prepare(r, code, phase) {
        Ok((chunk, lua)) => {
            let host = PhaseHost::new(Rc::clone(r), phase, lua, ResponseStart::at(r), args);
            execute(&chunk, &[], host).map(Ok)
        }
        Err(status) => Step::Ready(Err(status)),
    }
}

/// The code and the VM that it belongs to.
#[inline]
fn prepare(r: &Rc<Request>, code: &Code, phase: LuaPhase) -> Result<(terrace_lua::Chunk, Rc<LuaVm>), u16> {
    let lua = LuaVm::of(r).map_err(|e| log_vm_error(r, &e))?;
    let chunk = lua.chunk(code, r).map_err(|e| log_chunk_error(r, code, phase, &e))?;
    Ok((chunk, lua))
}

#[cold]
fn log_vm_error(r: &Request, error: &LuaError) -> u16 {
    log_error(r, "failed to make a Lua VM", error);
    status::INTERNAL
}

/// Logs why there is no code to run. The answer is the status that the phase ends with.
#[cold]
fn log_chunk_error(r: &Request, code: &Code, phase: LuaPhase, error: &ChunkError) -> u16 {
    let name = |path: &terrace_http::Value| String::from_utf8_lossy(&path.eval_bytes(r)).into_owned();
    match (error, &code.source) {
        (ChunkError::Missing(e), Source::File(path)) => {
            let (os, name) = (terrace_base::OsError(e), name(path));
            r.log(
                Level::Error,
                format_args!("failed to load external Lua file \"{name}\": cannot open {name} {os}"),
            );
            match e.kind() {
                _ if phase == LuaPhase::Set => status::INTERNAL,
                std::io::ErrorKind::NotFound => 404,
                _ => 503,
            }
        }
        (ChunkError::Lua(e), Source::File(path)) => {
            let name = name(path);
            r.log(Level::Error, format_args!("failed to load external Lua file \"{name}\": {}", e.message));
            status::INTERNAL
        }
        (ChunkError::Lua(e), Source::Inline(_)) => {
            r.log(Level::Error, format_args!("failed to load inlined Lua code: {}", e.message));
            status::INTERNAL
        }
        (ChunkError::Missing(_), Source::Inline(_)) => status::INTERNAL,
    }
}

/// What the end of the code means for a phase that answers with an outcome.
fn outcome(r: &Rc<Request>, ended: &Ended, phase: LuaPhase) -> Outcome {
    let code = match &ended.finish {
        Finish::Returned => return returned(r, phase),
        Finish::Error(e) => {
            log_error(r, "lua entry thread aborted", e);
            return Outcome::Status(status::INTERNAL);
        }
        Finish::Exit(code) => *code,
    };
    match ended.host.leave.take() {
        Leave::Exec(target) => return exec(r, target.0, target.1),
        Leave::Jump => return Outcome::Declined,
        Leave::No => {}
    }
    let responding = phase == LuaPhase::Content;
    match code {
        // Once a response has begun, no later phase may make another.
        OK if responding || r.output.is_started() => returned(r, phase),
        OK => Outcome::Satisfied,
        DECLINED if !responding => Outcome::Declined,
        204 if !r.output.is_started() => Outcome::Status(204),
        200..=299 => {
            if r.headers_out.status.get() == 0 {
                r.headers_out.status.set(code as u16);
            }
            returned(r, LuaPhase::Content)
        }
        300..=999 => Outcome::Status(code as u16),
        _ => {
            // `ngx.ERROR` and anything unknown end the connection.
            r.keep_alive.set(false);
            Outcome::Status(if r.is_subrequest() { status::INTERNAL } else { status::CLOSE })
        }
    }
}

/// The code ran to its end. Content without output is an empty 200; other phases go on unless a response began.
fn returned(r: &Rc<Request>, phase: LuaPhase) -> Outcome {
    if phase == LuaPhase::Content || r.output.is_started() {
        return Outcome::Done;
    }
    // Access code that lets a request pass has granted it.
    if phase == LuaPhase::Access { Outcome::Satisfied } else { Outcome::Declined }
}

fn exec(r: &Rc<Request>, uri: Bytes, args: Bytes) -> Outcome {
    if uri.first() != Some(&b'@') {
        r.redirect_to_uri(uri, args);
        return Outcome::Redirected;
    }
    if r.redirect_to_named(&uri) {
        return Outcome::Redirected;
    }
    r.log(Level::Error, format_args!("could not find named location \"{}\"", String::from_utf8_lossy(&uri)));
    Outcome::Status(status::INTERNAL)
}

/// A `*_by_lua` directive in a phase that answers with an outcome.
pub struct PhaseCode {
    /// The code.
    pub code: Arc<Code>,
    /// The phase.
    pub phase: LuaPhase,
    /// `lua_need_request_body`
    pub need_body: bool,
    /// How a response begins that the code makes.
    pub start: ResponseStart,
    /// `lua_check_client_abort`
    pub check_abort: bool,
}

impl Handler for PhaseCode {
    fn handle(&self, r: &Rc<Request>) -> Step {
        if self.need_body
            && let Step::Wait(body) = r.read_body()
        {
            return self.after_body(r, body);
        }
        respond(r, &self.code, self.phase, self.start, self.check_abort)
    }
}

impl PhaseCode {
    fn after_body(&self, r: &Rc<Request>, body: LocalFuture<Result<(), u16>>) -> Step {
        let (r, code) = (Rc::clone(r), Arc::clone(&self.code));
        let (phase, start, check_abort) = (self.phase, self.start, self.check_abort);
        Step::wait(async move {
            match body.await {
                Ok(()) => respond(&r, &code, phase, start, check_abort).get().await,
                Err(status) => Outcome::Status(status),
            }
        })
    }
}

fn respond(r: &Rc<Request>, code: &Code, phase: LuaPhase, start: ResponseStart, check_abort: bool) -> Step {
    let (chunk, lua) = match prepare(r, code, phase) {
        Ok(prepared) => prepared,
        Err(status) => return Step::Ready(Outcome::Status(status)),
    };
    match execute(&chunk, &[], PhaseHost::new(Rc::clone(r), phase, lua, start, Args::None)) {
        Step::Ready(ended) => concluded(r, &ended, phase, start),
        Step::Wait(ended) => {
            let r = Rc::clone(r);
            Step::wait(async move {
                let ended =
                    if check_abort { unless_client_leaves(&r, ended).await } else { Some(ended.await) };
                let Some(ended) = ended else { return Outcome::Status(status::CLIENT_CLOSED) };
                let step = concluded(&r, &ended, phase, start);
                drop(ended);
                step.get().await
            })
        }
    }
}

/// Waits for the code's end; `None` when the client leaves first and the code has no `ngx.on_abort` for that.
async fn unless_client_leaves(r: &Rc<Request>, mut ended: LocalFuture<Ended>) -> Option<Ended> {
    let client = r.client.as_ref().filter(|_| !r.is_subrequest());
    poll_fn(|cx| {
        if let Poll::Ready(ended) = ended.as_mut().poll(cx) {
            return Poll::Ready(Some(ended));
        }
        if let Some(client) = client
            && r.state::<OnAbort>().is_none()
            && client.poll_left(cx).is_ready()
        {
            r.log(Level::Info, format_args!("client prematurely closed connection"));
            return Poll::Ready(None);
        }
        Poll::Pending
    })
    .await
}

/// A script that is done and made no output has made an empty response.
#[inline]
fn concluded(r: &Rc<Request>, ended: &Ended, phase: LuaPhase, start: ResponseStart) -> Step {
    match outcome(r, ended, phase) {
        Outcome::Done if !r.output.is_started() => {
            start.apply(r);
            r.finish().map(|_| Outcome::Done)
        }
        outcome => Step::Ready(outcome),
    }
}

/// `log_by_lua*`
pub struct LogCode(pub Arc<Code>);

impl Handler for LogCode {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let request = Rc::clone(r);
        run(r, &self.0, LuaPhase::Log, Args::None).map(move |ended| {
            log_failure(&request, "failed to run log_by_lua*", &ended);
            Outcome::Declined
        })
    }
}

fn log_failure(r: &Request, what: &str, ended: &Result<Ended, u16>) {
    if let Ok(Ended { finish: Finish::Error(e), .. }) = ended {
        log_run_error(r, what, e);
    }
}

/// As OpenResty's messages of the phases that are no coroutines: the text alone.
pub fn log_run_error(r: &Request, what: &str, error: &LuaError) {
    r.log(Level::Error, format_args!("{what}: {}\n{}", error.message, error.traceback));
}

/// `header_filter_by_lua*`
pub struct HeaderCode(pub Arc<Code>);

impl HeaderFilter for HeaderCode {
    fn filter(&self, r: &Rc<Request>) -> Step<()> {
        let request = Rc::clone(r);
        run(r, &self.0, LuaPhase::HeaderFilter, Args::None).map(move |ended| {
            log_failure(&request, "failed to run header_filter_by_lua*", &ended);
            let status = match &ended {
                // The header may be half changed: better an error than a wrong page.
                Err(_) | Ok(Ended { finish: Finish::Error(_), .. }) => status::INTERNAL,
                Ok(Ended { finish: Finish::Exit(ERROR), .. }) => return request.abort(),
                Ok(Ended { finish: Finish::Exit(code), .. }) => u16::try_from(*code).unwrap_or(0),
                Ok(_) => 0,
            };
            if status >= 200 {
                request.replace_response(status);
            }
        })
    }
}

/// `body_filter_by_lua*`
pub struct BodyCode(pub Arc<Code>);

impl BodyFilter for BodyCode {
    fn filter(&self, r: &Rc<Request>, chunk: Chunk) -> Step<Chunk> {
        let lua = match LuaVm::of(r) {
            Ok(lua) => lua,
            Err(_) => return Step::Ready(chunk),
        };
        let compiled = match lua.chunk(&self.0, r) {
            Ok(c) => c,
            Err(e) => {
                log_chunk_error(r, &self.0, LuaPhase::BodyFilter, &e);
                return Step::Ready(cut(r));
            }
        };
        let Chunk { data, last, flush } = chunk;
        let args = Args::Body(Box::new(RefCell::new(BodyArg { data, last })));
        let host = PhaseHost::new(Rc::clone(r), LuaPhase::BodyFilter, lua, ResponseStart::at(r), args);
        let request = Rc::clone(r);
        execute(&compiled, &[], host).map(move |ended| {
            if let Finish::Error(e) = &ended.finish {
                log_run_error(&request, "failed to run body_filter_by_lua*", e);
                return cut(&request);
            }
            if matches!(ended.returned.first(), Some(Value::Number(code)) if *code == f64::from(ERROR)) {
                return cut(&request);
            }
            let BodyArg { data, last } = ended.host.take_body();
            Chunk { data, last, flush }
        })
    }
}

/// Nothing more of a body whose filter failed: the client must see that it is not whole.
fn cut(r: &Request) -> Chunk {
    r.abort();
    Chunk { data: Bytes::new(), last: true, flush: true }
}

/// `set_by_lua*`: the code's first result becomes the variable's value.
pub struct SetCode {
    /// The code.
    pub code: Arc<Code>,
    /// The variable.
    pub variable: terrace_http::vars::VarIndex,
    /// `ngx.arg[1]` …
    pub args: Vec<terrace_http::Value>,
}

impl Handler for SetCode {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let args = self.args.iter().map(|a| a.eval_bytes(r)).collect();
        let variable = self.variable;
        let request = Rc::clone(r);
        run(r, &self.code, LuaPhase::Set, Args::Set(args)).map(move |ended| {
            let ended = match ended {
                Ok(e) => e,
                Err(status) => return Outcome::Status(status),
            };
            match &ended.finish {
                Finish::Returned => {}
                Finish::Exit(_) => return Outcome::Declined,
                Finish::Error(e) => {
                    log_run_error(&request, "failed to run set_by_lua*", e);
                    return Outcome::Status(status::INTERNAL);
                }
            }
            let text = match ended.returned.first() {
                Some(Value::String(s)) => Some(s.clone()),
                Some(Value::Number(n)) => Some(Bytes::from(crate::ffi::number_text(*n))),
                _ => Some(Bytes::new()),
            };
            request.generation().vars.set(&request, variable, text);
            Outcome::Declined
        })
    }
}

/// `init_by_lua*`, in a VM that is being made.
pub fn init(worker: &Rc<Worker>, lua: &Rc<LuaVm>, code: &Code) -> Result<(), LuaError> {
    let r = Request::detached(worker, terrace_http::generation::ServerIndex(0));
    let chunk = lua.chunk(code, &r).map_err(|e| match e {
        ChunkError::Lua(e) => e,
        ChunkError::Missing(e) => runtime_error(format!("cannot open the file of init_by_lua: {e}")),
    })?;
    let start = ResponseStart::at(&r);
    let host = PhaseHost::new(r, LuaPhase::Init, Rc::clone(lua), start, Args::None);
    match execute(&chunk, &[], host) {
        Step::Ready(Ended { finish: Finish::Error(e), .. }) => Err(*e),
        Step::Ready(_) => Ok(()),
        Step::Wait(_) => Err(runtime_error("init_by_lua may not wait")),
    }
}

/// Code of a worker's start or end.
pub async fn worker_code(worker: Rc<Worker>, code: Code, phase: LuaPhase) -> Result<(), String> {
    let r = Request::detached(&worker, terrace_http::generation::ServerIndex(0));
    match run(&r, &code, phase, Args::None).get().await {
        Ok(Ended { finish: Finish::Error(e), .. }) => {
            let name =
                if phase == LuaPhase::InitWorker { "init_worker_by_lua" } else { "exit_worker_by_lua" };
            log_error(&r, &format!("{name} error"), &e);
            Ok(())
        }
        _ => Ok(()),
    }
}

fn runtime_error(message: impl Into<String>) -> LuaError {
    LuaError { kind: ErrorKind::Runtime, message: message.into(), traceback: String::new() }
}
