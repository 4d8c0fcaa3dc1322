//! One request's way to a server: choosing peers, connecting, sending, reading the head, and the next peer where
//! that failed.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use terrace_base::OsError;
use terrace_base::clock;
use terrace_base::log::Level;
use terrace_http::body::Stored;
use terrace_http::request::UpstreamAttempt;
use terrace_http::status::{CLIENT_CLOSED, INTERNAL};
use terrace_http::{Outcome, Request};
use terrace_http1::{Progress, ResponseError};
use terrace_net::{ConnectError, Stream, Timer};
use terrace_upstream::{Address, Input, Outcome as PeerOutcome, Pooled, Selection};

use super::exchange::Exchange;
use super::next::NextUpstream;
use super::request::{self, Rest};
use super::response;
use super::settings::Settings;
use super::tls::Secured;
use super::wait::{Broken, Watch, deadline};
use crate::balancer::{Attempt, Keepalive};
use crate::bind::Shown;
use crate::local::Local;
use crate::peers::{Claim, Conn, EPOCH_MS};
use crate::route::Route;

/// Passes a request to its server and the response to the client.
pub(super) async fn serve(s: Arc<Settings>, r: Rc<Request>) -> Outcome {
    if let Err(status) = r.read_body().get().await {
        return Outcome::Status(status);
    }
    let local = Local::of(&r.worker);
    let target = match s.pass.target(&r, &local).await {
        Ok(t) => t,
        Err(status) => return Outcome::Status(status),
    };
    let local_address = s.bind.address(&r);
    let tls = s.tls.as_ref().filter(|_| target.is_https).map(|tls| tls.wanted(&r, &target.host));
    let route = Route::new(tls, local_address, None);
    let x = Exchange::begin(&r, target, Rc::clone(&local));
    let rest = request::write(&s, &r, &x);
    let upstream = &x.target.peers.upstream;
    let mut key = Vec::new();
    if let Some(k) = &upstream.key {
        k.eval(&r, &mut key);
    }
    let mut tries = x.target.peers.with_group(|g| g.tries());
    if s.tries_max > 0 {
        tries = tries.min(s.tries_max);
    }
    let hook = upstream.balancer.is_some().then(Rc::<Attempt>::default);
    let watch = Watch::new(&r, s.ignores_client_abort);
    let started_ms = clock::monotonic_ms();
    let run = Run {
        s,
        r,
        x,
        local,
        watch,
        selection: Selection::new(),
        key,
        tries,
        started_ms,
        attempt_started_ms: Cell::new(started_ms),
        hook,
        rest,
        local_address,
        route,
        sent: false,
    };
    run.run().await
}

/// A request on its way.
pub(super) struct Run {
    pub(super) s: Arc<Settings>,
    pub(super) r: Rc<Request>,
    pub(super) x: Rc<Exchange>,
    pub(super) local: Rc<Local>,
    pub(super) watch: Watch,
    selection: Selection,
    key: Vec<u8>,
    tries: usize,
    started_ms: u64,
    attempt_started_ms: Cell<u64>,
    hook: Option<Rc<Attempt>>,
    rest: Rest,
    /// `proxy_bind`.
    local_address: Option<SocketAddr>,
    /// What is special about the connection of the present attempt.
    route: Option<Rc<Route>>,
    /// Whether the present attempt has sent anything.
    sent: bool,
}

/// A peer that was chosen.
struct Chosen {
    address: Address,
    name: String,
    claim: Option<Claim>,
}

/// A connection that a response is read from.
pub(super) struct Live {
    pub(super) pooled: Pooled<Conn>,
    cached: bool,
    /// Whether the whole request was sent.
    pub(super) is_sent: bool,
}

/// A response whose head was read.
pub(super) struct Reply {
    pub(super) live: Live,
    pub(super) buf: Vec<u8>,
    /// Where the body begins.
    pub(super) at: usize,
    /// Up to where bytes were read.
    pub(super) filled: usize,
    pub(super) address: Address,
    /// The peer, where it is of the group; its claim ends with the response.
    claim: Option<Claim>,
}

