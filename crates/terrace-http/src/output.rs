//! The response's way out: header filters, body filters, framing, the connection's buffer.
//!
//! A response begins when its header is *ready*: the filters have run and scripts may no longer change it.
//! Bytes collect in the connection's buffer, so that a response that is ready leaves in one write.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use terrace_http1::{KnownHeader, Version, encode};

use crate::phase::{Chunk, Step};
use crate::status::is_bodiless;
use crate::{Request, head_writer};

/// Beyond this many unsent bytes a writer waits for the client.
const HIGH_WATER_BYTES: usize = 64 * 1024;
/// An HTTP/1.0 response of unknown length is held back up to this size, to give it a `Content-Length`.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// How the body is framed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// The header is not ready.
    #[default]
    Unstarted,
    /// There is no body (HEAD, 204, 304).
    Bodiless,
    /// This many bytes are still to come.
    Length(u64),
    /// Chunked.
    Chunked,
    /// Until the connection closes.
    UntilClose,
    /// HTTP/1.0: held back until the length is known.
    Held,
    /// A subrequest: its parent wants the body.
    Captured,
    /// Nobody listens.
    Nowhere,
}

/// State of a response's output.
#[derive(Debug)]
pub struct Output {
    /// Whether an HTTP/1.0 response of unknown length is held back until its length is known (the default), rather than
    /// sent until the connection closes. Counts when the response begins.
    pub hold_back: Cell<bool>,
    mode: Cell<Mode>,
    starting: Cell<bool>,
    finished: Cell<bool>,
    aborted: Cell<bool>,
    taken_over: Cell<bool>,
    /// The status of the response that a header filter wants instead; 0 for none.
    replacement: Cell<u16>,
    is_replaced: Cell<bool>,
    /// Whether no body filter has anything to do for the response, which is known once its header is ready.
    is_unfiltered: Cell<bool>,
    held: RefCell<Vec<u8>>,
    body_bytes: Cell<u64>,
    head_bytes: Cell<u64>,
}

impl Default for Output {
    fn default() -> Output {
        Output {
            hold_back: Cell::new(true),
            mode: Cell::default(),
            starting: Cell::default(),
            finished: Cell::default(),
            aborted: Cell::default(),
            taken_over: Cell::default(),
            replacement: Cell::default(),
            is_replaced: Cell::default(),
            is_unfiltered: Cell::default(),
            held: RefCell::default(),
            body_bytes: Cell::default(),
            head_bytes: Cell::default(),
        }
    }
}

impl Output {
    /// Whether the header is ready: sent, or about to be with the first bytes.
    pub fn is_started(&self) -> bool {
        self.starting.get() || self.mode.get() != Mode::Unstarted
    }

    /// Whether the last byte of the body was given.
    pub fn is_finished(&self) -> bool {
        self.finished.get() && !self.aborted.get()
    }

    /// Whether the response was given up in the middle; see [`Request::abort`].
    pub fn is_aborted(&self) -> bool {
        self.aborted.get()
    }

    /// Whether the connection is a script's; see [`Request::take_over`].
    pub fn is_taken_over(&self) -> bool {
        self.taken_over.get()
    }

    /// Body bytes given so far (`$body_bytes_sent`).
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes.get()
    }

    /// Header and framing bytes so far.
    pub fn head_bytes(&self) -> u64 {
        self.head_bytes.get()
    }

    /// The body of a finished subrequest.
    pub fn take_captured(&self) -> Vec<u8> {
        self.held.take()
    }

    /// Lets header filters replace the response once more: the request goes on elsewhere.
    pub(crate) fn allow_replacement(&self) {
        self.is_replaced.set(false);
    }

    /// How the body is framed.
    pub fn mode(&self) -> Mode {
        self.mode.get()
    }
}

