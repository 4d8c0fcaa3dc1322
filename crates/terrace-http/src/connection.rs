//! A client's connection: reads heads, runs requests one after the other, writes what they leave in the buffer,
//! and closes so that the client gets the last response whole.
//!
//! An idle connection holds no read buffer. When its worker drains, it goes to the next generation.

mod paced;

use std::cell::{Cell, RefCell, RefMut};
use std::future::poll_fn;
use std::io;
use std::ops::Deref;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use terrace_base::clock;
use terrace_base::log::Level;
use terrace_http1::uri::{Path, UriError};
use terrace_http1::{Progress, RequestError};
use terrace_net::{Address, Stream, Timer};

use crate::core::location_conf::CoreLocation;
use crate::core::server_conf::CoreServer;
use crate::generation::{Listen, ServerIndex};
use crate::headers_in::SentHead;
use crate::location_tree::LocationIndex;
use crate::pace::Pace;
use crate::tls::{self, SessionCell};
use crate::worker::{Handover, Worker};
use crate::{Request, engine, special};

/// A connection.
pub struct Client {
    /// Its number in logs (`$connection`).
    pub number: u64,
    /// Its worker.
    pub worker: Rc<Worker>,
    /// The stream.
    pub stream: Stream,
    /// The other end.
    pub peer: Address,
    /// Which of the generation's addresses it was accepted on.
    pub listen: usize,
    /// Requests so far (`$connection_requests`).
    pub requests: Cell<u32>,
    /// When it was accepted, monotonic ms (`$connection_time`).
    pub accepted_ms: u64,
    /// What is known since its TLS handshake.
    pub(crate) tls: SessionCell,
    out: RefCell<Vec<u8>>,
    written: Cell<usize>,
    sent_bytes: Cell<u64>,
    /// Whether the present response may be limited; then `pace` is by how much.
    is_paced: Cell<bool>,
    pace: RefCell<Option<Box<Pace>>>,
    input: RefCell<Vec<u8>>,
    gone: Cell<bool>,
    /// Whether the present request was there, in part at least, when the one before it ended.
    is_pipelined: Cell<bool>,
    /// Whether a whole response waits in the buffer because the next request was there when it ended.
    keeps_response: Cell<bool>,
    /// The location of the last request: its timeouts are in force.
    pub(crate) location: Cell<LocationIndex>,
    idle_waker: RefCell<Option<Waker>>,
    /// How many read from the stream, or wait to.
    readers: Cell<u32>,
    /// Who looks for the client's leaving while nobody reads.
    watcher: RefCell<Option<Waker>>,
    timer: RefCell<Timer>,
}

/// An output buffer that grew beyond this is not kept for the next request.
const OUT_KEPT_BYTES_MAX: usize = 64 * 1024;
/// `postpone_output`: less than this waits for more.
const POSTPONE_BYTES: usize = 1460;
/// Responses to pipelined requests collect up to this, to leave in one write.
const PIPELINED_BYTES_MAX: usize = 16 * 1024;
/// Who looks for a client's leaving keeps at most about so many bytes that the client sends in the meantime.
const WATCHED_BYTES_MAX: usize = 64 * 1024;

impl Client {
    /// The address it was accepted on.
    pub fn listen(&self) -> &Listen {
        &self.worker.generation.listens[self.listen]
    }

