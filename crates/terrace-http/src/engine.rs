//! Runs a request through its phases.

use std::rc::Rc;

use terrace_base::log::Level;
use terrace_http1::Framing;

use crate::location_tree::Found;
use crate::phase::{Outcome, Phase, Step};
use crate::request::{Entry, REDIRECTS_MAX};
use crate::{Request, special, status, tls};

/// A step's answer. Unlike [`Step::get`] it makes no future where the answer is there.
macro_rules! answer {
    ($step:expr) => {
        match $step {
            Step::Ready(answer) => answer,
            Step::Wait(wait) => wait.await,
        }
    };
}

/// What running the phases came to.
enum End {
    /// The response is made.
    Done,
    /// Make the response of this status.
    Status(u16),
}

/// Serves a request from its first phase to its log line.
pub async fn serve(r: &Rc<Request>) {
    run_from(r, tls::refusal(r)).await;
    if !r.location().handlers(Phase::Log).is_empty() {
        end(r).await;
    }
}

/// Serves a request or subrequest up to the last byte of its response.
pub async fn run(r: &Rc<Request>) {
    run_from(r, None).await;
}

/// As [`run`]; a `refused` request ends with that status.
async fn run_from(r: &Rc<Request>, mut refused: Option<u16>) {
    loop {
        let ended = match refused.take() {
            Some(status) => End::Status(status),
            None => phases(r).await,
        };
        match r.take_replacement().map_or(ended, End::Status) {
            End::Done => break,
            End::Status(s) => {
                if matches!(s, status::CLOSE | status::CLIENT_CLOSED | status::REQUEST_TIMEOUT) {
                    r.headers_out.status.set(s);
                    r.keep_alive.set(false);
                    return;
                }
                if s >= 300 && r.bare_errors.get() && !r.output.is_started() {
                    r.headers_out.status.set(s);
                    return;
                }
                if !special::respond(r, s).await {
                    break;
                }
            }
        }
    }
    if r.output.is_started()
        && let Step::Wait(f) = r.finish()
    {
        f.await;
    }
}

/// The log phase.
pub async fn end(r: &Rc<Request>) {
    let mut i = 0;
    while let Some(h) = r.location().handlers(Phase::Log).get(i) {
        if let Step::Wait(f) = h.handler.handle(r) {
            f.await;
        }
        i += 1;
    }
}

/// Runs the phases from the request's entry on, following redirects within the server.
async fn phases(r: &Rc<Request>) -> End {
    loop {
        if r.redirects.get() > REDIRECTS_MAX {
            let uri = String::from_utf8_lossy(&r.uri()).into_owned();
            r.log(
                Level::Error,
                format_args!(
                    "rewrite or internal redirection cycle while internally redirecting to \"{uri}\""
                ),
            );
            return End::Status(status::INTERNAL);
        }
        match pass(r).await {
            Outcome::Redirected => {}
            Outcome::Status(s) => return End::Status(s),
            Outcome::Done | Outcome::Satisfied | Outcome::Declined => return End::Done,
        }
    }
}

/// One pass from the entry to the response or the next redirect.
async fn pass(r: &Rc<Request>) -> Outcome {
    if let Some(o) = locate(r).await {
        return o;
    }
    for phase in [Phase::Preaccess, Phase::Access, Phase::Precontent] {
        if r.location().handlers(phase).is_empty() {
            continue;
        }
        let outcome = if phase == Phase::Access { access(r).await } else { run_phase(r, phase).await };
        if outcome != Outcome::Declined {
            return outcome;
        }
    }
    content(r).await
}

/// Server rewrite, find location, rewrite, and again while `rewrite` changes the URI. `None` goes on.
async fn locate(r: &Rc<Request>) -> Option<Outcome> {
    let entry = r.entry();
    r.set_entry(Entry::Server);
    if let Entry::Location(l) = entry {
        r.set_location(l);
        match answer!(run_rewrites(r, 0)) {
            Outcome::Declined if r.uri_changed.get() => {}
            Outcome::Declined => return None,
            other => return Some(other),
        }
    } else if !r.location().handlers(Phase::ServerRewrite).is_empty() {
        let outcome = run_phase(r, Phase::ServerRewrite).await;
        if outcome != Outcome::Declined {
            r.limit_keep_alive();
            return Some(outcome);
        }
    }
    relocate(r).await
}

async fn relocate(r: &Rc<Request>) -> Option<Outcome> {
    loop {
        r.uri_changed.set(false);
        if let Some(o) = find_location(r) {
            return Some(o);
        }
        if r.location().handlers(Phase::Rewrite).is_empty() {
            return None;
        }
        match answer!(run_rewrites(r, 0)) {
            Outcome::Declined if r.uri_changed.get() => {}
            Outcome::Declined => return None,
            other => return Some(other),
        }
        r.redirects.set(r.redirects.get() + 1);
        if r.redirects.get() > REDIRECTS_MAX {
            let uri = String::from_utf8_lossy(&r.uri()).into_owned();
            r.log(
                Level::Error,
                format_args!("rewrite or internal redirection cycle while processing \"{uri}\""),
            );
            return Some(Outcome::Status(status::INTERNAL));
        }
    }
}

