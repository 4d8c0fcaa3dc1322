//! A response's body on its way to the client: decoded, framed anew, never collected.
//!
//! A body that ends too early must not look complete to the client: the connection is closed instead.

use std::rc::Rc;

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_base::{OsError, clock};
use terrace_http::pace::Rate;
use terrace_http::{Chunk, Request};
use terrace_http1::{BodyDecoder, Framing};
use terrace_net::Timer;

use super::attempts::{Reply, Run};
use super::wait::{Broken, deadline};
use crate::peers::Conn;

/// What a buffer's bytes came to.
enum Passed {
    /// More is to come.
    Open,
    /// The body is complete.
    Whole,
    /// The client is gone.
    ClientGone,
    /// The body is malformed.
    Invalid,
}

/// Passes the body on to its end.
pub(super) async fn stream(run: &Run, reply: &mut Reply, framing: Framing) {
    let mut decoder = BodyDecoder::new(framing);
    let timeout_ms = run.read_timeout_ms();
    let mut is_listening = true;
    let mut rate = rate(run);
    let mut read_bytes = 0;
    loop {
        match pass(run, reply, &mut decoder, &mut is_listening).await {
            Passed::Open => {}
            Passed::Whole => break,
            Passed::ClientGone | Passed::Invalid => return end(run, &decoder, false),
        }
        reply.at = 0;
        reply.filled = 0;
        let Conn { stream, timer, .. } = &mut reply.live.pooled.connection;
        let buf = match &mut rate {
            None => &mut reply.buf[..],
            // Boxed: what a limit holds must not weigh on every request.
            Some(rate) => match Box::pin(allowance(run, rate, read_bytes)).await {
                Ok(allowed) => {
                    let len = reply.buf.len().min(allowed);
                    &mut reply.buf[..len]
                }
                Err(_) => return end(run, &decoder, false),
            },
        };
        let read = run.watch.wait(timer, deadline(timeout_ms), |cx| stream.poll_read(cx, buf)).await;
        match read {
            Ok(0) => {
                if decoder.finish().is_ok() {
                    break;
                }
                run.log(Level::Error, "upstream prematurely closed connection while reading upstream");
                return end(run, &decoder, false);
            }
            Ok(n) => {
                reply.filled = n;
                if let Some(rate) = &mut rate {
                    read_bytes += n as u64;
                    rate.used(n as u64, read_bytes, clock::monotonic_ms());
                }
                run.note(|a| a.received_bytes += n as u64);
            }
            Err(Broken::Io(e)) => {
                let text = format!("recv() failed {} while reading upstream", OsError(&e));
                run.log(Level::Error, &text);
                return end(run, &decoder, false);
            }
            Err(Broken::Timeout) => {
                run.timed_out("reading upstream");
                return end(run, &decoder, false);
            }
            Err(Broken::ClientLeft) => {
                let text = "client prematurely closed connection, so upstream connection is closed too while sending to client";
                run.log(Level::Info, text);
                return end(run, &decoder, false);
            }
        }
    }
    end(run, &decoder, true);
}

/// How fast the body is read, where that is limited. What the client is to have at once is not.
fn rate(run: &Run) -> Option<Rate> {
    let bytes_per_s = run.s.limit_rate.as_ref().filter(|_| !run.watch.writes)?.bytes(&run.r);
    (bytes_per_s > 0).then(|| Rate::new(bytes_per_s, clock::monotonic_ms()))
}

/// Waits until more may be read: how much.
async fn allowance(run: &Run, rate: &mut Rate, read_bytes: u64) -> Result<usize, Broken> {
    let mut timer = Timer::new();
    let mut pause = Timer::new();
    loop {
        let allowed = rate.allows(read_bytes, clock::monotonic_ms());
        if allowed > 0 {
            return Ok(allowed);
        }
        let resumes_ms = rate.resumes_ms();
        run.watch.wait(&mut timer, u64::MAX, |cx| pause.poll_expired(cx, resumes_ms).map(Ok)).await?;
    }
}

/// Records how much there was, and cuts the client off where the body is not whole.
fn end(run: &Run, decoder: &BodyDecoder, is_whole: bool) {
    let bytes = decoder.total_bytes();
    run.note(|a| a.response_bytes = bytes);
    if !is_whole {
        run.r.abort();
    }
}

/// Passes on what the buffer holds.
async fn pass(run: &Run, reply: &mut Reply, decoder: &mut BodyDecoder, is_listening: &mut bool) -> Passed {
    while reply.at < reply.filled {
        let decoded = match decoder.decode(&reply.buf[reply.at..reply.filled]) {
            Ok(d) => d,
            Err(e) => {
                let text = format!("upstream sent invalid chunked response: {e} while reading upstream");
                run.log(Level::Error, &text);
                return Passed::Invalid;
            }
        };
        let start = reply.at;
        reply.at += decoded.consumed;
        let data = &reply.buf[start + decoded.data.start..start + decoded.data.end];
        if *is_listening && !data.is_empty() && !give(run, &run.r, data).await {
            if !run.s.ignores_client_abort {
                return Passed::ClientGone;
            }
            *is_listening = false;
        }
        if decoded.finished {
            return Passed::Whole;
        }
        if decoded.consumed == 0 {
            break;
        }
    }
    if decoder.is_finished() { Passed::Whole } else { Passed::Open }
}

/// Gives body bytes to the client; false once it is gone. Waits while the client has more than its share to read.
async fn give(run: &Run, r: &Rc<Request>, data: &[u8]) -> bool {
    if !r.can_write_now() {
        let flush = run.watch.writes;
        let chunk = Chunk { data: Bytes::copy_from_slice(data), last: false, flush };
        return r.send(chunk).get().await;
    }
    r.write_later(data);
    let Some(client) = r.client.as_ref().filter(|_| !r.is_subrequest()) else { return true };
    if client.unsent() < run.s.unsent_bytes_max {
        return !client.is_gone();
    }
    if !client.write_pending() && client.unsent() >= run.s.unsent_bytes_max {
        return client.flush().await.is_ok();
    }
    !client.is_gone()
}

/// Ends the exchange: figures, the peer, and the connection for the next request where it is fit.
pub(super) fn finish(run: Run, reply: Reply) {
    let is_whole = !run.r.output.is_aborted();
    conclude(run, reply, is_whole);
}

/// Ends the exchange without passing the body on. Where all of it is in the buffer, the connection is kept.
pub(super) fn skip(run: Run, mut reply: Reply) {
    let framing = run.x.response.borrow().framing;
    let mut decoder = BodyDecoder::new(framing);
    while reply.at < reply.filled {
        let Ok(decoded) = decoder.decode(&reply.buf[reply.at..reply.filled]) else { break };
        reply.at += decoded.consumed;
        if decoded.finished || decoded.consumed == 0 {
            break;
        }
    }
    conclude(run, reply, decoder.is_finished());
}

fn conclude(run: Run, reply: Reply, is_whole: bool) {
    let elapsed_ms = run.attempt_ms();
    run.note(|a| a.response_ms = Some(elapsed_ms));
    reply.report_ok();
    let is_clean = is_whole && reply.live.is_sent && reply.at == reply.filled;
    let Reply { live, buf, address, .. } = reply;
    run.local.give_buffer(buf);
    if is_clean && run.x.response.borrow().keep_alive {
        run.x.target.peers.put(address, live.pooled, run.kept_by_balancer());
    }
}
