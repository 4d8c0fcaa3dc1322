//! Sends a command to a server, and its reply to the client; the next server where that fails.
//!
//! What is held of a value at any time is bounded by `memc_buffer_size` and what the client has yet to read.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use terrace_base::log::Level;
use terrace_base::{OsError, clock};
use terrace_http::request::UpstreamAttempt;
use terrace_http::status::{CLIENT_CLOSED, INTERNAL};
use terrace_http::{Chunk, Outcome, Request};
use terrace_net::{ConnectError, Timer};
use terrace_upstream::{Address, Input, Outcome as PeerOutcome, Pooled, Selection};

use super::command::{self, Reply, VALUE_END};
use super::request::Command;
use super::{PORT, Settings, Target};
use crate::balancer::{Attempt, Keepalive};
use crate::local::Local;
use crate::peers::{Claim, Conn, EPOCH_MS, Peers};
use crate::proxy::next::NextUpstream;
use crate::proxy::wait::{Broken, Watch, deadline};
use crate::proxy::{to_net, to_upstream, unbound};
use crate::route::Route;
use crate::url::{Host, Url};

/// Answers a request with the reply to its command.
pub(super) async fn serve(s: Arc<Settings>, r: Rc<Request>, command: Command) -> Outcome {
    if let Err(status) = r.read_body().get().await {
        return Outcome::Status(status);
    }
    let local = Local::of(&r.worker);
    let made = match command.bytes(&r) {
        Ok(bytes) => target(&s.target, &r, &local).await.map(|peers| (bytes, peers)),
        Err(status) => Err(status),
    };
    let (bytes, peers) = match made {
        Ok(made) => made,
        Err(status) => return Outcome::Status(status),
    };
    begin_exchange(&r);
    let watch = Watch::new(&r, s.plain.ignores_client_abort());
    let hook = peers.upstream.balancer.is_some().then(Rc::<Attempt>::default);
    let local_address = s.plain.bind().address(&r);
    let route = Route::new(None, local_address, None);
    let started_ms = clock::monotonic_ms();
    let run = Run { s, r, command, bytes, peers, local, watch, hook, local_address, route, started_ms };
    run.run().await
}

/// The servers to ask. The error is a status.
async fn target(target: &Target, r: &Request, local: &Local) -> Result<Rc<Peers>, u16> {
    let (value, named) = match target {
        Target::Fixed(upstream) => return local.peers(upstream).ok_or(500),
        Target::Computed { value, named } => (value, named),
    };
    let text = value.eval_bytes(r);
    let url = Url::parse(&text).map_err(|e| {
        let text = String::from_utf8_lossy(&text);
        r.log(Level::Error, format_args!("{e} in \"{text}\""));
        500_u16
    })?;
    let block = match &url.host {
        Host::Name(name) if url.port.is_none() => named.get(name),
        _ => None,
    };
    if let Some(upstream) = block {
        return local.peers(upstream).ok_or(500);
    }
    local.resolve(r, &url.host, url.port.unwrap_or(PORT)).await.map_err(|e| {
        r.log(Level::Error, format_args!("{e}"));
        502
    })
}

/// Attempts of another target before this one stay, set apart.
fn begin_exchange(r: &Request) {
    let mut upstream = r.upstream.borrow_mut();
    if !upstream.attempts.is_empty() {
        upstream.attempts.push(UpstreamAttempt::default());
    }
    upstream.exchange = None;
}

struct Run {
    s: Arc<Settings>,
    r: Rc<Request>,
    command: Command,
    bytes: Bytes,
    peers: Rc<Peers>,
    local: Rc<Local>,
    watch: Watch,
    hook: Option<Rc<Attempt>>,
    /// `memc_bind`.
    local_address: Option<SocketAddr>,
    /// What is special about the connection of the present attempt.
    route: Option<Rc<Route>>,
    started_ms: u64,
}

/// A server that was chosen.
struct Chosen {
    address: Address,
    claim: Option<Claim>,
}

/// A reply whose first part was read.
struct Got {
    reply: Reply,
    conn: Pooled<Conn>,
    buf: Vec<u8>,
    filled: usize,
}

/// Why an attempt gave no reply.
enum Failure {
    ClientLeft,
    /// A kept connection turned out closed before any byte came.
    Stale,
    /// The local address could not be had.
    Unbound,
    Case(NextUpstream),
}

impl From<NextUpstream> for Failure {
    fn from(case: NextUpstream) -> Failure {
        Failure::Case(case)
    }
}