impl Request {
    /// Makes the header ready: runs the header filters and decides the framing. Does nothing the second time.
    pub fn send_header(self: &Rc<Self>) -> Step<()> {
        if self.output.is_started() {
            return Step::Ready(());
        }
        self.output.starting.set(true);
        if self.headers_out.status.get() == 0 {
            self.headers_out.status.set(200);
        }
        let forced = self.forced_status();
        if forced != 0 {
            self.headers_out.status.set(forced);
            self.headers_out.status_line.take();
        }
        let filters = &self.location().header_filters;
        for (i, filter) in filters.iter().enumerate() {
            if let Step::Wait(first) = filter.filter(self) {
                let r = Rc::clone(self);
                return Step::wait(async move {
                    first.await;
                    let mut next = i + 1;
                    while let Some(filter) = r.location().header_filters.get(next)
                        && r.output.replacement.get() == 0
                    {
                        filter.filter(&r).get().await;
                        next += 1;
                    }
                    r.start();
                });
            }
            if self.output.replacement.get() != 0 {
                break;
            }
        }
        self.start();
        Step::Ready(())
    }

    /// Decides the framing and writes the head.
    fn start(&self) {
        if self.output.aborted.get() {
            // A filter gave up: there is no response.
            self.output.mode.set(Mode::Nowhere);
            return;
        }
        if self.output.replacement.get() != 0 {
            self.output.mode.set(Mode::Nowhere);
            self.output.finished.set(true);
            return;
        }
        let filters = &self.location().body_filters;
        self.output.is_unfiltered.set(!filters.iter().any(|f| f.applies(self)));
        let out = &self.headers_out;
        let status = out.status.get();
        if matches!(status, 204 | 304) {
            out.content_length.set(None);
        }
        if status == 204 {
            // There is nothing that these could describe; nginx leaves them out as well.
            out.content_type.take();
            out.last_modified.set(None);
        }
        let mode = if self.client.is_none() && !self.is_subrequest() {
            Mode::Nowhere
        } else if self.is_subrequest() {
            Mode::Captured
        } else if self.header_only.get() || is_bodiless(status) {
            Mode::Bodiless
        } else if let Some(n) = out.content_length.get() {
            Mode::Length(n)
        } else if self.version.get() == Version::Http11 {
            Mode::Chunked
        } else if self.output.hold_back.get() {
            Mode::Held
        } else {
            Mode::UntilClose
        };
        self.output.mode.set(mode);
        if !matches!(mode, Mode::Held | Mode::Captured | Mode::Nowhere) {
            self.write_head(mode);
        }
    }

    fn write_head(&self, mode: Mode) {
        if mode == Mode::UntilClose {
            self.keep_alive.set(false);
        }
        if let Some(client) = &self.client {
            let mut out = client.out();
            let before = out.len();
            head_writer::write(self, mode == Mode::Chunked, &mut out);
            self.output.head_bytes.set((out.len() - before) as u64);
        }
    }

    /// Whether body bytes may go straight to [`Request::write_now`]: the header is ready (it is made so where that
    /// needs no waiting) and no body filter has anything to do.
    pub fn can_write_now(self: &Rc<Self>) -> bool {
        if self.output.mode.get() == Mode::Unstarted {
            if self.output.starting.get() || self.location().header_filters_may_wait {
                return false;
            }
            // Without filters that wait this does not wait.
            let _ = self.send_header();
        }
        self.output.is_unfiltered.get()
    }

    /// Adds body bytes, in two parts, without waiting; see [`Request::can_write_now`]. False once the client is
    /// gone.
    pub fn write_now(&self, data: &[u8], end: &[u8]) -> bool {
        self.frame(data, end);
        !self.output.aborted.get() && self.client.as_ref().is_none_or(|c| c.write_if_large())
    }

    /// Adds body bytes to the connection's buffer and leaves the writing to the caller; see
    /// [`Request::can_write_now`].
    pub fn write_later(&self, data: &[u8]) {
        self.frame(data, &[]);
    }

    /// Gives up in the middle of a response: what was sent must not look complete, so the connection is closed.
    pub fn abort(&self) {
        self.keep_alive.set(false);
        self.output.aborted.set(true);
        self.output.finished.set(true);
    }

    /// From a header filter: drops the response that is about to begin, for the one of `status` (with its `error_page`).
    /// False when the response is such a one already.
    pub fn replace_response(&self, status: u16) -> bool {
        let may = !self.output.is_replaced.replace(true);
        if may {
            self.output.replacement.set(status);
        }
        may
    }