    /// Bytes on their way to the client.
    pub fn out(&self) -> RefMut<'_, Vec<u8>> {
        self.out.borrow_mut()
    }

    /// Bytes read and not used yet.
    pub fn input(&self) -> RefMut<'_, Vec<u8>> {
        self.input.borrow_mut()
    }

    /// How many bytes wait to be written.
    pub fn unsent(&self) -> usize {
        self.out.borrow().len() - self.written.get()
    }

    /// Bytes written so far.
    pub fn sent_bytes(&self) -> u64 {
        self.sent_bytes.get()
    }

    /// Whether the present request was pipelined (`$pipe`).
    pub fn is_pipelined(&self) -> bool {
        self.is_pipelined.get()
    }

    /// Whether writing has failed.
    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Whether the client has closed its side.
    pub fn has_left(&self) -> bool {
        self.gone.get() || (self.input.borrow().is_empty() && self.stream.is_closed_by_peer())
    }

    /// Says, while the answer is kept, that somebody reads from the stream.
    pub fn reading(self: &Rc<Self>) -> Reading {
        Reading::new(Rc::clone(self))
    }

    /// Whether somebody reads from the stream, or waits to.
    pub fn is_read(&self) -> bool {
        self.readers.get() > 0
    }

    /// Ready once the client has closed its side of the connection. What it sends before is kept for whoever reads next,
    /// and means that it has not left: it waits for an answer to that. Looks only while nobody else reads; one task at a
    /// time may look.
    pub fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.watcher.replace(Some(cx.waker().clone()));
        if self.is_read() {
            return Poll::Pending;
        }
        while self.input.borrow().len() < WATCHED_BYTES_MAX {
            match self.poll_read_input(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0) | Err(_)) if self.input.borrow().is_empty() => return Poll::Ready(()),
                Poll::Ready(_) => return Poll::Pending,
            }
        }
        Poll::Pending
    }

    /// Takes bytes that the client has sent, without waiting; 0 at the end of the stream.
    pub fn try_take(&self, buf: &mut [u8]) -> io::Result<usize> {
        let mut input = self.input.borrow_mut();
        if input.is_empty() {
            return self.stream.try_read(buf);
        }
        let n = input.len().min(buf.len());
        buf[..n].copy_from_slice(&input[..n]);
        input.drain(..n);
        Ok(n)
    }

    /// Reads into [`Client::input`] what is there, without waiting; 0 at the end of the stream.
    pub(crate) fn try_fill(&self) -> io::Result<usize> {
        let mut input = self.input.borrow_mut();
        let start = input.len();
        input.resize(start + crate::body::READ_BYTES, 0);
        let got = self.stream.try_read(&mut input[start..]);
        input.truncate(start + got.as_ref().copied().unwrap_or(0));
        got
    }

    /// Ready once [`Client::try_take`] may make progress.
    pub fn poll_take_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.input.borrow().is_empty() { self.stream.poll_read_ready(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Writes bytes as they are behind what waits to be written, without waiting.
    pub fn try_put(&self, data: &[u8]) -> io::Result<usize> {
        if !self.write_pending() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.gone.get() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = self.stream.try_write(data)?;
        self.sent_bytes.set(self.sent_bytes.get() + n as u64);
        Ok(n)
    }

    pub(crate) fn wake_idle(&self) {
        if let Some(w) = self.idle_waker.borrow_mut().take() {
            w.wake();
        }
    }

    /// Writes what the kernel takes now. True when nothing is left.
    pub fn write_pending(&self) -> bool {
        if self.is_paced.get() {
            return self.write_paced();
        }
        let mut out = self.out.borrow_mut();
        while self.written.get() < out.len() && !self.gone.get() {
            match self.stream.try_write(&out[self.written.get()..]) {
                Ok(n) => {
                    self.written.set(self.written.get() + n);
                    self.sent_bytes.set(self.sent_bytes.get() + n as u64);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.gone.set(true),
            }
        }
        let done = self.written.get() >= out.len() || self.gone.get();
        if done {
            out.clear();
            self.written.set(0);
            if out.capacity() > OUT_KEPT_BYTES_MAX {
                *out = Vec::new();
            }
        }
        done
    }

    /// Writes if enough has collected. False once the client is gone.
    pub(crate) fn write_if_large(&self) -> bool {
        if self.unsent() >= POSTPONE_BYTES {
            self.write_pending();
        }
        !self.gone.get()
    }

    /// Writes on as the socket takes it; ready when nothing is left.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.write_pending() {
                let gone = self.gone.get();
                return Poll::Ready(if gone { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) });
            }
            if self.is_paced.get() && self.poll_pace(cx).is_pending() {
                return Poll::Pending;
            }
            match self.stream.poll_write_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => {
                    self.gone.set(true);
                    return Poll::Ready(Err(e));
                }
            }
        }
    }

    /// Writes everything, each write within `send_timeout`.
    pub async fn flush(&self) -> io::Result<()> {
        if self.write_pending() && !self.gone.get() {
            return Ok(());
        }
        let timeout_ms = last_location(self).send_timeout_ms;
        let (mut sent, mut deadline) = (self.sent_bytes.get(), clock::monotonic_ms() + timeout_ms);
        let mut timer = Timer::new();
        poll_fn(|cx| {
            if let Poll::Ready(r) = self.poll_flush(cx) {
                return Poll::Ready(r);
            }
            // A limited response's waits are the server's, not the client's.
            if self.sent_bytes.get() != sent || self.is_delayed() {
                sent = self.sent_bytes.get();
                deadline = clock::monotonic_ms() + timeout_ms;
            }
            timer.poll_expired(cx, deadline).map(|()| {
                self.gone.set(true);
                Err(io::ErrorKind::TimedOut.into())
            })
        })
        .await
    }

    /// Reads more into [`Client::input`]; 0 at the end of the stream.
    pub async fn read_more(&self, timeout_ms: u64) -> io::Result<usize> {
        let _reading = Reading::new(self);
        let deadline = clock::monotonic_ms() + timeout_ms;
        let mut timer = self.timer.take();
        let result = poll_fn(|cx| {
            if let Poll::Ready(r) = self.poll_read_input(cx) {
                return Poll::Ready(r);
            }
            // What was said so far may be what the client waits for.
            let _ = self.poll_flush(cx);
            timer.poll_expired(cx, deadline).map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await;
        self.timer.replace(timer);
        result
    }

    fn poll_read_input(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_read_ready(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(r) => r?,
            }
            match self.try_fill() {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    /// Whether a response that has ended may wait for that of the next request, which is there in part at least.
    fn keep_response(&self) -> bool {
        let is_pipelined = !self.input.borrow().is_empty();
        // A pace ends with its request.
        let keep = is_pipelined && self.unsent() < PIPELINED_BYTES_MAX && !self.is_paced.get();
        self.keeps_response.set(keep);
        keep
    }

    /// Runs `work` while writing what it leaves in the buffer beyond [`POSTPONE_BYTES`].
    async fn with_output<T>(&self, mut work: Pin<&mut impl Future<Output = T>>) -> T {
        poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            if polled.is_pending() && (self.unsent() >= POSTPONE_BYTES || self.keeps_response.get()) {
                let _ = self.poll_flush(cx);
            }
            polled
        })
        .await
    }
}

/// Somebody reads from a client's stream, or waits to.
pub struct Reading<C: Deref<Target = Client> = Rc<Client>>(C);

impl<C: Deref<Target = Client>> Reading<C> {
    fn new(client: C) -> Reading<C> {
        client.readers.set(client.readers.get() + 1);
        Reading(client)
    }
}

impl<C: Deref<Target = Client>> Drop for Reading<C> {
    fn drop(&mut self) {
        self.0.readers.set(self.0.readers.get().saturating_sub(1));
        if let Some(w) = self.0.watcher.borrow_mut().take() {
            w.wake();
        }
    }
}

/// Why no head came.
enum NoHead {
    /// Close without a word: the client closed, timed out, or the connection idled too long.
    Close,
    /// The worker drains and nothing of a next request was read.
    Drain,
    /// Answer with the error's status and close.
    Refused(Box<Refusal>),
}

/// A head that is no request. Boxed where it is passed on: it is rare, and larger than a head that is one.
struct Refusal {
    error: RequestError,
    sent: Box<SentHead>,
}

/// Serves one connection to its end. `number` and `requests` are those of a connection that was handed over.
///
/// The connection counts as the worker's from the call on, before the future is polled.
pub fn serve(
    worker: Rc<Worker>,
    stream: Stream,
    peer: Address,
    listen: usize,
    number: u64,
    requests: u32,
) -> impl Future<Output = ()> + 'static {
    let generation = &worker.generation;
    let stream = if generation.listens[listen].ssl.is_some() { stream.with_tls() } else { stream };
    let location = generation.server(generation.listens[listen].names.default_server()).root;
    let client = Rc::new(Client {
        number,
        worker,
        stream,
        peer,
        listen,
        requests: Cell::new(requests),
        accepted_ms: clock::monotonic_ms(),
        tls: SessionCell::new(),
        out: RefCell::default(),
        written: Cell::new(0),
        sent_bytes: Cell::new(0),
        is_paced: Cell::new(false),
        pace: RefCell::new(None),
        input: RefCell::default(),
        gone: Cell::new(false),
        is_pipelined: Cell::new(false),
        keeps_response: Cell::new(false),
        location: Cell::new(location),
        idle_waker: RefCell::new(None),
        readers: Cell::new(0),
        watcher: RefCell::new(None),
        timer: RefCell::new(Timer::new()),
    });
    let entered = Entered::new(&client);
    async move {
        let handover = run(&client).await;
        drop(entered);
        if handover {
            hand_over(client);
        }
    }
}

