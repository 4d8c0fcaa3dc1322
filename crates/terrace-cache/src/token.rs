//! The two ends of a load: the token of whoever loads, and the futures of those who wait.
//!
//! Invariant: a token ends its flight exactly once. Dropped without a result, it hands the load to a waiter (a
//! caller's loader) or fails it (the source), so that nobody waits for a load that no one is doing.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::cache::Inner;
use crate::engine::{Ticket, Waiting};
use crate::entry::Answer;
use crate::error::{CacheError, LoadError};
use crate::l2::LockGuard;
use crate::source::{Loaded, Params};

/// Who is loading, which decides what becomes of a dropped token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loader {
    /// A caller; another caller may take over.
    Caller,
    /// The source; another attempt would end in the same way.
    Source,
}

/// The right to load one key: nobody else loads it while the token lives and its load timeout has not passed.
///
/// Ends with [`LoadToken::complete`] or [`LoadToken::fail`]. Dropped without either, a waiter becomes the loader.
pub struct LoadToken {
    cache: Arc<Inner>,
    ticket: Ticket,
    loader: Loader,
    /// The fleet lock, held for as long as the load takes.
    guard: Option<LockGuard>,
    ended: bool,
}

impl LoadToken {
    pub(crate) fn new(cache: Arc<Inner>, ticket: Ticket, loader: Loader, guard: Option<LockGuard>) -> Self {
        Self { cache, ticket, loader, guard, ended: false }
    }

    /// The key to load.
    pub fn key(&self) -> &[u8] {
        &self.ticket.key
    }

    /// The parameters of the lookup that began the load.
    pub fn params(&self) -> &Params {
        &self.ticket.params
    }

    /// Stores what was loaded, wakes those who wait, and returns the loader's own answer. With an L2 the value is kept in
    /// L1 when L2 has taken it, a little later.
    ///
    /// When the key was invalidated meanwhile, or the load timeout has passed, nothing is stored; the answer is
    /// the same but for a `ttl_ms` of 0.
    pub fn complete(mut self, loaded: Loaded) -> Answer {
        self.ended = true;
        self.cache.loaded(&self.ticket, loaded)
    }

    /// Ends the load without a value. Returns what stands in for it inside the stale window, else the error.
    pub fn fail(mut self, error: LoadError) -> Result<Answer, CacheError> {
        self.ended = true;
        self.cache.failed(&self.ticket, error)
    }

    /// Ends the load because its time is up.
    pub(crate) fn expire(mut self) {
        self.ended = true;
        self.cache.expired(&self.ticket);
    }

    /// Takes the ticket and the lock out of a token whose drop shall do nothing.
    pub(crate) fn defuse(mut self) -> (Ticket, Option<LockGuard>) {
        self.ended = true;
        (self.ticket.clone(), self.guard.take())
    }
}

impl Drop for LoadToken {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        match self.loader {
            Loader::Caller => self.cache.abandoned(&self.ticket),
            // Nobody holds the token any more who could use the outcome.
            Loader::Source => drop(self.cache.failed(&self.ticket, LoadError::Abandoned)),
        }
    }
}

impl std::fmt::Debug for LoadToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoadToken").field("ticket", &self.ticket).finish_non_exhaustive()
    }
}

/// How a wait that began with [`crate::Cache::begin`] ended.
#[derive(Debug)]
pub enum Woken {
    /// The load gave an answer, or a stale value stands in.
    Answer(Answer),
    /// The loader went away, or the key was invalidated during its load: this waiter loads now.
    Load(LoadToken),
    /// The load failed.
    Failed(CacheError),
}

/// The sending half of a wait.
pub(crate) struct Waiter(pub(crate) oneshot::Sender<Woken>);

impl Waiting for Waiter {
    fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

impl std::fmt::Debug for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waiter")
    }
}

/// The wait of a lookup for a load. Runs on any runtime; dropping it does not stop the load.
#[derive(Debug)]
#[must_use = "the answer comes only to those who await it"]
pub struct Wait(pub(crate) oneshot::Receiver<Woken>);

impl Future for Wait {
    type Output = Result<Answer, CacheError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|woken| match woken {
            Ok(Woken::Answer(answer)) => Ok(answer),
            Ok(Woken::Failed(error)) => Err(error),
            // A lookup without a loader is never handed a load.
            Ok(Woken::Load(_)) | Err(_) => Err(LoadError::Abandoned.into()),
        })
    }
}

/// The wait of a caller who brought a loader, and so may be asked to use it. It may be over from the beginning.
#[derive(Debug)]
#[must_use = "the answer comes only to those who await it"]
pub struct BeginWait(pub(crate) oneshot::Receiver<Woken>);

impl BeginWait {
    /// A wait that is over: the caller loads.
    pub(crate) fn ready(token: LoadToken) -> Self {
        let (sender, receiver) = oneshot::channel();
        // The receiver is at hand.
        drop(sender.send(Woken::Load(token)));
        Self(receiver)
    }

    /// How the wait ended, if it is over already; the wait itself if it is not.
    ///
    /// # Errors
    ///
    /// The wait goes on.
    pub fn try_now(mut self) -> Result<Woken, Self> {
        match self.0.try_recv() {
            Ok(woken) => Ok(woken),
            Err(oneshot::error::TryRecvError::Closed) => Ok(Woken::Failed(LoadError::Abandoned.into())),
            Err(oneshot::error::TryRecvError::Empty) => Err(self),
        }
    }
}

impl Future for BeginWait {
    type Output = Woken;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|woken| woken.unwrap_or_else(|_| Woken::Failed(LoadError::Abandoned.into())))
    }
}
