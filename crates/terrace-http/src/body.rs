//! The request's body: read on demand, kept in memory up to `client_body_buffer_size`, beyond it in a temporary
//! file; discarded where nobody wants it.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use terrace_base::log::Level;
use terrace_http1::{BodyDecoder, Framing};

use crate::Request;
use crate::connection::Client;
use crate::core::location_conf::InFileOnly;
use crate::phase::Step;

/// A body that was discarded may take at most this long to read, per read (`lingering_timeout`).
const PIECE_BYTES: usize = 16 * 1024;

/// Where a body is.
#[derive(Debug, Default)]
pub enum Stored {
    /// There is none.
    #[default]
    Empty,
    /// In memory.
    Memory(Vec<u8>),
    /// In a temporary file.
    File(BodyFile),
}

/// A temporary file, removed when the request ends.
#[derive(Debug)]
pub struct BodyFile {
    file: File,
    path: PathBuf,
    len: u64,
    keep: bool,
}

impl BodyFile {
    /// A file that is there already; `keep` says that it outlives the request.
    pub fn open(path: PathBuf, keep: bool) -> io::Result<BodyFile> {
        let file = File::open(&path)?;
        let len = file.metadata()?.len();
        Ok(BodyFile { file, path, len, keep })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file stays when the request ends (`client_body_in_file_only on`).
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for BodyFile {
    fn drop(&mut self) {
        if !self.keep {
            // The file may be gone already; nothing depends on it any more.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The body of one request.
#[derive(Debug)]
pub struct RequestBody {
    decoder: RefCell<BodyDecoder>,
    framing: Framing,
    expect_continue: Cell<bool>,
    is_read: Cell<bool>,
    stored: RefCell<Stored>,
}

impl RequestBody {
    /// A body still on the wire.
    pub fn new(framing: Framing, expect_continue: bool) -> RequestBody {
        RequestBody {
            decoder: RefCell::new(BodyDecoder::new(framing)),
            framing,
            expect_continue: Cell::new(expect_continue),
            is_read: Cell::new(false),
            stored: RefCell::default(),
        }
    }

    /// Forgets the body, for another request.
    pub(crate) fn recycle(&mut self) {
        let is_blank = matches!(self.framing, Framing::None)
            && !self.is_read.get()
            && !self.expect_continue.get()
            && matches!(self.stored.get_mut(), Stored::Empty);
        if !is_blank {
            *self = RequestBody::empty();
        }
    }

    /// No body.
    pub fn empty() -> RequestBody {
        RequestBody::new(Framing::None, false)
    }

    /// The framing as sent.
    pub fn framing(&self) -> Framing {
        self.framing
    }

    /// Whether the body was read (or there is none and it was asked for).
    pub fn is_read(&self) -> bool {
        self.is_read.get()
    }

    /// The body, once read.
    pub fn stored(&self) -> &RefCell<Stored> {
        &self.stored
    }

    /// Puts another body in its place.
    pub fn replace(&self, stored: Stored) {
        self.is_read.set(true);
        self.stored.replace(stored);
    }

    /// The length of what is stored.
    pub fn len(&self) -> u64 {
        match &*self.stored.borrow() {
            Stored::Empty => 0,
            Stored::Memory(m) => m.len() as u64,
            Stored::File(f) => f.len,
        }
    }

    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a part of it has not been taken from the client.
    pub fn is_on_wire(&self) -> bool {
        !self.decoder.borrow().is_finished()
    }
}

/// Names of temporary files.
static FILES: AtomicU64 = AtomicU64::new(0);

impl Request {
    /// Reads the body whole. The error is a status to answer with: 400, 408, 413, 500, or 499 when the client left.
    pub fn read_body(self: &Rc<Self>) -> Step<Result<(), u16>> {
        if self.body.is_read() || !self.body.is_on_wire() {
            self.body.is_read.set(true);
            return Step::Ready(Ok(()));
        }
        let Some(client) = self.client.clone() else {
            return Step::Ready(Ok(()));
        };
        let mut sink = self.body_writer(None);
        match self.take_buffered(&client, &mut sink) {
            Ok(true) => {
                self.body_read(sink);
                Step::Ready(Ok(()))
            }
            Err(status) => Step::Ready(Err(status)),
            Ok(false) => {
                let r = Rc::clone(self);
                Step::wait(async move { r.read_rest(&client, sink).await })
            }
        }
    }

    async fn read_rest(&self, client: &Client, mut sink: BodyWriter) -> Result<(), u16> {
        if self.body.expect_continue.replace(false) && !self.output.is_started() {
            client.out().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            client.flush().await.map_err(|_| crate::status::CLIENT_CLOSED)?;
        }
        loop {
            self.read_more(client).await?;
            if self.take_buffered(client, &mut sink)? {
                self.body_read(sink);
                return Ok(());
            }
        }
    }

    /// A writer of a body for this request, by the location's settings. `memory_max` takes the place of
    /// `client_body_buffer_size`, in bytes.
    pub fn body_writer(&self, memory_max: Option<usize>) -> BodyWriter {
        let core = &self.location().core;
        let keep = core.client_body_in_file_only == InFileOnly::Keep;
        let always = core.client_body_in_file_only != InFileOnly::Off;
        let memory_max = if always { 0 } else { memory_max.unwrap_or(core.client_body_buffer_bytes) };
        let directory = Some(core.client_body_temp_path.clone());
        BodyWriter { stored: Stored::Empty, memory_max, directory, keep }
    }

    fn body_read(&self, sink: BodyWriter) {
        self.body.stored.replace(sink.finish());
        self.body.is_read.set(true);
    }

    /// Waits for more bytes of the body. They land in the client's input buffer.
    async fn read_more(&self, client: &Client) -> Result<(), u16> {
        match client.read_more(self.location().core.client_body_timeout_ms).await {
            Ok(0) => {
                self.log(Level::Info, format_args!("client prematurely closed connection"));
                Err(crate::status::CLIENT_CLOSED)
            }
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::TimedOut => {
                self.log(Level::Info, format_args!("client timed out (110: Connection timed out)"));
                Err(408)
            }
            Err(_) => Err(crate::status::CLIENT_CLOSED),
        }
    }

    /// Decodes what the connection has buffered. True when the body is complete.
    fn take_buffered(&self, client: &Client, sink: &mut BodyWriter) -> Result<bool, u16> {
        let mut input = client.input();
        let mut decoder = self.body.decoder.borrow_mut();
        let limit = self.location().core.client_max_body_bytes;
        let mut at = 0;
        let result = loop {
            let decoded = match decoder.decode(&input[at..]) {
                Ok(d) => d,
                Err(e) => {
                    self.log(Level::Info, format_args!("client sent invalid chunked body: {e}"));
                    break Err(400);
                }
            };
            if limit > 0 && decoder.total_bytes() > limit {
                self.log(Level::Error, format_args!("client intended to send too large chunked body"));
                break Err(413);
            }
            if let Err(e) = sink.write(self, &input[at..][decoded.data.clone()]) {
                self.log(Level::Crit, format_args!("writing the request body failed: {e}"));
                break Err(500);
            }
            at += decoded.consumed;
            if decoded.finished || decoded.consumed == 0 {
                break Ok(decoded.finished);
            }
        };
        input.drain(..at);
        if result.is_err() {
            self.keep_alive.set(false);
        }
        result
    }

    /// Takes decoded bytes of a body that is not to be stored, without waiting; 0 at its end, `UnexpectedEof` where the
    /// client left before it, `InvalidData` where its framing is broken.
    pub fn try_read_body(&self, buf: &mut [u8]) -> io::Result<usize> {
        let Some(client) = self.client.as_ref().filter(|_| self.body.is_on_wire()) else { return Ok(0) };
        loop {
            let is_empty = client.input().is_empty();
            if is_empty && client.try_fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut input = client.input();
            let mut decoder = self.body.decoder.borrow_mut();
            let given = input.len().min(buf.len());
            let decoded =
                decoder.decode(&input[..given]).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            let data = &input[decoded.data];
            let n = data.len();
            buf[..n].copy_from_slice(data);
            input.drain(..decoded.consumed);
            if n > 0 || decoded.finished {
                return Ok(n);
            }
        }
    }

    /// Ready once [`Request::try_read_body`] may make progress.
    pub fn poll_body_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.client.as_ref().filter(|_| self.body.is_on_wire()) {
            Some(client) => client.poll_take_ready(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// Tells a client that waits for it to send its body. False when it is gone.
    pub fn ask_for_body(&self) -> bool {
        let Some(client) = &self.client else { return false };
        if self.body.expect_continue.replace(false) && !self.output.is_started() {
            client.out().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            client.write_pending();
        }
        !client.is_gone()
    }

    /// Whether a part of the body has not been read from the client.
    pub(crate) fn has_unread_body(&self) -> bool {
        self.client.is_some() && self.body.is_on_wire()
    }

    /// Reads and drops what is left of the body, so that the connection can carry another request. False when the
    /// connection must be closed instead.
    pub(crate) async fn discard_body(&self) -> bool {
        let Some(client) = self.client.as_ref().filter(|_| self.body.is_on_wire()) else {
            return true;
        };
        // A client that waits for a 100 will not send the body of a request that has its answer.
        if self.body.expect_continue.get() {
            return false;
        }
        let mut sink = BodyWriter::nowhere();
        loop {
            match self.take_buffered(client, &mut sink) {
                Ok(true) => return true,
                Err(_) => return false,
                Ok(false) => {}
            }
            if client.read_more(self.location().core.lingering_timeout_ms).await.unwrap_or(0) == 0 {
                return false;
            }
        }
    }
}

/// A body in the making: in memory up to a size, beyond it in a temporary file.
#[derive(Debug)]
pub struct BodyWriter {
    stored: Stored,
    memory_max: usize,
    directory: Option<PathBuf>,
    keep: bool,
}

impl BodyWriter {
    /// The body as written so far, which is then the whole.
    pub fn finish(self) -> Stored {
        self.stored
    }

    fn nowhere() -> BodyWriter {
        BodyWriter { stored: Stored::Empty, memory_max: 0, directory: None, keep: false }
    }

    /// Adds bytes, for `r`; a move to a file is logged.
    pub fn write(&mut self, r: &Request, data: &[u8]) -> io::Result<()> {
        if data.is_empty() || self.directory.is_none() {
            return Ok(());
        }
        let held = match &self.stored {
            Stored::Empty => 0,
            Stored::Memory(m) => m.len(),
            Stored::File(_) => 0,
        };
        if !matches!(self.stored, Stored::File(_)) && held + data.len() > self.memory_max {
            self.spill()?;
            self.log_file(r);
        }
        match &mut self.stored {
            Stored::File(f) => {
                f.file.write_all(data)?;
                f.len += data.len() as u64;
            }
            Stored::Memory(m) => m.extend_from_slice(data),
            Stored::Empty => self.stored = Stored::Memory(data.to_vec()),
        }
        Ok(())
    }

    fn log_file(&self, r: &Request) {
        let Stored::File(f) = &self.stored else { return };
        // Where every body goes to a file, that is no reason to warn.
        let level = if self.memory_max == 0 { Level::Notice } else { Level::Warn };
        let path = f.path.display();
        r.log(level, format_args!("a client request body is buffered to a temporary file {path}"));
    }

    fn spill(&mut self) -> io::Result<()> {
        let Some(directory) = &self.directory else { return Ok(()) };
        std::fs::create_dir_all(directory)?;
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!("{}{number:010}", std::process::id()));
        let mut file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let mut len = 0;
        if let Stored::Memory(m) = std::mem::take(&mut self.stored) {
            file.write_all(&m)?;
            len = m.len() as u64;
        }
        self.stored = Stored::File(BodyFile { file, path, len, keep: self.keep });
        Ok(())
    }
}

/// The size of one read of a body.
pub(crate) const READ_BYTES: usize = PIECE_BYTES;
