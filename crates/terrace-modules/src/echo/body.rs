//! The bodies of requests: sending one back, and those of subrequests.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::rc::Rc;

use bytes::Bytes;
use terrace_http::body::{BodyFile, Stored};
use terrace_http::{Chunk, Request};

/// How much of a file is read at once.
const PIECE_BYTES: usize = 32 * 1024;

/// Sends the body of `of`, wherever it is kept, as a part of the response of `r`.
pub(super) async fn send_body(r: &Rc<Request>) -> io::Result<()> {
    let (data, path) = match &*r.body.stored().borrow() {
        Stored::Empty => return Ok(()),
        Stored::Memory(data) => (Some(Bytes::copy_from_slice(data)), None),
        Stored::File(file) => (None, Some(file.path().to_path_buf())),
    };
    if let Some(data) = data {
        r.send(Chunk { data, ..Chunk::default() }).get().await;
    }
    let Some(path) = path else { return Ok(()) };
    let mut file = File::open(path)?;
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let n = file.read(&mut piece)?;
        if n == 0 {
            return Ok(());
        }
        piece.truncate(n);
        if !r.send(Chunk { data: piece.into(), ..Chunk::default() }).get().await {
            return Ok(());
        }
    }
}

/// A file as a body: in memory where it is no larger than bodies of clients may be there.
pub(super) fn of_file(r: &Request, path: PathBuf) -> io::Result<Stored> {
    let file = BodyFile::open(path, true)?;
    if file.len() > r.location().core.client_body_buffer_bytes as u64 {
        return Ok(Stored::File(file));
    }
    std::fs::read(file.path()).map(Stored::Memory)
}

/// A copy of the request's own body; `None` where it has none.
pub(super) fn copy(r: &Request) -> io::Result<Option<Stored>> {
    Ok(match &*r.body.stored().borrow() {
        Stored::Empty => None,
        Stored::Memory(data) => Some(Stored::Memory(data.clone())),
        Stored::File(file) => Some(Stored::File(BodyFile::open(file.path().to_path_buf(), true)?)),
    })
}