/// Why an attempt gave no response.
enum Failure {
    ClientLeft,
    /// A kept connection that turned out closed before any byte of a response.
    Stale,
    /// The local address could not be had: no other peer would change that.
    Unbound,
    Case(NextUpstream),
}

impl Run {
    async fn run(mut self) -> Outcome {
        loop {
            let chosen = match self.choose().await {
                Ok(c) => c,
                Err(status) => return Outcome::Status(status),
            };
            let mut result = self.attempt(&chosen, false).await;
            if matches!(result, Err(Failure::Stale)) && self.may_repeat() {
                self.end_attempt(502);
                self.begin_attempt(chosen.name.clone());
                result = self.attempt(&chosen, true).await;
            }
            let case = match result {
                Ok((live, buf, at, filled)) => {
                    let status = self.x.response.borrow().status;
                    let case = NextUpstream::of_status(status).filter(|c| self.tries > 1 && self.may_try(*c));
                    let Some(case) = case else {
                        let Chosen { address, claim, .. } = chosen;
                        let reply = Reply { live, buf, at, filled, address, claim };
                        return response::deliver(self, reply).await;
                    };
                    self.local.give_buffer(buf);
                    case
                }
                Err(Failure::ClientLeft) => {
                    let text = "client prematurely closed connection, so upstream connection is closed too \
                                while waiting for upstream";
                    self.log(Level::Info, text);
                    self.end_attempt(CLIENT_CLOSED);
                    return Outcome::Status(CLIENT_CLOSED);
                }
                Err(Failure::Unbound) => {
                    self.end_attempt(0);
                    return Outcome::Status(INTERNAL);
                }
                Err(Failure::Stale) => NextUpstream::ERROR,
                Err(Failure::Case(case)) => case,
            };
            let status = case.final_status();
            self.failed(&chosen, case, status);
            self.tries = self.tries.saturating_sub(1);
            if self.tries == 0 || !self.may_try(case) {
                return Outcome::Status(status);
            }
        }
    }

    /// The next peer. The error is a status.
    async fn choose(&mut self) -> Result<Chosen, u16> {
        let peers = Rc::clone(&self.x.target.peers);
        if let (Some(hook), Some(balancer)) = (&self.hook, &peers.upstream.balancer) {
            let asked = hook.ask(&**balancer, &self.r, self.tries, self.s.tries_max).await?;
            self.tries = asked.1;
            self.route = self.route_for(hook)?;
            if hook.takes_recreation() {
                self.rest = request::write(&self.s, &self.r, &self.x);
            }
            if let Some(address) = asked.0 {
                let name = address.to_string();
                self.begin_attempt(name.clone());
                return Ok(Chosen { address: to_upstream(address), name, claim: None });
            }
            if !peers.upstream.has_servers {
                self.log(Level::Error, "lua balancer: no peer set while connecting to upstream");
                return Err(INTERNAL);
            }
        }
        let input = Input { key: &self.key, address: self.r.peer_ip(), random: self.local.random() };
        let now_ms = clock::monotonic_ms() + EPOCH_MS;
        let selection = &mut self.selection;
        let found = peers.with_group(|g| {
            let index = selection.next(g, input, now_ms)?;
            let spec = g.peer(index)?.spec();
            Some((index, spec.address.clone(), spec.name.clone()))
        });
        match found {
            Some((index, address, name)) => {
                self.begin_attempt(name.clone());
                let claim = Some(Claim { peers, index });
                Ok(Chosen { address, name, claim })
            }
            None => {
                self.begin_attempt(peers.upstream.name.clone());
                self.log(Level::Error, "no live upstreams while connecting to upstream");
                self.end_attempt(502);
                Err(502)
            }
        }
    }

    /// What the connection of an attempt is to be like, by its balancer. The error is a status.
    fn route_for(&self, hook: &Attempt) -> Result<Option<Rc<Route>>, u16> {
        let is_https = hook.tls.get().unwrap_or(self.x.target.is_https);
        self.x.is_https.set(is_https);
        let host = hook.host.borrow().clone();
        let tls = match &self.s.tls {
            _ if !is_https => None,
            Some(tls) => {
                let name = host.as_deref().map_or(&self.x.target.host[..], str::as_bytes);
                Some(tls.wanted(&self.r, name))
            }
            None => {
                self.log(Level::Error, "the balancer asks for TLS, whose settings are not in order");
                return Err(INTERNAL);
            }
        };
        Ok(Route::new(tls, hook.local.get().or(self.local_address), host))
    }