impl Run {
    async fn run(mut self) -> Outcome {
        let mut selection = Selection::new();
        let mut tries = self.peers.with_group(|g| g.tries());
        if self.s.plain.tries_max() > 0 {
            tries = tries.min(self.s.plain.tries_max());
        }
        let mut key = Vec::new();
        if let Some(value) = &self.peers.upstream.key {
            value.eval(&self.r, &mut key);
        }
        loop {
            let chosen = match self.choose(&mut selection, &key, &mut tries).await {
                Ok(chosen) => chosen,
                Err(status) => return Outcome::Status(status),
            };
            let mut result = self.attempt(&chosen, false).await;
            if matches!(result, Err(Failure::Stale)) {
                result = self.attempt(&chosen, true).await;
            }
            let case = match result {
                Ok(got) => {
                    let is_missing = matches!(got.reply, Reply::Whole { status: 404, .. });
                    if !is_missing || tries <= 1 || !self.may_try(NextUpstream::HTTP_404) {
                        return self.deliver(&chosen, got).await;
                    }
                    self.keep(&chosen, got, true);
                    NextUpstream::HTTP_404
                }
                Err(Failure::ClientLeft) => {
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
            self.end_attempt(case.final_status());
            if let Some(claim) = &chosen.claim {
                let outcome = if case.spares_peer() { PeerOutcome::Ok } else { PeerOutcome::Failed };
                claim.peers.report(claim.index, outcome);
            }
            if let Some(hook) = &self.hook {
                hook.failed(case.spares_peer(), case.final_status());
            }
            tries = tries.saturating_sub(1);
            if tries == 0 || !self.may_try(case) {
                return Outcome::Status(case.final_status());
            }
        }
    }

    fn may_try(&self, case: NextUpstream) -> bool {
        let timeout_ms = self.s.plain.tries_timeout_ms();
        let elapsed_ms = clock::monotonic_ms().saturating_sub(self.started_ms);
        self.s.plain.next_upstream().contains(case) && (timeout_ms == 0 || elapsed_ms < timeout_ms)
    }

    /// The next server. The error is a status.
    async fn choose(
        &mut self,
        selection: &mut Selection,
        key: &[u8],
        tries: &mut usize,
    ) -> Result<Chosen, u16> {
        if let (Some(hook), Some(balancer)) = (&self.hook, &self.peers.upstream.balancer) {
            let asked = hook.ask(&**balancer, &self.r, *tries, self.s.plain.tries_max()).await?;
            *tries = asked.1;
            let host = hook.host.borrow().clone();
            self.route = Route::new(None, hook.local.get().or(self.local_address), host);
            if let Some(address) = asked.0 {
                self.begin_attempt(address.to_string());
                return Ok(Chosen { address: to_upstream(address), claim: None });
            }
            if !self.peers.upstream.has_servers {
                self.log("lua balancer: no peer set while connecting to upstream");
                return Err(INTERNAL);
            }
        }
        let input = Input { key, address: self.r.peer_ip(), random: self.local.random() };
        let found = self.peers.with_group(|g| {
            let index = selection.next(g, input, clock::monotonic_ms() + EPOCH_MS)?;
            let spec = g.peer(index)?.spec();
            Some((index, spec.address.clone(), spec.name.clone()))
        });
        let Some((index, address, name)) = found else {
            self.begin_attempt(self.peers.upstream.name.clone());
            self.log("no live upstreams while connecting to upstream");
            self.end_attempt(502);
            return Err(502);
        };
        self.begin_attempt(name);
        Ok(Chosen { address, claim: Some(Claim { peers: Rc::clone(&self.peers), index }) })
    }

    fn begin_attempt(&self, address: String) {
        self.r.upstream.borrow_mut().attempts.push(UpstreamAttempt { address, ..Default::default() });
    }

    /// Changes the present attempt's figures.
    fn note(&self, f: impl FnOnce(&mut UpstreamAttempt)) {
        if let Some(attempt) = self.r.upstream.borrow_mut().attempts.last_mut() {
            f(attempt);
        }
    }

    fn elapsed_ms(&self) -> u64 {
        clock::monotonic_ms().saturating_sub(self.started_ms)
    }

    fn end_attempt(&self, status: u16) {
        let elapsed_ms = self.elapsed_ms();
        self.note(|a| {
            a.status = status;
            a.response_ms = Some(elapsed_ms);
        });
    }

    fn log(&self, message: &str) {
        self.r.log(Level::Error, format_args!("{message}"));
    }

    /// What a wait that broke off means.
    fn broken(&self, why: Broken, call: &str, doing: &str) -> Failure {
        match why {
            Broken::ClientLeft => Failure::ClientLeft,
            Broken::Timeout => {
                self.log(&format!("upstream timed out (110: Connection timed out) while {doing}"));
                NextUpstream::TIMEOUT.into()
            }
            Broken::Io(e) => {
                self.log(&format!("{call} failed {} while {doing}", OsError(&e)));
                NextUpstream::ERROR.into()
            }
        }
    }

    /// Connects, sends, and reads the first part of the reply.
    async fn attempt(&self, chosen: &Chosen, fresh: bool) -> Result<Got, Failure> {
        let kept =
            if fresh { None } else { self.peers.take(&chosen.address, self.route.as_ref(), self.keep_by()) };
        let is_kept = kept.is_some();
        let mut conn = match kept {
            Some(conn) => conn,
            None => self.connect(&chosen.address).await?,
        };
        let connect_ms = self.elapsed_ms();
        self.note(|a| a.connect_ms = Some(connect_ms));
        let stale = |failure| {
            if is_kept && matches!(failure, Failure::Case(NextUpstream::ERROR)) {
                Failure::Stale
            } else {
                failure
            }
        };
        self.send(&mut conn.connection).await.map_err(stale)?;
        let size = usize::try_from(self.s.plain.buffer_bytes()).unwrap_or(usize::MAX);
        let mut buf = self.local.take_buffer(size);
        let mut filled = 0;
        match self.read_reply(&mut conn.connection, &mut buf, &mut filled).await {
            Ok(reply) => Ok(Got { reply, conn, buf, filled }),
            Err(failure) => {
                self.local.give_buffer(buf);
                Err(if filled == 0 { stale(failure) } else { failure })
            }
        }
    }

    /// How long the balancer keeps the connection of the present attempt, if it does.
    fn keep_by(&self) -> Option<Keepalive> {
        self.hook.as_ref().and_then(|hook| hook.keepalive.get())
    }

    fn timeout(&self, of_hook: impl FnOnce(&Attempt) -> Option<u64>, own_ms: u64) -> u64 {
        self.hook.as_deref().and_then(of_hook).unwrap_or(own_ms)
    }

    async fn connect(&self, address: &Address) -> Result<Pooled<Conn>, Failure> {
        let timeout_ms = self.timeout(|h| h.connect_timeout_ms.get(), self.s.plain.connect_timeout_ms());
        let to = to_net(address);
        let local = self.route.as_ref().and_then(|route| route.local);
        let mut connecting = pin!(terrace_net::connect_from(&to, local, timeout_ms));
        let mut timer = Timer::new();
        let until = deadline(timeout_ms.saturating_add(1000));
        let done = self.watch.wait(&mut timer, until, |cx| connecting.as_mut().poll(cx).map(Ok)).await;
        let doing = "connecting to upstream";
        match done {
            Ok(Ok(stream)) => {
                let conn = Conn { stream, timer: Timer::new(), route: self.route.clone() };
                Ok(Pooled::new(conn, clock::monotonic_ms()))
            }
            Ok(Err(ConnectError::Io(e))) => Err(self.broken(Broken::Io(e), "connect()", doing)),
            Ok(Err(ConnectError::Bind(e))) => {
                self.r.log(Level::Crit, format_args!("{}", unbound(local, &e)));
                Err(Failure::Unbound)
            }
            Ok(Err(ConnectError::Timeout)) => Err(self.broken(Broken::Timeout, "", doing)),
            Err(why) => Err(self.broken(why, "connect()", doing)),
        }
    }

    async fn send(&self, conn: &mut Conn) -> Result<(), Failure> {
        let mut sent = 0;
        let Conn { stream, timer, .. } = conn;
        while sent < self.bytes.len() {
            let until = deadline(self.timeout(|h| h.send_timeout_ms.get(), self.s.plain.send_timeout_ms()));
            let step = self.watch.wait(timer, until, |cx| stream.poll_write(cx, &self.bytes[sent..]));
            match step.await {
                Ok(n) => sent += n,
                Err(why) => return Err(self.broken(why, "send()", "sending request to upstream")),
            }
        }
        self.note(|a| a.sent_bytes = sent as u64);
        Ok(())
    }

    async fn read_reply(
        &self,
        conn: &mut Conn,
        buf: &mut [u8],
        filled: &mut usize,
    ) -> Result<Reply, Failure> {
        let doing = "reading response header from upstream";
        loop {
            if *filled == buf.len() {
                self.log("memcached sent a reply that is too long");
                return Err(NextUpstream::INVALID_HEADER.into());
            }
            let read = self.read(conn, &mut buf[*filled..]).await;
            match read.map_err(|why| self.broken(why, "recv()", doing))? {
                0 => {
                    self.log(&format!("upstream prematurely closed connection while {doing}"));
                    return Err(NextUpstream::ERROR.into());
                }
                n => *filled += n,
            }
            match command::parse(self.command.name, &self.command.key, &buf[..*filled]) {
                Reply::Partial => {}
                Reply::Invalid => {
                    let line = buf[..*filled].split(|b| *b == b'\r').next().unwrap_or_default();
                    let line = String::from_utf8_lossy(line);
                    self.log(&format!("memcached sent invalid response: \"{line}\" while {doing}"));
                    return Err(NextUpstream::INVALID_HEADER.into());
                }
                reply => {
                    let header_ms = self.elapsed_ms();
                    self.note(|a| a.header_ms = Some(header_ms));
                    return Ok(reply);
                }
            }
        }
    }

    async fn read(&self, conn: &mut Conn, buf: &mut [u8]) -> Result<usize, Broken> {
        let Conn { stream, timer, .. } = conn;
        let until = deadline(self.timeout(|h| h.read_timeout_ms.get(), self.s.plain.read_timeout_ms()));
        let n = self.watch.wait(timer, until, |cx| stream.poll_read(cx, buf)).await?;
        self.note(|a| a.received_bytes += n as u64);
        Ok(n)
    }

    async fn deliver(&self, chosen: &Chosen, mut got: Got) -> Outcome {
        let r = &self.r;
        let (at, len, flags) = match got.reply {
            Reply::Value { at, len, flags } => (at, len, flags),
            Reply::Whole { len, status } => {
                self.note(|a| a.status = status);
                let body = Bytes::copy_from_slice(&got.buf[..len]);
                let is_clean = got.filled == len && status != 502;
                self.keep(chosen, got, is_clean);
                if status == 404 {
                    let key = String::from_utf8_lossy(&self.command.key);
                    r.log(Level::Info, format_args!("key: \"{key}\" was not found by memcached"));
                    return Outcome::Status(404);
                }
                r.headers_out.status.set(status);
                r.respond(body).get().await;
                return Outcome::Done;
            }
            Reply::Partial | Reply::Invalid => return Outcome::Status(502),
        };
        self.note(|a| a.status = 200);
        self.set_header(len, flags);
        r.send_header().get().await;
        let is_whole = self.pass_value(&mut got, at, len).await;
        self.keep(chosen, got, is_whole);
        if !is_whole && !r.header_only.get() {
            r.abort();
        }
        Outcome::Done
    }

    fn set_header(&self, len: u64, flags: u32) {
        let (r, plain) = (&self.r, &self.s.plain);
        let h = &r.headers_out;
        h.status.set(200);
        r.set_default_type();
        h.content_length.set(Some(len));
        if plain.flags_to_last_modified() {
            h.last_modified.set(Some(u64::from(flags)));
        }
        if flags & plain.gzip_flag() != 0 {
            h.add(&b"Content-Encoding"[..], &b"gzip"[..]);
        }
        if !self.s.only_gets {
            let text = Bytes::from(flags.to_string());
            r.generation().vars.set(r, self.s.variables.flags, Some(text));
        }
    }

    /// Passes a value on, and reads the end behind it. False where the connection is of no more use.
    async fn pass_value(&self, got: &mut Got, at: usize, len: u64) -> bool {
        let (mut at, mut left) = (at, len);
        let mut end: &[u8] = VALUE_END;
        loop {
            let data = &got.buf[at..got.filled];
            let part = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
            left -= part as u64;
            if part > 0 && !self.r.header_only.get() {
                let chunk = Chunk { data: Bytes::copy_from_slice(&data[..part]), ..Chunk::default() };
                if !self.r.send(chunk).get().await {
                    return false;
                }
                self.note(|a| a.response_bytes += part as u64);
            }
            let rest = &got.buf[at + part..got.filled];
            let Some(behind) = end.strip_prefix(rest) else {
                self.log("memcached sent invalid trailer");
                return false;
            };
            end = behind;
            if left == 0 && end.is_empty() {
                return true;
            }
            if self.r.header_only.get() {
                return false;
            }
            at = 0;
            let Got { conn, buf, filled, .. } = got;
            let doing = "reading upstream";
            match self.read(&mut conn.connection, buf).await {
                Ok(0) => {
                    self.log(&format!("upstream prematurely closed connection while {doing}"));
                    return false;
                }
                Ok(n) => *filled = n,
                Err(why) => {
                    // What it means for other servers is of no interest any more.
                    let _ = self.broken(why, "recv()", doing);
                    return false;
                }
            }
        }
    }

    /// Ends the exchange; a connection that is in order is kept for the next one.
    fn keep(&self, chosen: &Chosen, got: Got, is_clean: bool) {
        let elapsed_ms = self.elapsed_ms();
        self.note(|a| a.response_ms = Some(elapsed_ms));
        if let Some(claim) = &chosen.claim {
            claim.peers.report(claim.index, PeerOutcome::Ok);
        }
        self.local.give_buffer(got.buf);
        if is_clean {
            self.peers.put(chosen.address.clone(), got.conn, self.keep_by());
        }
    }
}