    /// The status that [`Request::replace_response`] was given; the output is then as if nothing had begun.
    pub(crate) fn take_replacement(&self) -> Option<u16> {
        let status = self.output.replacement.take();
        if status == 0 {
            return None;
        }
        let output = &self.output;
        output.mode.set(Mode::Unstarted);
        output.starting.set(false);
        output.finished.set(false);
        output.body_bytes.set(0);
        self.headers_out.clear();
        Some(status)
    }

    /// Leaves the connection to the caller, who writes to it past this response: nothing more of the response is sent,
    /// and the connection is closed after the request.
    pub fn take_over(&self) {
        self.keep_alive.set(false);
        self.lift_limit_rate();
        self.output.starting.set(true);
        self.output.mode.set(Mode::Nowhere);
        self.output.taken_over.set(true);
        self.output.finished.set(true);
        if !self.body.is_read() {
            self.body.replace(crate::body::Stored::Empty);
        }
    }

    /// Sends a piece of the body through the filters. Waits where the client is slower than the source. The answer is
    /// false once the client is gone.
    pub fn send(self: &Rc<Self>, chunk: Chunk) -> Step<bool> {
        match self.send_header() {
            Step::Ready(()) if self.output.is_unfiltered.get() => {
                self.send_framed(&chunk.data, chunk.last, chunk.flush)
            }
            Step::Ready(()) => self.send_through(chunk, 0, false),
            Step::Wait(header) => {
                let r = Rc::clone(self);
                Step::wait(async move {
                    header.await;
                    r.send_through(chunk, 0, false).get().await
                })
            }
        }
    }

    /// As [`Request::send`], but for bytes that have been through the body filters of a subrequest: past all that are
    /// not for the whole response.
    pub fn send_unfiltered(self: &Rc<Self>, chunk: Chunk) -> Step<bool> {
        if let Step::Wait(header) = self.send_header() {
            let r = Rc::clone(self);
            return Step::wait(async move {
                header.await;
                r.send_through(chunk, 0, true).get().await
            });
        }
        self.send_through(chunk, 0, true)
    }

    /// Sends a piece through the filters from the `first` on, or those among them that are for the whole response.
    fn send_through(self: &Rc<Self>, mut chunk: Chunk, first: usize, whole_only: bool) -> Step<bool> {
        let filters = &self.location().body_filters;
        for (i, filter) in filters.iter().enumerate().skip(first) {
            if (whole_only && !filter.is_for_whole_response()) || !filter.applies(self) {
                continue;
            }
            match filter.filter(self, chunk) {
                Step::Ready(c) => chunk = c,
                Step::Wait(f) => {
                    let r = Rc::clone(self);
                    return Step::wait(async move {
                        let c = f.await;
                        Box::pin(r.send_through(c, i + 1, whole_only).get()).await
                    });
                }
            }
        }
        self.send_framed(&chunk.data, chunk.last, chunk.flush)
    }

    /// Sends a piece that has been through the filters.
    fn send_framed(&self, data: &[u8], last: bool, flush: bool) -> Step<bool> {
        self.frame(data, &[]);
        if last {
            self.end_body();
        }
        self.pass_on(flush)
    }

    /// Writes where much has collected, or where it `flush`es, and waits if the client is slower than that.
    fn pass_on(&self, flush: bool) -> Step<bool> {
        if self.output.replacement.get() != 0 {
            return Step::Ready(false);
        }
        let Some(client) = self.client.as_ref().filter(|_| !self.is_subrequest()) else {
            return Step::Ready(true);
        };
        if client.is_gone() || self.output.aborted.get() {
            return Step::Ready(false);
        }
        let unsent = client.unsent();
        if unsent <= HIGH_WATER_BYTES && !(flush && unsent > 0) {
            return Step::Ready(true);
        }
        if client.write_pending() && client.unsent() <= HIGH_WATER_BYTES {
            return Step::Ready(true);
        }
        let client = Rc::clone(client);
        Step::wait(async move { client.flush().await.is_ok() })
    }

