//! Waiting for a server while watching the client and the clock.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use terrace_base::clock;
use terrace_http::Request;
use terrace_http::connection::Client;
use terrace_net::Timer;

/// Why a wait ended without what was waited for.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The client closed its connection.
    ClientLeft,
    /// Time is up.
    Timeout,
    /// The server's connection failed.
    Io(io::Error),
}

/// What to do for the client while waiting.
pub(crate) struct Watch {
    client: Option<Rc<Client>>,
    /// Whether the client's leaving ends the wait.
    leaves: bool,
    /// Whether what the client has coming is written at once.
    pub(crate) writes: bool,
}

impl Watch {
    /// Subrequests do not watch: that is for their main request.
    pub(crate) fn new(r: &Request, ignores_abort: bool) -> Watch {
        let client = r.client.clone().filter(|_| !r.is_subrequest());
        Watch { client, leaves: !ignores_abort, writes: false }
    }

    /// Waits for `op`, for as long as the client stays and until `deadline_ms`.
    pub(crate) async fn wait<T>(
        &self,
        timer: &mut Timer,
        deadline_ms: u64,
        mut op: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Result<T, Broken> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = op(cx) {
                return Poll::Ready(done.map_err(Broken::Io));
            }
            if let Some(client) = &self.client {
                if self.leaves && has_left(client, cx) {
                    return Poll::Ready(Err(Broken::ClientLeft));
                }
                if self.writes && client.unsent() > 0 {
                    // A failure shows as the client being gone.
                    let _ = client.poll_flush(cx);
                }
            }
            timer.poll_expired(cx, deadline_ms).map(|()| Err(Broken::Timeout))
        })
        .await
    }
}

/// A deadline from now.
pub(crate) fn deadline(timeout_ms: u64) -> u64 {
    clock::monotonic_ms().saturating_add(timeout_ms)
}

/// Whether the client has closed. Bytes of a next request that show up go to its input; from then on nothing can be
/// told without reading ahead without bound.
fn has_left(client: &Client, cx: &mut Context<'_>) -> bool {
    if client.is_gone() {
        return true;
    }
    if !client.input().is_empty() {
        return false;
    }
    let mut bytes = [0; 512];
    loop {
        match client.stream.poll_read_ready(cx) {
            Poll::Pending => return false,
            Poll::Ready(Err(_)) => return true,
            Poll::Ready(Ok(())) => {}
        }
        match client.stream.try_read(&mut bytes) {
            Ok(0) => return true,
            Ok(n) => {
                client.input().extend_from_slice(&bytes[..n]);
                return false;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return true,
        }
    }
}
