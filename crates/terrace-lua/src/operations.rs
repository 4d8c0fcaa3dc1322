//! The operations that a run's threads wait for. A run with one waiting thread, the common case, polls that
//! future itself; only further ones go to a set with wakers of their own.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::stream::{FuturesUnordered, StreamExt};

use crate::pending::Operation;
use crate::value::Values;

/// Futures tagged with the index of the thread that waits.
#[derive(Default)]
pub(crate) struct Operations {
    single: Option<(usize, Operation)>,
    /// Boxed: most runs never have two.
    many: Option<Box<FuturesUnordered<Tagged>>>,
    many_live: usize,
}

impl Operations {
    /// Adds the operation of a thread that has none.
    pub(crate) fn add(&mut self, thread: usize, operation: Operation) {
        if self.single.is_none() {
            self.single = Some((thread, operation));
            return;
        }
        self.many_live += 1;
        let many = self.many.get_or_insert_with(Box::default);
        many.push(Tagged { thread, operation: Some(operation) });
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.single.is_none() && self.many_live == 0
    }

    /// Drops the operation of a thread, if it has one.
    pub(crate) fn cancel(&mut self, thread: usize) {
        if self.single.as_ref().is_some_and(|(owner, _)| *owner == thread) {
            self.single = None;
            return;
        }
        let Some(many) = &mut self.many else { return };
        let found = many.iter_mut().find(|tagged| tagged.thread == thread && tagged.operation.is_some());
        if let Some(tagged) = found {
            tagged.operation = None;
            self.many_live -= 1;
        }
        if self.many_live == 0 {
            self.many = None;
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Operations::default();
    }

    /// The next operation that is ready, with its thread.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Values)> {
        if let Some((thread, operation)) = &mut self.single
            && let Poll::Ready(values) = operation.as_mut().poll(cx)
        {
            let thread = *thread;
            self.single = None;
            return Poll::Ready((thread, values));
        }
        let Some(many) = &mut self.many else { return Poll::Pending };
        while let Poll::Ready(Some(ended)) = many.poll_next_unpin(cx) {
            if let Some(ready) = ended {
                self.many_live -= 1;
                return Poll::Ready(ready);
            }
        }
        Poll::Pending
    }
}

/// One of several; resolves to nothing once cancelled.
struct Tagged {
    thread: usize,
    operation: Option<Operation>,
}

impl Future for Tagged {
    type Output = Option<(usize, Values)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let thread = self.thread;
        match &mut self.operation {
            None => Poll::Ready(None),
            Some(operation) => operation.as_mut().poll(cx).map(|values| Some((thread, values))),
        }
    }
}
