//! One request, alive from its head to its log line. Shared by handlers through `Rc`, changed through cells; it
//! never leaves its worker.

use std::any::Any;
use std::cell::{Cell, Ref, RefCell};
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use smallvec::SmallVec;
use terrace_base::clock;
use terrace_http1::{Framing, KnownHeader, Method, Span, Version};
use terrace_net::Address;
use terrace_regex::Regex;

use crate::body::RequestBody;
use crate::conf::slots::Merge;
use crate::connection::Client;
use crate::generation::{Generation, Location, Server, ServerIndex};
use crate::headers_in::{HeadersIn, SentHead};
use crate::headers_out::HeadersOut;
use crate::location_tree::LocationIndex;
use crate::output::Output;
use crate::typemap::TypeMap;
use crate::vars::{Slot, VarIndex};
use crate::worker::Worker;

/// Text that is a part of the head as sent, or was put in its place.
#[derive(Debug, Clone)]
pub enum Text {
    /// Where it stands in the head's buffer.
    Sent(Span),
    /// What replaced it.
    Owned(Bytes),
}

/// A borrowed [`Text`]; it reads as bytes.
pub enum TextRef<'a> {
    /// Bytes of the head.
    Sent(&'a [u8]),
    /// What replaced them.
    Owned(Ref<'a, Text>),
}

impl Deref for TextRef<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            TextRef::Sent(b) => b,
            TextRef::Owned(text) => match &**text {
                Text::Owned(b) => b,
                Text::Sent(_) => &[],
            },
        }
    }
}

/// The captures of the last regex that matched: the subject's text and the ranges in it.
#[derive(Debug, Default)]
pub struct Captures {
    subject: Vec<u8>,
    groups: terrace_regex::Captures,
}

impl Captures {
    /// Matches; on a match the subject is kept. A regex that fails at run time (a limit) counts as no match.
    pub fn exec(&mut self, regex: &Regex, subject: &[u8]) -> bool {
        if !matches!(regex.exec(subject, 0, &mut self.groups), Ok(Some(_))) {
            return false;
        }
        self.subject.clear();
        self.subject.extend_from_slice(subject);
        true
    }

    /// The text of a group.
    pub fn group(&self, n: usize) -> Option<&[u8]> {
        self.subject.get(self.groups.range(n)?)
    }

    /// One more than the highest group that took part.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    fn has_memory(&self) -> bool {
        self.subject.capacity() > 0 || !self.groups.is_empty()
    }

    /// Whether nothing has matched.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// Where to go on after a redirect within the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// The server's rewrite phase, then a location is found.
    Server,
    /// This (named) location.
    Location(LocationIndex),
}

/// What a module that asks upstream servers keeps with the request. Unlike other state it outlives redirects within
/// the server, so that an error page can look at the response that led to it.
pub trait Exchange: Any {
    /// The scheme, for the error log.
    fn scheme(&self) -> &'static str {
        "http"
    }

    /// Appends the URI sent upstream, for the error log.
    fn append_uri(&self, out: &mut String);
}

/// Attempts at upstream servers, which variables and logs report.
#[derive(Default)]
pub struct Upstreamed {
    /// One entry an attempt: address, status, times in ms, bytes.
    pub attempts: Vec<UpstreamAttempt>,
    /// What the module keeps of the last exchange.
    pub exchange: Option<Rc<dyn Exchange>>,
}

impl Upstreamed {
    fn is_used(&self) -> bool {
        !self.attempts.is_empty() || self.exchange.is_some()
    }
}

/// One try at an upstream server, for `$upstream_*`.
#[derive(Debug, Clone, Default)]
pub struct UpstreamAttempt {
    /// `$upstream_addr`
    pub address: String,
    /// `$upstream_status`; 0 when there was none.
    pub status: u16,
    /// `$upstream_connect_time`
    pub connect_ms: Option<u64>,
    /// `$upstream_header_time`
    pub header_ms: Option<u64>,
    /// `$upstream_response_time`
    pub response_ms: Option<u64>,
    /// `$upstream_response_length`
    pub response_bytes: u64,
    /// `$upstream_bytes_received`
    pub received_bytes: u64,
    /// `$upstream_bytes_sent`
    pub sent_bytes: u64,
}