/// Membership among the worker's connections; it ends with the task, also when that panics.
struct Entered(Rc<Client>);

impl Entered {
    fn new(client: &Rc<Client>) -> Entered {
        client.worker.enter(client);
        Entered(Rc::clone(client))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.worker.leave(&self.0);
    }
}

/// Serves requests. True when the connection should go to the next generation.
async fn run(client: &Rc<Client>) -> bool {
    // Boxed: what a handshake holds must not weigh on every connection.
    if client.stream.tls().is_some() && !Box::pin(tls::handshake(client)).await {
        return false;
    }
    loop {
        let head = match read_head(client).await {
            Ok(h) => h,
            Err(NoHead::Close) => {
                // Responses that were kept may be left where the client only sends no more.
                let _ = client.flush().await;
                return false;
            }
            Err(NoHead::Drain) => return true,
            Err(NoHead::Refused(refusal)) => {
                refuse(client, *refusal).await;
                close(client).await;
                return false;
            }
        };
        client.requests.set(client.requests.get() + 1);
        let keep = serve_request(client, head).await;
        if !keep {
            close(client).await;
            return false;
        }
        if client.worker.is_draining() && client.input.borrow().is_empty() {
            return true;
        }
    }
}

async fn serve_request(client: &Rc<Client>, head: Box<SentHead>) -> bool {
    client.worker.keep_time();
    let r = match make_request(client, head) {
        Ok(r) => r,
        Err(refusal) => {
            refuse(client, *refusal).await;
            return false;
        }
    };
    client.with_output(pin!(engine::serve(&r))).await;
    let keep = r.keep_alive.get() && (!r.has_unread_body() || r.discard_body().await) && r.keep_alive.get();
    let flushed = (keep && client.keep_response()) || client.flush().await.is_ok();
    // A script may keep the request a little longer; then it is freed with its head.
    let mut r = r;
    if let Some(sent) = Rc::get_mut(&mut r).and_then(Request::recycle) {
        client.worker.give_head(sent);
        client.worker.give_request(r);
    }
    keep && flushed
}

