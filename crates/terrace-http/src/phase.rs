//! The phases of a request, and what handlers and filters are.
//!
//! A handler that need not wait answers with [`Step::Ready`] and costs no allocation; one that waits boxes a
//! future. The order of [`Phase`]'s variants is the order in which a request passes them.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;

use crate::Request;

/// A future that stays on its worker.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// The phases that modules add handlers to (nginx's `ngx_http_phases`, less the bookkeeping ones).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Runs with the server's settings, before a location is looked for.
    ServerRewrite,
    /// Runs with the location's settings; may change the URI and so the location.
    Rewrite,
    /// Limits.
    Preaccess,
    /// May the client have this?
    Access,
    /// `try_files`.
    Precontent,
    /// Makes the response. Used only where the location has no content handler of its own.
    Content,
    /// After the response.
    Log,
}

/// The number of phases.
pub const PHASES: usize = 7;

/// What a handler decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not mine: the next handler of the phase.
    Declined,
    /// This phase is satisfied: the next phase. In `Access`, the client is let in.
    Satisfied,
    /// The response is made (or under way to the client): finish.
    Done,
    /// End the request with this status and its error page. 444 closes the connection without a response.
    Status(u16),
    /// The URI or location was changed by one of the `redirect_*` methods of [`Request`]: start again there.
    Redirected,
}

/// An answer now or later.
pub enum Step<T = Outcome> {
    /// Decided without waiting.
    Ready(T),
    /// Must be awaited.
    Wait(LocalFuture<T>),
}

impl<T: 'static> Step<T> {
    /// Boxes a future.
    pub fn wait(f: impl Future<Output = T> + 'static) -> Step<T> {
        Step::Wait(Box::pin(f))
    }

    /// Waits if need be.
    pub async fn get(self) -> T {
        match self {
            Step::Ready(v) => v,
            Step::Wait(f) => f.await,
        }
    }

    /// Applies `f` to the answer, at once where it is there.
    pub fn map<U: 'static>(self, f: impl FnOnce(T) -> U + 'static) -> Step<U> {
        match self {
            Step::Ready(v) => Step::Ready(f(v)),
            Step::Wait(w) => Step::wait(async move { f(w.await) }),
        }
    }
}

impl From<Outcome> for Step {
    fn from(o: Outcome) -> Self {
        Step::Ready(o)
    }
}

/// Takes part in a phase of a location.
pub trait Handler: Send + Sync {
    /// Handles the request in the phase the handler was added to.
    fn handle(&self, r: &Rc<Request>) -> Step;
}

/// Changes the response's header before it is sent.
pub trait HeaderFilter: Send + Sync {
    /// Called once a response, in the order in which filters were added.
    fn filter(&self, r: &Rc<Request>) -> Step<()>;

    /// Whether [`HeaderFilter::filter`] may answer [`Step::Wait`]. Where no filter of a location may, bodies can be
    /// written without futures (see [`Request::can_write_now`]).
    fn may_wait(&self) -> bool {
        true
    }
}

/// A piece of a response's body on its way through the body filters.
#[derive(Debug, Clone, Default)]
pub struct Chunk {
    /// The bytes; may be empty.
    pub data: Bytes,
    /// Nothing follows.
    pub last: bool,
    /// Should reach the client now.
    pub flush: bool,
}

/// Changes the response's body as it passes.
pub trait BodyFilter: Send + Sync {
    /// Called for each piece; may hold bytes back until a later one (at the latest the one marked `last`).
    fn filter(&self, r: &Rc<Request>, chunk: Chunk) -> Step<Chunk>;

    /// Whether the filter has anything to do for this response, whose header is ready. One that has not may be
    /// left out.
    fn applies(&self, _r: &Request) -> bool {
        true
    }

    /// Whether it changes the response as a whole, and so also what subrequests gave (a compression).
    fn is_for_whole_response(&self) -> bool {
        false
    }
}

impl<F: Fn(&Rc<Request>) -> Step + Send + Sync> Handler for F {
    fn handle(&self, r: &Rc<Request>) -> Step {
        self(r)
    }
}