/// One request: of a client, or within the server.
pub struct Request {
    /// The worker, its generation, its pools.
    pub worker: Rc<Worker>,
    /// The client's connection; none for requests that no client made (timers, workers' start).
    pub client: Option<Rc<Client>>,
    /// The request this one is a part of.
    pub parent: Option<Weak<Request>>,
    /// Header fields of the request.
    pub headers_in: HeadersIn,
    /// Header of the response.
    pub headers_out: HeadersOut,
    /// The response's body on its way out.
    pub output: Output,
    /// The request's body.
    pub body: RequestBody,
    /// HTTP version as sent.
    pub version: Cell<Version>,
    /// Whether the connection may serve another request after this one.
    pub keep_alive: Cell<bool>,
    /// Whether the URI is one that clients may not ask for directly (`internal`).
    pub internal: Cell<bool>,
    /// Whether `rewrite` changed the URI, so that a location must be found anew.
    pub uri_changed: Cell<bool>,
    /// Whether the URI is a name below the `alias` of a regex location, which `try_files` found there.
    pub aliases_uri: Cell<bool>,
    /// Whether `If-Modified-Since` and its like are not looked at.
    pub bypasses_conditions: Cell<bool>,
    /// Whether an `error_page` is being served.
    pub error_page: Cell<bool>,
    /// Whether the response is for the header only.
    pub header_only: Cell<bool>,
    /// How often the URI has changed by redirects within the server.
    pub redirects: Cell<u8>,
    /// Depth of subrequests.
    pub depth: u8,
    /// Start, monotonic ms.
    pub started_ms: u64,
    /// Attempts at upstream servers.
    pub upstream: RefCell<Upstreamed>,
    method: RefCell<Text>,
    uri: RefCell<Text>,
    args: RefCell<Text>,
    sent_target: Span,
    line: Span,
    host: RefCell<Text>,
    server: Cell<ServerIndex>,
    location: Cell<LocationIndex>,
    entry: Cell<Entry>,
    forced_status: Cell<u16>,
    captures: RefCell<Captures>,
    slots: RefCell<Vec<Slot>>,
    /// Whether an error is its status alone, without a page.
    pub(crate) bare_errors: Cell<bool>,
    /// Whether variables are the parent's.
    pub(crate) shares_slots: Cell<bool>,
    state: RefCell<TypeMap>,
    peer: Cell<Option<IpAddr>>,
    is_replaced: Cell<bool>,
    is_located: Cell<bool>,
    id: Cell<Option<[u8; 16]>>,
}

/// How many redirects within the server a request may take (nginx's `NGX_HTTP_MAX_URI_CHANGES`).
pub const REDIRECTS_MAX: u8 = 10;

impl Request {
    /// A client's request, in one of the worker's that are blank. `uri` is the normalised path if it differs from what
    /// was sent.
    pub fn from_head(
        client: Rc<Client>,
        server: ServerIndex,
        sent: Box<SentHead>,
        uri: Option<Bytes>,
    ) -> Rc<Request> {
        let worker = &client.worker;
        let mut blank = worker
            .take_request()
            .unwrap_or_else(|| Rc::new(Request::blank(Rc::clone(worker), server, clock::monotonic_ms())));
        let r = Rc::get_mut(&mut blank).unwrap_or_else(|| unreachable!("nobody else has a blank request"));
        let head = &sent.head;
        let line = &head.line;
        r.server = Cell::new(server);
        r.location = Cell::new(client.worker.generation.server(server).root);
        r.started_ms = clock::monotonic_ms();
        r.method = RefCell::new(Text::Sent(line.method_name));
        r.uri = RefCell::new(uri.map_or(Text::Sent(line.path), Text::Owned));
        r.args = RefCell::new(Text::Sent(line.args.unwrap_or_default()));
        r.host = RefCell::new(Text::Sent(head.host.unwrap_or_default()));
        r.sent_target = line.target;
        r.line = line.whole;
        r.version = Cell::new(line.version);
        r.keep_alive = Cell::new(head.keep_alive);
        r.header_only = Cell::new(line.method == Method::Head);
        if !matches!(head.framing, Framing::None) || head.expect_continue {
            r.body = RequestBody::new(head.framing, head.expect_continue);
        }
        r.headers_in.begin(sent);
        r.client = Some(client);
        blank
    }