    /// How long the balancer keeps the connection of the present attempt, if it does.
    pub(super) fn kept_by_balancer(&self) -> Option<Keepalive> {
        self.hook.as_ref().and_then(|hook| hook.keepalive.get())
    }

    fn begin_attempt(&self, address: String) {
        self.attempt_started_ms.set(clock::monotonic_ms());
        self.r.upstream.borrow_mut().attempts.push(UpstreamAttempt { address, ..Default::default() });
    }

    /// Changes the present attempt's figures.
    pub(super) fn note(&self, f: impl FnOnce(&mut UpstreamAttempt)) {
        if let Some(a) = self.r.upstream.borrow_mut().attempts.last_mut() {
            f(a);
        }
    }

    fn end_attempt(&self, status: u16) {
        let elapsed_ms = self.attempt_ms();
        self.note(|a| {
            a.status = status;
            a.response_ms = Some(elapsed_ms);
        });
    }

    /// Since the present attempt began, ms.
    pub(super) fn attempt_ms(&self) -> u64 {
        clock::monotonic_ms().saturating_sub(self.attempt_started_ms.get())
    }

    pub(super) fn log(&self, level: Level, message: &str) {
        self.r.log(level, format_args!("{message}"));
    }

    /// Whether the request may be sent a second time after this failure.
    fn may_try(&self, case: NextUpstream) -> bool {
        let mut needed = case;
        if self.sent && !self.is_idempotent() {
            needed |= NextUpstream::NON_IDEMPOTENT;
        }
        let timeout_ms = self.s.tries_timeout_ms;
        let elapsed_ms = clock::monotonic_ms().saturating_sub(self.started_ms);
        let is_late = timeout_ms > 0 && elapsed_ms >= timeout_ms;
        self.s.next.contains(needed) && !is_late
    }

    /// Whether a request that met a stale connection may be sent again on a fresh one.
    fn may_repeat(&self) -> bool {
        self.may_try(NextUpstream::ERROR)
    }

    fn is_idempotent(&self) -> bool {
        !matches!(&self.r.method()[..], b"POST" | b"LOCK" | b"PATCH")
    }

    /// Records a failed attempt: for variables, the peer and the balancer.
    fn failed(&self, chosen: &Chosen, case: NextUpstream, status: u16) {
        if let Some(claim) = &chosen.claim {
            let outcome = if case.spares_peer() { PeerOutcome::Ok } else { PeerOutcome::Failed };
            if claim.peers.report(claim.index, outcome) {
                let is_connected =
                    self.r.upstream.borrow().attempts.last().is_some_and(|a| a.connect_ms.is_some());
                let doing = if is_connected {
                    "reading response header from upstream"
                } else {
                    "connecting to upstream"
                };
                self.log(Level::Warn, &format!("upstream server temporarily disabled while {doing}"));
            }
        }
        self.end_attempt(status);
        if let Some(hook) = &self.hook {
            hook.failed(case.spares_peer(), status);
        }
    }

    /// Connects, sends, and reads the head: the connection, its buffer, and where the body begins and ends in it.
    async fn attempt(
        &mut self,
        chosen: &Chosen,
        fresh: bool,
    ) -> Result<(Live, Vec<u8>, usize, usize), Failure> {
        self.sent = false;
        let kept = if fresh {
            None
        } else {
            self.x.target.peers.take(&chosen.address, self.route.as_ref(), self.kept_by_balancer())
        };
        let cached = kept.is_some();
        let pooled = match kept {
            Some(p) => p,
            None => {
                let mut stream = self.connect(&chosen.address).await?;
                if let Some(secured) = self.route.as_ref().and_then(|route| route.tls.as_ref()) {
                    // Boxed: what a handshake holds must not weigh on every request.
                    stream = Box::pin(self.shake(stream, secured)).await?;
                }
                let route = self.route.clone();
                Pooled::new(Conn { stream, timer: Timer::new(), route }, clock::monotonic_ms())
            }
        };
        let mut live = Live { pooled, cached, is_sent: false };
        let connect_ms = self.attempt_ms();
        self.note(|a| a.connect_ms = Some(connect_ms));
        self.send(&mut live).await?;
        let mut buf = self.local.take_buffer(self.s.limits.head_bytes_max as usize);
        match self.read_head(&mut live, &mut buf).await {
            Ok((at, filled)) => Ok((live, buf, at, filled)),
            Err(f) => {
                self.local.give_buffer(buf);
                Err(f)
            }
        }
    }