fn make_request(client: &Rc<Client>, sent: Box<SentHead>) -> Result<Rc<Request>, Box<Refusal>> {
    let (buf, head) = (&sent.buf, &sent.head);
    let names = &client.listen().names;
    let mut pattern = None;
    let server = if names.is_single() {
        names.default_server()
    } else {
        let host = head.host.map_or(&b""[..], |h| h.of(buf));
        let (server, found) =
            if head.host_has_upper { names.find(&host.to_ascii_lowercase()) } else { names.find(host) };
        pattern = found;
        server
    };
    let uri = match normal_uri(client, server, &sent) {
        Ok(uri) => uri,
        Err(UriError) => return Err(Box::new(Refusal { error: RequestError::InvalidRequest, sent })),
    };
    let r = Request::from_head(Rc::clone(client), server, sent, uri);
    if let Some(p) = pattern {
        let host = r.host().to_ascii_lowercase();
        r.match_regex(&p.regex, &p.names, &host);
    }
    Ok(r)
}

/// The path of a head in normal form, where that is another than the one sent.
fn normal_uri(client: &Client, server: ServerIndex, sent: &SentHead) -> Result<Option<Bytes>, UriError> {
    if !sent.head.line.complex {
        return Ok(None);
    }
    let merge = client.worker.generation.server(server).core.merge_slashes;
    let mut normal = Vec::new();
    let parts = sent.head.uri(&sent.buf, merge, &mut normal)?;
    Ok((parts.path == Path::Rewritten).then(|| normal.into()))
}

/// Waits for a request's first byte, then reads its head.
async fn read_head(client: &Rc<Client>) -> Result<Box<SentHead>, NoHead> {
    let server = default_server(client);
    let is_pipelined = !client.input.borrow().is_empty();
    client.is_pipelined.set(is_pipelined);
    if !is_pipelined {
        await_request(client).await?;
    }
    let mut sent = client.worker.take_head();
    let mut filled = take_input(client, &mut sent.buf);
    let deadline = clock::monotonic_ms() + server.client_header_timeout_ms;
    let limits = &server.head_limits;
    loop {
        match sent.head.parse(&sent.buf[..filled], limits) {
            Ok(Progress::Complete { head_len }) => {
                if filled > head_len {
                    client.input.borrow_mut().extend_from_slice(&sent.buf[head_len..filled]);
                }
                sent.len = head_len;
                return Ok(sent);
            }
            Ok(Progress::Partial) => {}
            Err(e) => {
                sent.buf.truncate(filled);
                // The head is from the pool: it still says how long its last one was.
                sent.len = filled;
                return Err(NoHead::Refused(Box::new(Refusal { error: e, sent })));
            }
        }
        if client.keeps_response.get() {
            client.write_pending();
        }
        if filled == sent.buf.len() {
            let grown = (filled * 2).min(limits.head_bytes_max() + filled);
            sent.buf.resize(grown, 0);
        }
        match read_into(client, &mut sent.buf[filled..], deadline).await {
            Ok(0) | Err(_) => return Err(NoHead::Close),
            Ok(n) => filled += n,
        }
    }
}

