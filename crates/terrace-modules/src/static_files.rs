//! Static files: the content handler that serves the file a URI names.
//!
//! It never waits for small files and streams large ones in pieces, waiting for the client between them. Bytes that
//! a `Range` leaves out are not read.

use std::ffi::OsStr;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use terrace_base::OsError;
use terrace_base::log::Level;
use terrace_conf::ConfError;
use terrace_http::{
    Builder, Chunk, Handler, LocationBuilder, Module, Outcome, Phase, Request, Step, special, status,
};
use terrace_http1::KnownHeader;

use crate::not_modified::{self, Verdict};
use crate::range::{self, Segment};

/// The module.
pub struct StaticFiles;

impl Module for StaticFiles {
    fn location(&self, _: &mut Builder, location: &mut LocationBuilder) -> Result<(), ConfError> {
        location.add(Phase::Content, Serve);
        Ok(())
    }
}

/// Files up to this size are read and given to the connection at once.
const SMALL_BYTES_MAX: u64 = 64 * 1024;
/// The size of one read of a larger file.
const PIECE_BYTES: usize = 64 * 1024;

struct Serve;

impl Handler for Serve {
    fn handle(&self, r: &Rc<Request>) -> Step {
        let (is_read, is_post) = match &r.method()[..] {
            b"GET" | b"HEAD" => (true, false),
            b"POST" => (false, true),
            _ => (false, false),
        };
        if !is_read && !is_post {
            return Outcome::Status(405).into();
        }
        if r.uri().ends_with(b"/") {
            return Outcome::Declined.into();
        }
        let path = r.filename(&r.uri());
        let (file, meta) = match open(r, &path) {
            Ok(opened) => opened,
            Err(status) => return Outcome::Status(status).into(),
        };
        if meta.is_dir() {
            special::set_location_with_slash(r);
            return Outcome::Status(301).into();
        }
        if !meta.is_file() {
            let path = String::from_utf8_lossy(&path);
            r.log(Level::Crit, format_args!("\"{path}\" is not a regular file"));
            return Outcome::Status(404).into();
        }
        if is_post {
            return Outcome::Status(405).into();
        }
        serve(r, file, &meta, path)
    }
}

/// Answers with a regular file.
pub(crate) fn serve(r: &Rc<Request>, file: File, meta: &Metadata, path: Vec<u8>) -> Step {
    describe(r, meta);
    if not_modified::check(r) == Verdict::Failed {
        return Outcome::Status(412).into();
    }
    if let Err(status) = range::offer(r, meta.len()) {
        return Outcome::Status(status).into();
    }
    send(r, Source { file, len: meta.len(), path })
}

/// An open file, its length when it was opened, and its name for messages.
struct Source {
    file: File,
    len: u64,
    path: Vec<u8>,
}

/// Opens and asks for the metadata; logs a failure as nginx does and answers with its status.
fn open(r: &Request, path: &[u8]) -> Result<(File, Metadata), u16> {
    let (error, call) = match open_file(path) {
        Ok(opened) => return Ok(opened),
        Err(failed) => failed,
    };
    let (status, level) = classify(&error);
    if status != 404 || r.location().core.log_not_found {
        let path = String::from_utf8_lossy(path);
        r.log(level, format_args!("{call} \"{path}\" failed {}", OsError(&error)));
    }
    Err(status)
}

/// Opens and asks for the metadata; the error says which call failed.
pub(crate) fn open_file(path: &[u8]) -> Result<(File, Metadata), (io::Error, &'static str)> {
    // O_NONBLOCK: opening a FIFO would otherwise wait for a writer.
    let flags = OFlag::O_NONBLOCK.bits();
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(OsStr::from_bytes(path));
    let file = opened.map_err(|e| (e, "open()"))?;
    let meta = file.metadata().map_err(|e| (e, "fstat()"))?;
    Ok((file, meta))
}

/// The status and log level of a file that cannot be opened (nginx's rules).
fn classify(error: &io::Error) -> (u16, Level) {
    // A NUL in the path has no error number: no file has such a name.
    match error.raw_os_error().map(Errno::from_raw) {
        None | Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => (404, Level::Error),
        Some(Errno::EACCES) => (403, Level::Error),
        Some(_) => (status::INTERNAL, Level::Crit),
    }
}