    async fn connect(&self, address: &Address) -> Result<Stream, Failure> {
        let timeout_ms = self.timeout(|h| h.connect_timeout_ms.get(), self.s.connect_timeout_ms);
        let to = to_net(address);
        let local = self.route.as_ref().and_then(|route| route.local);
        let mut connecting = pin!(terrace_net::connect_from(&to, local, timeout_ms));
        let mut timer = Timer::new();
        let done = self.watch.wait(&mut timer, deadline(timeout_ms.saturating_add(1000)), |cx| {
            connecting.as_mut().poll(cx).map(Ok)
        });
        match done.await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(ConnectError::Io(e))) => {
                let target = match &to {
                    terrace_net::Address::Unix(_) => format!(" to {to}"),
                    terrace_net::Address::Ip(_) => String::new(),
                };
                let text = format!("connect(){target} failed {} while connecting to upstream", OsError(&e));
                self.log(Level::Error, &text);
                Err(Failure::Case(NextUpstream::ERROR))
            }
            Ok(Err(ConnectError::Bind(e))) => {
                self.log(Level::Crit, &unbound(local, &e));
                Err(Failure::Unbound)
            }
            Ok(Err(ConnectError::Timeout)) | Err(Broken::Timeout | Broken::Io(_)) => {
                self.timed_out("connecting to upstream");
                Err(Failure::Case(NextUpstream::TIMEOUT))
            }
            Err(Broken::ClientLeft) => Err(Failure::ClientLeft),
        }
    }

    async fn shake(&self, stream: Stream, secured: &Secured) -> Result<Stream, Failure> {
        let timeout_ms = self.timeout(|h| h.connect_timeout_ms.get(), self.s.connect_timeout_ms);
        let mut shaking = pin!(secured.shake(&self.r, stream));
        let mut timer = Timer::new();
        let done = self.watch.wait(&mut timer, deadline(timeout_ms), |cx| shaking.as_mut().poll(cx).map(Ok));
        match done.await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(e)) => {
                let text = format!("{} while SSL handshaking to upstream", secured.failure(&e));
                self.log(Level::Error, &text);
                Err(Failure::Case(NextUpstream::ERROR))
            }
            Err(Broken::Timeout | Broken::Io(_)) => {
                self.timed_out("SSL handshaking to upstream");
                Err(Failure::Case(NextUpstream::TIMEOUT))
            }
            Err(Broken::ClientLeft) => Err(Failure::ClientLeft),
        }
    }

    fn timeout(&self, of_hook: impl FnOnce(&Attempt) -> Option<u64>, own_ms: u64) -> u64 {
        self.hook.as_deref().and_then(of_hook).unwrap_or(own_ms)
    }

    pub(super) fn read_timeout_ms(&self) -> u64 {
        self.timeout(|h| h.read_timeout_ms.get(), self.s.read_timeout_ms)
    }

    pub(super) fn timed_out(&self, doing: &str) {
        let text = format!("upstream timed out (110: Connection timed out) while {doing}");
        self.log(Level::Error, &text);
    }

    /// Sends the request. Ends early where the server answers before it has read everything.
    async fn send(&mut self, live: &mut Live) -> Result<(), Failure> {
        let timeout_ms = self.timeout(|h| h.send_timeout_ms.get(), self.s.send_timeout_ms);
        let mut body = BodySource::new(&self.r, self.rest).map_err(|e| {
            self.r.log(Level::Crit, format_args!("reading the request body failed {}", OsError(&e)));
            Failure::Case(NextUpstream::ERROR)
        })?;
        let mut sent = 0;
        let mut total: u64 = 0;
        let Conn { stream, timer, .. } = &mut live.pooled.connection;
        loop {
            let step = self.watch.wait(timer, deadline(timeout_ms), |cx| {
                let request = self.x.request.borrow();
                let wrote = if sent < request.len() {
                    let n = stream.try_write(&request[sent..]);
                    sent += n.as_ref().copied().unwrap_or(0);
                    n
                } else {
                    body.write(&self.r, stream)
                };
                match wrote {
                    Ok(n) => Poll::Ready(Ok(Some(n))),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        if stream.poll_read_ready(cx).is_ready() {
                            return Poll::Ready(Ok(None));
                        }
                        match stream.poll_write_ready(cx) {
                            Poll::Ready(Ok(())) => {
                                cx.waker().wake_by_ref();
                                Poll::Pending
                            }
                            Poll::Ready(Err(e)) => Poll::Ready(Err(e)),
                            Poll::Pending => Poll::Pending,
                        }
                    }
                    Err(e) => Poll::Ready(Err(e)),
                }
            });
            match step.await {
                Ok(Some(n)) => total += n as u64,
                // An answer before the end of the request.
                Ok(None) => break,
                Err(Broken::ClientLeft) => return Err(Failure::ClientLeft),
                Err(Broken::Timeout) => {
                    self.timed_out("sending request to upstream");
                    return Err(Failure::Case(NextUpstream::TIMEOUT));
                }
                Err(Broken::Io(e)) => {
                    let text = format!("writev() failed {} while sending request to upstream", OsError(&e));
                    self.log(Level::Error, &text);
                    return Err(if live.cached {
                        Failure::Stale
                    } else {
                        Failure::Case(NextUpstream::ERROR)
                    });
                }
            }
            self.sent = true;
            if sent >= self.x.request.borrow().len() && body.is_done() {
                live.is_sent = true;
                break;
            }
        }
        self.note(|a| a.sent_bytes = total);
        Ok(())
    }

    /// Reads up to the end of the head: where the body begins, and up to where bytes are.
    async fn read_head(&self, live: &mut Live, buf: &mut [u8]) -> Result<(usize, usize), Failure> {
        let timeout_ms = self.read_timeout_ms();
        let is_head = self.is_head();
        self.x.response.borrow_mut().clear();
        let mut filled = 0;
        let Conn { stream, timer, .. } = &mut live.pooled.connection;
        loop {
            if filled == buf.len() {
                return Err(self.invalid(ResponseError::HeadTooLarge, buf));
            }
            let read =
                self.watch.wait(timer, deadline(timeout_ms), |cx| stream.poll_read(cx, &mut buf[filled..]));
            match read.await {
                Ok(0) => {
                    let text =
                        "upstream prematurely closed connection while reading response header from upstream";
                    self.log(Level::Error, text);
                    return Err(self.cut_off(live.cached && filled == 0));
                }
                Ok(n) => filled += n,
                Err(Broken::ClientLeft) => return Err(Failure::ClientLeft),
                Err(Broken::Timeout) => {
                    self.timed_out("reading response header from upstream");
                    return Err(Failure::Case(NextUpstream::TIMEOUT));
                }
                Err(Broken::Io(e)) => {
                    let text =
                        format!("recv() failed {} while reading response header from upstream", OsError(&e));
                    self.log(Level::Error, &text);
                    return Err(self.cut_off(live.cached && filled == 0));
                }
            }
            if let Some(at) = self.parse(buf, &mut filled, is_head)? {
                let header_ms = self.attempt_ms();
                let status = self.x.response.borrow().status;
                self.note(|a| {
                    a.header_ms = Some(header_ms);
                    a.status = status;
                    a.received_bytes = filled as u64;
                });
                return Ok((at, filled));
            }
        }
    }

    fn cut_off(&self, stale: bool) -> Failure {
        if stale { Failure::Stale } else { Failure::Case(NextUpstream::ERROR) }
    }

    /// Whether the request to the server is a HEAD.
    fn is_head(&self) -> bool {
        self.x.request.borrow().starts_with(b"HEAD ")
    }

    /// Parses what has come, skipping interim responses. The answer is the head's length once it is whole.
    fn parse(&self, buf: &mut [u8], filled: &mut usize, is_head: bool) -> Result<Option<usize>, Failure> {
        let mut head = self.x.response.borrow_mut();
        loop {
            match head.parse(&buf[..*filled], &self.s.limits, is_head) {
                Ok(Progress::Partial) => return Ok(None),
                Ok(Progress::Complete { head_len }) if matches!(head.status, 100 | 102..=199) => {
                    buf.copy_within(head_len..*filled, 0);
                    *filled -= head_len;
                    head.clear();
                }
                Ok(Progress::Complete { head_len }) => return Ok(Some(head_len)),
                Err(e) => {
                    drop(head);
                    return Err(self.invalid(e, &buf[..*filled]));
                }
            }
        }
    }

    fn invalid(&self, e: ResponseError, buf: &[u8]) -> Failure {
        let text = format!("{} while reading response header from upstream", e.log_line(buf));
        self.log(Level::Error, &text);
        Failure::Case(NextUpstream::INVALID_HEADER)
    }
}