    /// Makes a client's request, which has ended, blank for another one, and gives its head back.
    pub(crate) fn recycle(&mut self) -> Option<Box<SentHead>> {
        // Every field is named: none may carry over by oversight.
        let Request {
            worker: _,
            client,
            parent,
            headers_in,
            headers_out,
            output,
            body,
            internal,
            uri_changed,
            aliases_uri,
            bypasses_conditions,
            error_page,
            redirects,
            depth,
            upstream,
            entry,
            forced_status,
            captures,
            slots,
            bare_errors,
            shares_slots,
            state,
            peer,
            is_replaced,
            is_located,
            id,
            // What `from_head` sets.
            version: _,
            keep_alive: _,
            header_only: _,
            started_ms: _,
            method: _,
            uri: _,
            args: _,
            sent_target: _,
            line: _,
            host: _,
            server: _,
            location: _,
        } = self;
        *client = None;
        *parent = None;
        headers_out.recycle();
        *output = Output::default();
        body.recycle();
        *internal = Cell::new(false);
        *uri_changed = Cell::new(false);
        *aliases_uri = Cell::new(false);
        *bypasses_conditions = Cell::new(false);
        *error_page = Cell::new(false);
        *redirects = Cell::new(0);
        *depth = 0;
        if upstream.get_mut().is_used() {
            *upstream = RefCell::default();
        }
        *entry = Cell::new(Entry::Server);
        *forced_status = Cell::new(0);
        if captures.get_mut().has_memory() {
            *captures = RefCell::default();
        }
        slots.get_mut().clear();
        *bare_errors = Cell::new(false);
        *shares_slots = Cell::new(false);
        state.get_mut().clear();
        *peer = Cell::new(None);
        *is_replaced = Cell::new(false);
        *is_located = Cell::new(true);
        *id = Cell::new(None);
        headers_in.recycle()
    }

    /// A request that no client made: the carrier of a timer, of a worker's start, or (by the fields a caller
    /// then sets) of a subrequest.
    pub fn detached(worker: &Rc<Worker>, server: ServerIndex) -> Rc<Request> {
        Rc::new(Request::blank(Rc::clone(worker), server, clock::monotonic_ms()))
    }

    /// The carrier of an answer to bytes that are no request; `buf` holds them.
    pub(crate) fn refused(client: Rc<Client>, server: ServerIndex, sent: Box<SentHead>) -> Rc<Request> {
        let worker = Rc::clone(&client.worker);
        let mut r = Request::blank(worker, server, clock::monotonic_ms());
        let end = memchr::memchr2(b'\r', b'\n', &sent.buf).unwrap_or(sent.buf.len());
        r.line = Span::new(0, end);
        r.header_only = Cell::new(sent.buf.starts_with(b"HEAD "));
        r.headers_in = HeadersIn::new(sent);
        r.client = Some(client);
        Rc::new(r)
    }