/// Takes what was read ahead: the start of a pipelined request.
fn take_input(client: &Client, buf: &mut Vec<u8>) -> usize {
    let mut input = client.input.borrow_mut();
    let n = input.len();
    if n > 0 {
        if buf.len() < n {
            buf.resize(n, 0);
        }
        buf[..n].copy_from_slice(&input);
        *input = Vec::new();
    }
    n
}

async fn read_into(client: &Client, buf: &mut [u8], deadline: u64) -> io::Result<usize> {
    match client.stream.try_read(buf) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
        other => return other,
    }
    let mut timer = client.timer.take();
    let result = poll_fn(|cx| {
        if let Poll::Ready(r) = client.stream.poll_read(cx, buf) {
            return Poll::Ready(r);
        }
        // A response may have been kept.
        let _ = client.poll_flush(cx);
        timer.poll_expired(cx, deadline).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await;
    client.timer.replace(timer);
    result
}

/// Waits, without a buffer, until a request begins.
async fn await_request(client: &Client) -> Result<(), NoHead> {
    let idle_ms = match client.requests.get() {
        0 => default_server(client).client_header_timeout_ms,
        _ => last_location(client).keepalive_timeout_ms,
    };
    let deadline = clock::monotonic_ms() + idle_ms;
    poll_fn(|cx| {
        if let Poll::Ready(r) = client.stream.poll_read_ready(cx) {
            return Poll::Ready(r.map_err(|_| NoHead::Close));
        }
        // A connection with TLS cannot move; its first request is on its way.
        if client.worker.is_draining() && (client.requests.get() > 0 || client.tls.get().is_none()) {
            return Poll::Ready(Err(NoHead::Drain));
        }
        let mut waker = client.idle_waker.borrow_mut();
        if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        client.timer.borrow_mut().poll_expired(cx, deadline).map(|()| Err(NoHead::Close))
    })
    .await
}

fn default_server(client: &Client) -> &CoreServer {
    &client.worker.generation.server(client.listen().names.default_server()).core
}

fn last_location(client: &Client) -> &CoreLocation {
    &client.worker.generation.location(client.location.get()).core
}

/// Answers a head that is no request.
async fn refuse(client: &Rc<Client>, Refusal { error, sent }: Refusal) {
    client.unpace();
    let server: ServerIndex = client.listen().names.default_server();
    let line = error.log_line(&sent.buf);
    let r = Request::refused(Rc::clone(client), server, sent);
    r.log(Level::Info, format_args!("{line} while reading client request"));
    special::respond(&r, error.status()).await;
    engine::end(&r).await;
    // The client may be gone; the connection is closed in any case.
    let _ = client.flush().await;
}

/// Half-closes and reads on for a while, so that the last response is not lost to a reset.
async fn close(client: &Rc<Client>) {
    if client.is_gone() || client.stream.shutdown_write().is_err() {
        return;
    }
    let core = last_location(client);
    let (each, until) = (core.lingering_timeout_ms, clock::monotonic_ms() + core.lingering_time_ms);
    while clock::monotonic_ms() < until {
        client.input.borrow_mut().clear();
        if client.read_more(each).await.unwrap_or(0) == 0 {
            return;
        }
    }
}

/// Gives the connection to the next generation, or closes it.
fn hand_over(client: Rc<Client>) {
    let listen = client.listen().address.clone();
    let worker = Rc::clone(&client.worker);
    // Timers and wakers of this worker are dropped with the rest of the client.
    let Some(client) = Rc::into_inner(client) else { return };
    let (peer, number, requests) = (client.peer, client.number, client.requests.get());
    if let Ok(stream) = client.stream.detach() {
        // Nobody to take it: dropping it closes it.
        let _ = worker.hand_over(Handover { stream, peer, listen, number, requests });
    }
}
