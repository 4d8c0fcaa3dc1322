//! Subrequests on their way, and what waits behind them.
//!
//! Output behind a subrequest that has not ended waits in a queue, so that the response has everything in the order
//! of the commands while the subrequests themselves run side by side.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_http::body::Stored;
use terrace_http::subrequest::{self, Inherit, Subrequest, parse_uri};
use terrace_http::{Chunk, LocalFuture, Request};

use super::{Spec, SpecBody, body};

/// A piece of the response that is not sent yet.
enum Piece {
    Output(Chunk),
    Running(Rc<Request>, LocalFuture<()>),
    Ended(Rc<Request>),
}

/// What is not sent yet, in order. The first piece is always a subrequest.
#[derive(Default)]
pub(super) struct Queue(VecDeque<Piece>);

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn push_output(&mut self, chunk: Chunk) {
        self.0.push_back(Piece::Output(chunk));
    }

    /// Adds a subrequest, which runs when something is waited for.
    pub(super) fn push_subrequest(&mut self, sub: Rc<Request>) {
        let running = Rc::clone(&sub);
        let work = Box::pin(async move { subrequest::run(&running).await });
        self.0.push_back(Piece::Running(sub, work));
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        for piece in &mut self.0 {
            if let Piece::Running(sub, work) = piece
                && work.as_mut().poll(cx).is_ready()
            {
                *piece = Piece::Ended(Rc::clone(sub));
            }
        }
    }

    /// Waits for `work` while the subrequests run. They do not where there is nothing to wait for.
    pub(super) async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let done = work.as_mut().poll(cx);
            if done.is_pending() {
                self.poll(cx);
            }
            done
        })
        .await
    }

    /// Waits until the last piece, a subrequest, has ended.
    pub(super) async fn last_ended(&mut self) {
        poll_fn(|cx| {
            self.poll(cx);
            if matches!(self.0.back(), Some(Piece::Running(..))) { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Sends everything up to the first subrequest that runs.
    pub(super) async fn send_ready(&mut self, r: &Rc<Request>) {
        while !matches!(self.0.front(), None | Some(Piece::Running(..))) {
            let sending = match self.0.pop_front() {
                Some(Piece::Output(chunk)) => r.send(chunk),
                Some(Piece::Ended(sub)) => {
                    let data = Bytes::from(sub.output.take_captured());
                    r.send_unfiltered(Chunk { data, ..Chunk::default() })
                }
                _ => return,
            };
            self.beside(sending.get()).await;
        }
    }

    /// Runs all subrequests to their ends and sends everything.
    pub(super) async fn drain(&mut self, r: &Rc<Request>) {
        self.send_ready(r).await;
        while !self.is_empty() {
            poll_fn(|cx| {
                self.poll(cx);
                if matches!(self.0.front(), Some(Piece::Running(..))) {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
            self.send_ready(r).await;
        }
    }
}

/// Makes a subrequest of `r`, whose body has been read. The error, which is logged, is a status.
pub(super) fn make(r: &Rc<Request>, spec: &Spec) -> Result<Rc<Request>, u16> {
    let uri = spec.uri.eval_bytes(r);
    let Some((path, query)) = parse_uri(&uri) else {
        let uri = String::from_utf8_lossy(&uri);
        r.log(Level::Error, format_args!("the URI \"{uri}\" of a subrequest is unsafe"));
        return Err(500);
    };
    let args = spec.query.as_ref().map_or_else(|| Bytes::copy_from_slice(query), |q| q.eval_bytes(r));
    let sub = Subrequest {
        uri: path.into(),
        args,
        method: spec.method.eval_bytes(r),
        body: body_of(r, spec)?,
        vars: Inherit::Nothing,
        bare_errors: false,
    };
    subrequest::make(r, sub).ok_or_else(|| {
        let uri = String::from_utf8_lossy(&uri);
        r.log(Level::Error, format_args!("subrequests cycle while processing \"{uri}\""));
        500
    })
}

/// The subrequest's own body; where it has none, that of its parent.
fn body_of(r: &Rc<Request>, spec: &Spec) -> Result<Option<Stored>, u16> {
    let made = match &spec.body {
        Some(SpecBody::Text(text)) => {
            let text = text.eval_bytes(r);
            if text.is_empty() { body::copy(r) } else { Ok(Some(Stored::Memory(text.to_vec()))) }
        }
        Some(SpecBody::File(path)) => {
            let path = path.eval_bytes(r);
            let path = r.generation().prefix.join(String::from_utf8_lossy(&path).as_ref());
            body::of_file(r, path).map(Some)
        }
        None => body::copy(r),
    };
    made.map_err(|e| {
        r.log(Level::Error, format_args!("opening the body of a subrequest failed: {e}"));
        500
    })
}