impl Reply {
    /// The exchange went well for the peer, whatever the status.
    pub(super) fn report_ok(&self) {
        if let Some(Claim { peers, index }) = &self.claim {
            peers.report(*index, PeerOutcome::Ok);
        }
    }
}

/// What of the client's body is still to be sent behind the head.
enum BodySource {
    Done,
    Memory(usize),
    File { file: File, piece: Vec<u8>, at: usize, end: bool },
}

/// How much of a body in a file is read at once.
const PIECE_BYTES: usize = 32 * 1024;

impl BodySource {
    fn new(r: &Request, rest: Rest) -> io::Result<BodySource> {
        if rest == Rest::Nothing {
            return Ok(BodySource::Done);
        }
        Ok(match &*r.body.stored().borrow() {
            Stored::Empty => BodySource::Done,
            Stored::Memory(_) => BodySource::Memory(0),
            Stored::File(f) => {
                BodySource::File { file: File::open(f.path())?, piece: Vec::new(), at: 0, end: false }
            }
        })
    }

    fn is_done(&self) -> bool {
        matches!(self, BodySource::Done)
    }

    /// Writes a piece. At the end it becomes [`BodySource::Done`].
    fn write(&mut self, r: &Request, stream: &Stream) -> io::Result<usize> {
        match self {
            BodySource::Done => Ok(0),
            BodySource::Memory(at) => {
                let stored = r.body.stored().borrow();
                let Stored::Memory(m) = &*stored else { return Err(io::ErrorKind::InvalidData.into()) };
                let n = stream.try_write(m.get(*at..).unwrap_or_default())?;
                *at += n;
                if *at >= m.len() {
                    *self = BodySource::Done;
                }
                Ok(n)
            }
            BodySource::File { file, piece, at, end } => {
                if *at == piece.len() {
                    piece.resize(PIECE_BYTES, 0);
                    let n = file.read(piece)?;
                    piece.truncate(n);
                    *at = 0;
                    *end = n == 0;
                }
                if *end {
                    *self = BodySource::Done;
                    return Ok(0);
                }
                let n = stream.try_write(&piece[*at..])?;
                *at += n;
                Ok(n)
            }
        }
    }
}

/// What the log says of a local address that could not be had.
pub(crate) fn unbound(local: Option<SocketAddr>, e: &io::Error) -> String {
    let local = local.map(|local| Shown(local).to_string()).unwrap_or_default();
    format!("bind({local}) failed {} while connecting to upstream", OsError(e))
}

pub(crate) fn to_net(address: &Address) -> terrace_net::Address {
    match address {
        Address::Inet(a) => terrace_net::Address::Ip(*a),
        Address::Unix(p) => terrace_net::Address::Unix(p.clone()),
    }
}

pub(crate) fn to_upstream(address: terrace_net::Address) -> Address {
    match address {
        terrace_net::Address::Ip(a) => Address::Inet(a),
        terrace_net::Address::Unix(p) => Address::Unix(p),
    }
}