    pub(crate) fn blank(worker: Rc<Worker>, server: ServerIndex, started_ms: u64) -> Request {
        let location = worker.generation.server(server).root;
        Request {
            worker,
            client: None,
            parent: None,
            headers_in: HeadersIn::default(),
            headers_out: HeadersOut::default(),
            output: Output::default(),
            body: RequestBody::empty(),
            version: Cell::new(Version::Http11),
            keep_alive: Cell::new(false),
            internal: Cell::new(false),
            uri_changed: Cell::new(false),
            aliases_uri: Cell::new(false),
            bypasses_conditions: Cell::new(false),
            error_page: Cell::new(false),
            header_only: Cell::new(false),
            redirects: Cell::new(0),
            depth: 0,
            started_ms,
            upstream: RefCell::default(),
            method: RefCell::new(Text::Owned(Bytes::from_static(b"GET"))),
            uri: RefCell::new(Text::Owned(Bytes::from_static(b"/"))),
            args: RefCell::new(Text::Sent(Span::default())),
            sent_target: Span::default(),
            line: Span::default(),
            host: RefCell::new(Text::Sent(Span::default())),
            server: Cell::new(server),
            location: Cell::new(location),
            entry: Cell::new(Entry::Server),
            forced_status: Cell::new(0),
            captures: RefCell::default(),
            slots: RefCell::default(),
            bare_errors: Cell::new(false),
            shares_slots: Cell::new(false),
            state: RefCell::default(),
            peer: Cell::new(None),
            is_replaced: Cell::new(false),
            is_located: Cell::new(true),
            id: Cell::new(None),
        }
    }

    /// The generation this request belongs to.
    pub fn generation(&self) -> &Generation {
        &self.worker.generation
    }

    /// The virtual server.
    pub fn server(&self) -> &Server {
        self.worker.generation.server(self.server.get())
    }

    /// Its index.
    pub fn server_index(&self) -> ServerIndex {
        self.server.get()
    }

    /// The location; before one is found, the server's own settings.
    pub fn location(&self) -> &Location {
        self.worker.generation.location(self.location.get())
    }

    /// Its index.
    pub fn location_index(&self) -> LocationIndex {
        self.location.get()
    }

    /// Puts the request into a location (found, named, or of an `if`).
    pub fn set_location(&self, location: LocationIndex) -> &Location {
        self.is_located.set(true);
        self.location.set(location);
        self.aliases_uri.set(false);
        self.limit_keep_alive()
    }

    /// Makes the location's limits of the connection those in force: its timeouts, and whether it stays open at all.
    pub(crate) fn limit_keep_alive(&self) -> &Location {
        let location = self.location();
        if let Some(client) = self.client.as_ref().filter(|_| !self.is_subrequest()) {
            client.location.set(self.location.get());
            let core = &location.core;
            if core.keepalive_timeout_ms == 0 || client.requests.get() >= core.keepalive_requests {
                self.keep_alive.set(false);
            }
        }
        location
    }

    /// A module's settings at the request's location.
    pub fn settings<T: Merge>(&self) -> Option<&T> {
        self.location().settings.find::<T>()
    }

    fn text<'a>(&'a self, text: &'a RefCell<Text>) -> TextRef<'a> {
        let text = text.borrow();
        if let Text::Sent(span) = *text {
            return TextRef::Sent(span.of(self.headers_in.buffer()));
        }
        TextRef::Owned(text)
    }

