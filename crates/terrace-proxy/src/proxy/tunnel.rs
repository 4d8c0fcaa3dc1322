//! After a 101: bytes pass both ways until one side closes or nothing has moved for `proxy_read_timeout`.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use terrace_base::log::Level;
use terrace_http::Outcome;
use terrace_net::{Stream, Timer};

use super::attempts::{Reply, Run};
use super::wait::deadline;

/// How much each direction holds while its receiver is slower than its sender.
const BUFFER_BYTES: usize = 16 * 1024;

/// How a tunnel ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Closed,
    Idle,
}

/// Answers with the 101 and passes bytes.
pub(super) async fn run(run: Run, reply: Reply) -> Outcome {
    let r = Rc::clone(&run.r);
    r.keep_alive.set(false);
    r.send_header().get().await;
    let Some(client) = r.client.clone().filter(|_| !r.is_subrequest()) else {
        return Outcome::Done;
    };
    if client.flush().await.is_err() {
        return Outcome::Done;
    }
    let Reply { live, buf, at, filled, .. } = reply;
    let mut up = Direction { buf: std::mem::take(&mut *client.input()), at: 0, moved: 0 };
    let mut down = Direction { buf: buf[at..filled].to_vec(), at: 0, moved: 0 };
    run.local.give_buffer(buf);
    let upstream = &live.pooled.connection.stream;
    let end = pass(&client.stream, upstream, &mut up, &mut down, run.read_timeout_ms()).await;
    if end == End::Idle {
        let text = "upstream timed out (110: Connection timed out) while proxying upgraded connection";
        run.log(Level::Error, text);
    }
    let elapsed_ms = run.attempt_ms();
    run.note(|a| {
        a.response_ms = Some(elapsed_ms);
        a.sent_bytes += up.moved;
        a.received_bytes += down.moved;
        a.response_bytes = down.moved;
    });
    Outcome::Done
}

/// Bytes on their way in one direction.
struct Direction {
    buf: Vec<u8>,
    at: usize,
    moved: u64,
}

impl Direction {
    /// Moves what can be moved now. `Ok(true)` at the end of the sender's stream with nothing left to write.
    fn poll(&mut self, from: &Stream, to: &Stream, cx: &mut Context<'_>) -> io::Result<bool> {
        loop {
            while self.at < self.buf.len() {
                match to.poll_write(cx, &self.buf[self.at..]) {
                    Poll::Ready(n) => {
                        let n = n?;
                        self.at += n;
                        self.moved += n as u64;
                    }
                    Poll::Pending => return Ok(false),
                }
            }
            self.buf.resize(BUFFER_BYTES, 0);
            self.at = 0;
            let read = from.poll_read(cx, &mut self.buf);
            self.buf.truncate(match &read {
                Poll::Ready(Ok(n)) => *n,
                _ => 0,
            });
            match read {
                Poll::Pending => return Ok(false),
                Poll::Ready(Ok(0)) => return Ok(true),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => return Err(e),
            }
        }
    }
}

async fn pass(
    client: &Stream,
    server: &Stream,
    up: &mut Direction,
    down: &mut Direction,
    timeout_ms: u64,
) -> End {
    let mut timer = Timer::new();
    let mut until_ms = deadline(timeout_ms);
    let mut moved = 0;
    poll_fn(|cx| {
        let ended_up = up.poll(client, server, cx);
        let ended_down = down.poll(server, client, cx);
        if !matches!((ended_up, ended_down), (Ok(false), Ok(false))) {
            return Poll::Ready(End::Closed);
        }
        let now = up.moved + down.moved;
        if now != moved {
            moved = now;
            until_ms = deadline(timeout_ms);
        }
        timer.poll_expired(cx, until_ms).map(|()| End::Idle)
    })
    .await
}