/// Puts the request into the location of its URI.
fn find_location(r: &Rc<Request>) -> Option<Outcome> {
    let found = {
        let uri = r.uri();
        r.server().locations.find(&uri, r.captures())
    };
    let location = match found {
        Found::Location(l) => r.set_location(l),
        Found::Nothing => r.set_location(r.server().root),
        Found::AutoRedirect(l) => {
            r.set_location(l);
            special::set_location_with_slash(r);
            return Some(Outcome::Status(301));
        }
    };
    if let Some(names) = &location.core.captures {
        let uri = r.uri().to_vec();
        let _ = r.match_regex(&names.regex, &names.names, &uri);
    }
    if location.core.internal && !r.internal.get() && !r.is_subrequest() {
        return Some(Outcome::Status(404));
    }
    check_body_length(r)
}

/// What nginx checks once a location is found.
fn check_body_length(r: &Request) -> Option<Outcome> {
    let Framing::Length(n) = r.body.framing() else { return None };
    let core = &r.location().core;
    // The page that tells an error is not refused for the body of the request that failed.
    if core.client_max_body_bytes == 0
        || n <= core.client_max_body_bytes
        || r.is_subrequest()
        || r.error_page.get()
    {
        return None;
    }
    r.log(Level::Error, format_args!("client intended to send too large body: {n} bytes"));
    r.keep_alive.set(false);
    Some(Outcome::Status(413))
}

async fn run_phase(r: &Rc<Request>, phase: Phase) -> Outcome {
    let mut i = 0;
    while let Some(h) = r.location().handlers(phase).get(i) {
        match answer!(h.handler.handle(r)) {
            Outcome::Declined | Outcome::Satisfied => {}
            other => return other,
        }
        i += 1;
    }
    Outcome::Declined
}

/// The rewrite phase, from the module at position `next` on. An `if` changes the location in the middle of it: later
/// modules' handlers are then those of the new location.
fn run_rewrites(r: &Rc<Request>, mut next: u16) -> Step {
    while let Some(h) = r.location().handlers(Phase::Rewrite).iter().find(|h| h.order >= next) {
        next = h.order + 1;
        match h.handler.handle(r) {
            Step::Ready(outcome) => {
                if let Some(end) = end_of_rewrites(r, outcome) {
                    return Step::Ready(end);
                }
            }
            Step::Wait(wait) => {
                let r = Rc::clone(r);
                return Step::wait(async move {
                    match end_of_rewrites(&r, wait.await) {
                        Some(end) => end,
                        None => answer!(run_rewrites(&r, next)),
                    }
                });
            }
        }
    }
    Step::Ready(Outcome::Declined)
}

/// What the phase comes to after a handler's `outcome`, if it ends there.
fn end_of_rewrites(r: &Request, outcome: Outcome) -> Option<Outcome> {
    match outcome {
        Outcome::Declined | Outcome::Satisfied => r.uri_changed.get().then_some(Outcome::Declined),
        other => Some(other),
    }
}

/// The access phase with `satisfy all` (every handler must let the client in) or `any` (one is enough).
async fn access(r: &Rc<Request>) -> Outcome {
    if r.is_subrequest() {
        return Outcome::Declined;
    }
    let any = r.location().core.satisfy_any;
    let mut refused = None;
    let mut i = 0;
    while let Some(h) = r.location().handlers(Phase::Access).get(i) {
        match answer!(h.handler.handle(r)) {
            Outcome::Satisfied if any => return Outcome::Declined,
            Outcome::Status(s @ (401 | 403)) if any => {
                refused = Some(refused.filter(|s| *s == 401).unwrap_or(s))
            }
            Outcome::Declined | Outcome::Satisfied => {}
            other => return other,
        }
        i += 1;
    }
    match refused {
        Some(s) => {
            if s == 403 {
                r.log(Level::Error, format_args!("access forbidden by rule"));
            }
            Outcome::Status(s)
        }
        None => Outcome::Declined,
    }
}

async fn content(r: &Rc<Request>) -> Outcome {
    let location = r.location();
    if let Some(h) = &location.content {
        return match answer!(h.handle(r)) {
            Outcome::Declined => Outcome::Done,
            other => other,
        };
    }
    let outcome = run_phase(r, Phase::Content).await;
    if outcome != Outcome::Declined {
        return outcome;
    }
    if r.uri().ends_with(b"/") {
        let file = r.filename(&r.uri());
        let file = String::from_utf8_lossy(&file);
        r.log(Level::Error, format_args!("directory index of \"{file}\" is forbidden"));
        return Outcome::Status(403);
    }
    r.log(Level::Error, format_args!("no handler found"));
    Outcome::Status(404)
}