    /// The method's name.
    pub fn method(&self) -> TextRef<'_> {
        self.text(&self.method)
    }

    /// Changes the method.
    pub fn set_method(&self, method: impl Into<Bytes>) {
        let method = method.into();
        self.header_only.set(&method[..] == b"HEAD");
        self.method.replace(Text::Owned(method));
    }

    /// The path, decoded and normalised (`$uri`).
    pub fn uri(&self) -> TextRef<'_> {
        self.text(&self.uri)
    }

    /// Changes the path.
    pub fn set_uri(&self, uri: impl Into<Bytes>) {
        self.is_replaced.set(true);
        self.is_located.set(false);
        self.uri.replace(Text::Owned(uri.into()));
    }

    /// The query string (`$args`).
    pub fn args(&self) -> TextRef<'_> {
        self.text(&self.args)
    }

    /// Changes the query string.
    pub fn set_args(&self, args: impl Into<Bytes>) {
        self.is_replaced.set(true);
        self.args.replace(Text::Owned(args.into()));
    }

    /// The host: of the request line or the `Host` field, without the port, as sent.
    pub fn host(&self) -> TextRef<'_> {
        self.text(&self.host)
    }

    /// Changes the host (`Host` set by a script).
    pub fn set_host(&self, host: &[u8]) {
        self.host.replace(Text::Owned(Bytes::copy_from_slice(host)));
    }

    /// The status that an `error_page` overrides the page's own with; 0 leaves the page's.
    pub fn error_status(&self, status: u16) {
        self.forced_status.set(status);
    }

    /// The status of the error whose page is being served; 0 when none is forced.
    pub fn forced_status(&self) -> u16 {
        self.forced_status.get()
    }

    /// Whether the URI is the one the client sent: unchanged by rewrites and redirects.
    pub fn is_uri_as_sent(&self) -> bool {
        !self.sent_target.is_empty()
            && self.redirects.get() == 0
            && !self.internal.get()
            && !self.is_replaced.get()
    }

    /// Whether the location was found by the present URI (nginx's `valid_location`): not after a `rewrite … break`.
    pub fn is_uri_of_location(&self) -> bool {
        self.is_located.get()
    }

    /// The target as the client sent it (`$request_uri`); of a subrequest, the main request's.
    pub fn target_as_sent(&self, out: &mut Vec<u8>) {
        match self.main() {
            Some(main) => main.target_as_sent(out),
            None => out.extend_from_slice(self.sent_target.of(self.headers_in.buffer())),
        }
    }

    /// The request line as sent (`$request`), without its line end; empty where no client sent one.
    pub fn line(&self) -> &[u8] {
        self.line.of(self.headers_in.buffer())
    }

    /// The request that this one is, in the end, a part of.
    pub fn main(&self) -> Option<Rc<Request>> {
        let parent = self.parent.as_ref()?.upgrade()?;
        Some(parent.main().unwrap_or(parent))
    }

    /// Whether this is a subrequest.
    pub fn is_subrequest(&self) -> bool {
        self.parent.is_some()
    }

    /// The client's IP address, as seen on the connection or set by [`Request::set_peer`].
    pub fn peer_ip(&self) -> Option<IpAddr> {
        self.peer.get().or_else(|| match &self.client.as_ref()?.peer {
            Address::Ip(a) => Some(a.ip()),
            Address::Unix(_) => None,
        })
    }

    /// Replaces the client's address (`set_real_ip_from`).
    pub fn set_peer(&self, ip: IpAddr) {
        self.peer.set(Some(ip));
    }

    /// Appends a variable's value; false when it has none.
    pub fn append_var(&self, index: VarIndex, out: &mut Vec<u8>) -> bool {
        self.generation().vars.get(self, index, out)
    }

    /// Appends the text of a regex capture, if there is one.
    pub fn append_capture(&self, n: usize, out: &mut Vec<u8>) {
        if let Some(t) = self.captures.borrow().group(n) {
            out.extend_from_slice(t);
        }
    }

    /// The captures of the last match.
    pub fn captures(&self) -> &RefCell<Captures> {
        &self.captures
    }

    /// Runs `regex` over `subject`; on a match its captures become `$1` … and its named groups variables.
    pub fn match_regex(&self, regex: &Regex, names: &[(VarIndex, usize)], subject: &[u8]) -> bool {
        if !self.captures.borrow_mut().exec(regex, subject) {
            return false;
        }
        for (var, group) in names {
            let value = self.captures.borrow().group(*group).map(Bytes::copy_from_slice);
            self.generation().vars.set(self, *var, value);
        }
        true
    }

    /// Whose variables these are, if not this request's own.
    fn slots_of(&self) -> Option<Rc<Request>> {
        if self.shares_slots.get() { self.parent.as_ref()?.upgrade() } else { None }
    }

    pub(crate) fn slot<R>(&self, slot: u32, f: impl FnOnce(&Slot) -> R) -> R {
        if let Some(owner) = self.slots_of() {
            return owner.slot(slot, f);
        }
        f(self.slots.borrow().get(slot as usize).unwrap_or(&Slot::Unset))
    }

    pub(crate) fn put_slot(&self, slot: u32, value: Slot) {
        if let Some(owner) = self.slots_of() {
            return owner.put_slot(slot, value);
        }
        let mut slots = self.slots.borrow_mut();
        if slots.is_empty() {
            slots.resize_with(self.generation().vars.slots(), Slot::default);
        }
        if let Some(s) = slots.get_mut(slot as usize) {
            *s = value;
        }
    }

    pub(crate) fn copy_slots_from(&self, other: &Request) {
        if let Some(owner) = other.slots_of() {
            return self.copy_slots_from(&owner);
        }
        *self.slots.borrow_mut() = other.slots.borrow().clone();
    }

    /// A module's state of this request.
    pub fn state<T: 'static>(&self) -> Option<Rc<T>> {
        self.state.borrow().find()
    }

    /// Keeps a module's state with this request.
    pub fn put_state<T: 'static>(&self, value: Rc<T>) {
        self.state.borrow_mut().put(value);
    }

    /// Goes to another URI within the server (nginx's internal redirect). The caller answers
    /// [`crate::Outcome::Redirected`].
    pub fn redirect_to_uri(&self, uri: impl Into<Bytes>, args: impl Into<Bytes>) {
        self.set_uri(uri);
        self.set_args(args);
        self.begin_redirect(Entry::Server);
        self.set_location(self.server().root);
    }

    /// Goes to a named location, keeping the URI. False when there is none of that name.
    pub fn redirect_to_named(&self, name: &[u8]) -> bool {
        let Some(location) = self.server().named(name) else {
            return false;
        };
        self.begin_redirect(Entry::Location(location));
        true
    }

    fn begin_redirect(&self, entry: Entry) {
        self.internal.set(true);
        self.output.allow_replacement();
        self.uri_changed.set(false);
        self.redirects.set(self.redirects.get().saturating_add(1));
        self.state.borrow_mut().clear();
        self.entry.set(entry);
    }

    pub(crate) fn entry(&self) -> Entry {
        self.entry.get()
    }

    pub(crate) fn set_entry(&self, entry: Entry) {
        self.entry.set(entry);
    }

    /// Sets `Content-Type` from the extension of the URI and the location's `types` and `default_type`, where the
    /// response has none yet.
    pub fn set_default_type(&self) {
        let mut content_type = self.headers_out.content_type.borrow_mut();
        if content_type.is_none() {
            let core = &self.location().core;
            let uri = self.uri();
            let found = extension(&uri).and_then(|e| core.types.find(e));
            let chosen = found.unwrap_or(&core.default_type);
            if !chosen.is_empty() {
                // Interned: the copy is free.
                *content_type = Some(chosen.clone());
            }
        }
    }

    /// The file that the URI names by `root` or `alias` (`$request_filename`).
    pub fn filename(&self, uri: &[u8]) -> Vec<u8> {
        self.location().core.filename(self, uri)
    }

    /// The size of the head as sent, in bytes.
    pub fn head_bytes(&self) -> u64 {
        self.headers_in.head_bytes() as u64
    }

    /// Body bytes given to the client so far; of a subrequest none.
    pub fn body_bytes_sent(&self) -> u64 {
        if self.header_only.get() { 0 } else { self.output.body_bytes() }
    }

    /// 32 hexadecimal digits that are this request's alone (`$request_id`); a subrequest has its main request's.
    pub fn id(&self) -> String {
        if let Some(main) = self.main() {
            return main.id();
        }
        let id = self.id.get().unwrap_or_else(random_id);
        self.id.set(Some(id));
        id.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Elapsed time, ms.
    pub fn elapsed_ms(&self) -> u64 {
        clock::monotonic_ms().saturating_sub(self.started_ms)
    }

    /// The value of a request's header field as a short-lived copy; for fields looked at rarely.
    pub fn header(&self, id: KnownHeader) -> Option<SmallVec<[u8; 64]>> {
        self.headers_in.with(id, SmallVec::from_slice)
    }
}

fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    // Without the system's randomness ids are all zero; they are for tracing only.
    let _ = getrandom::fill(&mut id);
    id
}

/// The extension of a URI's last segment: what follows its last dot.
pub fn extension(uri: &[u8]) -> Option<&[u8]> {
    let at = uri.iter().rposition(|b| matches!(b, b'.' | b'/')).filter(|at| uri[*at] == b'.')?;
    (at + 1 < uri.len()).then(|| &uri[at + 1..])
}