/// Sets the header fields that come from the file.
fn describe(r: &Request, meta: &Metadata) {
    let h = &r.headers_out;
    h.status.set(200);
    h.content_length.set(Some(meta.len()));
    h.last_modified.set(u64::try_from(meta.mtime()).ok());
    if r.location().core.etag {
        let etag = format!("\"{:x}-{:x}\"", meta.mtime(), meta.len());
        h.set(Bytes::from_static(KnownHeader::ETag.name().as_bytes()), etag);
    }
    r.set_default_type();
}

fn send(r: &Rc<Request>, source: Source) -> Step {
    match r.send_header() {
        Step::Ready(()) => send_body(r, source),
        Step::Wait(header) => {
            let r = Rc::clone(r);
            Step::wait(async move {
                header.await;
                send_body(&r, source).get().await
            })
        }
    }
}

fn send_body(r: &Rc<Request>, source: Source) -> Step {
    if r.header_only.get() {
        return Outcome::Done.into();
    }
    let everything = [Segment::Body(0..source.len)];
    let ranges = range::plan(r);
    let plan = ranges.as_deref().unwrap_or(&everything);
    let total: u64 = plan.iter().map(Segment::len).sum();
    if total <= SMALL_BYTES_MAX && r.can_write_now() {
        send_small(r, &source, plan, total as usize);
        return Outcome::Done.into();
    }
    let r = Rc::clone(r);
    Step::wait(async move {
        stream(&r, &source, ranges.as_deref().unwrap_or(&everything)).await;
        Outcome::Done
    })
}

/// Reads all segments into one buffer of the worker and gives it to the connection.
fn send_small(r: &Rc<Request>, source: &Source, plan: &[Segment], total: usize) {
    let scratch = r.worker.state(Scratch::default);
    let mut buf = scratch.0.take();
    buf.resize(total.max(buf.len()), 0);
    let mut at = 0;
    for segment in plan {
        match segment {
            Segment::Text(text) => {
                buf[at..at + text.len()].copy_from_slice(text);
                at += text.len();
            }
            Segment::Body(range) => {
                let want = segment.len() as usize;
                let got = read_full(&source.file, &mut buf[at..at + want], range.start);
                at += got.as_ref().copied().unwrap_or(0);
                if !matches!(got, Ok(n) if n == want) {
                    cut_short(r, source, range.start, got.err());
                    break;
                }
            }
        }
    }
    // A client that is gone is noticed when the response ends.
    let _ = r.write_now(&buf[..at], &[]);
    scratch.0.replace(buf);
}

/// A worker's buffer for small files.
#[derive(Default)]
struct Scratch(std::cell::RefCell<Vec<u8>>);

async fn stream(r: &Rc<Request>, source: &Source, plan: &[Segment]) {
    let mut buf = BytesMut::with_capacity(PIECE_BYTES);
    for segment in plan {
        let range = match segment {
            Segment::Text(text) => {
                if !give(r, text.clone()).await {
                    return;
                }
                continue;
            }
            Segment::Body(range) => range.clone(),
        };
        let mut at = range.start;
        while at < range.end {
            let want = (range.end - at).min(PIECE_BYTES as u64) as usize;
            // Takes back the last piece's memory when nobody holds it any more.
            buf.reserve(want);
            buf.resize(want, 0);
            match read_full(&source.file, &mut buf, at) {
                Ok(n) if n == want => {}
                got => return cut_short(r, source, at, got.err()),
            }
            at += want as u64;
            if !give(r, buf.split().freeze()).await {
                return;
            }
        }
    }
}

async fn give(r: &Rc<Request>, data: Bytes) -> bool {
    r.send(Chunk { data, ..Chunk::default() }).get().await
}

/// Reads until `buf` is full or the file ends.
fn read_full(file: &File, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match file.read_at(&mut buf[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The file became shorter, or cannot be read any more, after its length was announced: only closing the
/// connection tells the client.
fn cut_short(r: &Request, source: &Source, at: u64, error: Option<io::Error>) {
    r.keep_alive.set(false);
    let path = String::from_utf8_lossy(&source.path);
    match error {
        Some(e) => r.log(Level::Crit, format_args!("pread() \"{path}\" failed {}", OsError(&e))),
        None => r.log(Level::Alert, format_args!("pread() read only up to {at} bytes from \"{path}\"")),
    }
}
