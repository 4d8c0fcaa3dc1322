//! Decompresses responses for clients, and for subrequests' parents, that take no gzip.

use std::cell::RefCell;
use std::rc::Rc;

use flate2::{Decompress, FlushDecompress, Status};
use terrace_base::log::Level;
use terrace_http::{BodyFilter, Chunk, HeaderFilter, Request, Step};
use terrace_http1::KnownHeader;

use super::accept::Accept;
use super::recode;

/// The largest window, as a power of two: what was compressed elsewhere may use it.
const WINDOW_BITS: u8 = 15;
/// What a buffer of output grows by. Deflate makes at most 1032 bytes of one, so that a piece of a body stays bounded.
const STEP_BYTES: usize = 16 * 1024;

/// The stream of one response, and whether it has ended.
struct Stream(RefCell<(Decompress, bool)>);

/// The header filter: decides whether a response is decompressed.
pub(super) struct Begin(pub(super) Accept);

impl HeaderFilter for Begin {
    fn filter(&self, r: &Rc<Request>) -> Step<()> {
        let name = KnownHeader::ContentEncoding.name().as_bytes();
        let is_gzip = r.headers_out.with(name, |v| v.eq_ignore_ascii_case(b"gzip")) == Some(true);
        if is_gzip {
            self.0.vary(r);
            if !self.0.is_met(r) {
                let stream = (Decompress::new_gzip(WINDOW_BITS), false);
                r.put_state(Rc::new(Stream(RefCell::new(stream))));
                r.headers_out.remove(name);
                recode(r);
            }
        }
        Step::Ready(())
    }

    fn may_wait(&self) -> bool {
        false
    }
}

/// The body filter.
pub(super) struct Unpack;

impl BodyFilter for Unpack {
    fn filter(&self, r: &Rc<Request>, mut chunk: Chunk) -> Step<Chunk> {
        let Some(stream) = r.state::<Stream>() else { return Step::Ready(chunk) };
        let mut stream = stream.0.borrow_mut();
        match unpack(&mut stream, &chunk.data) {
            Ok(_) if chunk.last && !stream.1 && !r.header_only.get() && stream.0.total_in() > 0 => {
                r.log(Level::Error, format_args!("inflate() returned no end of the stream on response end"));
                r.abort();
                chunk = Chunk { last: true, ..Chunk::default() };
            }
            Ok(unpacked) => chunk.data = unpacked.into(),
            Err(e) => {
                r.log(Level::Error, format_args!("inflate() failed: {e}"));
                r.abort();
                chunk = Chunk { last: true, ..Chunk::default() };
            }
        }
        Step::Ready(chunk)
    }

    fn applies(&self, r: &Request) -> bool {
        r.state::<Stream>().is_some()
    }
}

fn unpack(stream: &mut (Decompress, bool), data: &[u8]) -> Result<Vec<u8>, flate2::DecompressError> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < data.len() {
        if stream.1 {
            // Another member follows; gzip allows that.
            stream.0 = Decompress::new_gzip(WINDOW_BITS);
            stream.1 = false;
        }
        out.reserve(STEP_BYTES);
        let before = stream.0.total_in();
        let status = stream.0.decompress_vec(&data[at..], &mut out, FlushDecompress::None)?;
        let taken = (stream.0.total_in() - before) as usize;
        at += taken;
        stream.1 = status == Status::StreamEnd;
        if taken == 0 && !stream.1 && out.len() < out.capacity() {
            break;
        }
    }
    // What the last bytes stand for may be more than there was room for.
    while !stream.1 && out.len() == out.capacity() && !out.is_empty() {
        out.reserve(STEP_BYTES);
        let status = stream.0.decompress_vec(&[], &mut out, FlushDecompress::None)?;
        stream.1 = status == Status::StreamEnd;
        if status == Status::BufError {
            break;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn whatever_the_pieces() {
        let text = "Terrace ".repeat(20_000);
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(9));
        writer.write_all(text.as_bytes()).expect("written");
        let mut packed = writer.finish().expect("a stream");
        packed.extend_from_slice(&packed.clone());
        for piece in [1, 7, 100, packed.len()] {
            let mut stream = (Decompress::new_gzip(WINDOW_BITS), false);
            let mut all = Vec::new();
            for data in packed.chunks(piece) {
                all.extend(unpack(&mut stream, data).expect("unpacked"));
            }
            assert!(stream.1, "pieces of {piece}");
            assert_eq!(all.len(), text.len() * 2, "pieces of {piece}");
        }
    }

    #[test]
    fn broken_data_is_an_error() {
        let mut stream = (Decompress::new_gzip(WINDOW_BITS), false);
        assert!(unpack(&mut stream, b"this is no gzip at all").is_err());
    }
}