    /// Frames body bytes, in two parts, into the connection's buffer.
    fn frame(&self, data: &[u8], end: &[u8]) {
        let len = data.len() + end.len();
        if len == 0 || self.output.finished.get() {
            return;
        }
        let output = &self.output;
        output.body_bytes.set(output.body_bytes.get() + len as u64);
        let push = |data: &[u8], end: &[u8]| {
            if let Some(c) = &self.client {
                let mut out = c.out();
                out.extend_from_slice(data);
                if !end.is_empty() {
                    out.extend_from_slice(end);
                }
            }
        };
        match output.mode.get() {
            Mode::Unstarted | Mode::Bodiless | Mode::Nowhere => {}
            Mode::Captured => {
                let mut held = output.held.borrow_mut();
                held.extend_from_slice(data);
                held.extend_from_slice(end);
            }
            Mode::UntilClose => push(data, end),
            Mode::Length(left) => {
                // More than was announced would be read as the next response.
                let left = usize::try_from(left).unwrap_or(usize::MAX);
                let data = &data[..data.len().min(left)];
                let end = &end[..end.len().min(left - data.len())];
                push(data, end);
                output.mode.set(Mode::Length((left - data.len() - end.len()) as u64));
            }
            Mode::Chunked => {
                if let Some(c) = &self.client {
                    let mut out = c.out();
                    out.reserve(len + encode::CHUNK_FRAME_BYTES_MAX);
                    encode::chunk_header(len, &mut *out);
                    out.extend_from_slice(data);
                    match end {
                        [byte] => out.push(*byte),
                        _ => out.extend_from_slice(end),
                    }
                    out.extend_from_slice(b"\r\n");
                }
            }
            Mode::Held => {
                let mut held = output.held.borrow_mut();
                held.extend_from_slice(data);
                held.extend_from_slice(end);
                if held.len() > HELD_BYTES_MAX {
                    self.write_head(Mode::UntilClose);
                    push(&held, &[]);
                    *held = Vec::new();
                    output.mode.set(Mode::UntilClose);
                }
            }
        }
    }

    fn end_body(&self) {
        if self.output.finished.replace(true) {
            return;
        }
        match self.output.mode.get() {
            Mode::Chunked => {
                if let Some(c) = &self.client {
                    c.out().extend_from_slice(b"0\r\n\r\n");
                }
            }
            Mode::Held => {
                let held = self.output.held.take();
                self.headers_out.content_length.set(Some(held.len() as u64));
                self.output.mode.set(Mode::Length(0));
                self.write_head(Mode::Length(held.len() as u64));
                if let Some(c) = &self.client {
                    c.out().extend_from_slice(&held);
                }
            }
            // Less than was announced: only closing tells the client.
            Mode::Length(left) if left > 0 => self.keep_alive.set(false),
            _ => {}
        }
    }

    /// Ends the response: the header if it is not out yet, and the last piece.
    pub fn finish(self: &Rc<Self>) -> Step<bool> {
        if self.output.finished.get() {
            return Step::Ready(true);
        }
        if self.output.is_unfiltered.get() {
            self.end_body();
            return self.pass_on(false);
        }
        self.send(Chunk { last: true, ..Chunk::default() })
    }

    /// A whole response at once: status is set by the caller, the type defaults, the length is the body's.
    pub fn respond(self: &Rc<Self>, body: Bytes) -> Step<bool> {
        self.describe_whole(&body);
        self.send(Chunk { data: body, last: true, flush: false })
    }

    /// As [`Request::respond`], with a body that the caller keeps: of interned text, which is cloned for filters only.
    pub fn respond_with(self: &Rc<Self>, body: &Bytes) -> Step<bool> {
        self.describe_whole(body);
        if self.can_write_now() {
            return self.send_framed(body, true, false);
        }
        self.send(Chunk { data: body.clone(), last: true, flush: false })
    }

    fn describe_whole(&self, body: &[u8]) {
        self.set_default_type();
        self.headers_out.content_length.set(Some(body.len() as u64));
    }

    /// Whether the response may be cut into ranges and revalidated: a plain 200 of the main request.
    pub fn is_plain_ok(&self) -> bool {
        self.headers_out.status.get() == 200
            && !self.is_subrequest()
            && !self.headers_out.has(KnownHeader::ContentRange)
    }
}
