//! Compresses the main request's response as it passes.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use flate2::{Compress, Compression, FlushCompress, Status};
use terrace_base::log::Level;
use terrace_http::{BodyFilter, Chunk, HeaderFilter, Request, Step};
use terrace_http1::KnownHeader;

use super::accept::{Accept, CODING};
use super::{is_encoded, name, recode};
use crate::charset::Types;

/// The window of a body of unknown length, as a power of two, and the smallest that there is.
const WINDOW_BITS: (u8, u8) = (15, 9);
/// The stretch of a window that deflate cannot look back over.
const WINDOW_LOST_BYTES: u64 = 262;
/// What a buffer of output grows by.
const STEP_BYTES: usize = 4 * 1024;

/// The stream of one response.
struct Stream(RefCell<Compress>);

/// The header filter: decides whether a response is compressed.
pub(super) struct Begin {
    pub(super) accept: Accept,
    pub(super) types: Arc<Types>,
    pub(super) length_min: u64,
    pub(super) level: u32,
}

impl HeaderFilter for Begin {
    fn filter(&self, r: &Rc<Request>) -> Step<()> {
        if !self.is_for(r) {
            return Step::Ready(());
        }
        self.accept.vary(r);
        if self.accept.is_met(r) {
            let bits = window_bits(r.headers_out.content_length.get());
            let stream = Compress::new_gzip(Compression::new(self.level), bits);
            r.put_state(Rc::new(Stream(RefCell::new(stream))));
            r.headers_out.set(name(KnownHeader::ContentEncoding), CODING);
            recode(r);
        }
        Step::Ready(())
    }

    fn may_wait(&self) -> bool {
        false
    }
}

impl Begin {
    fn is_for(&self, r: &Request) -> bool {
        let h = &r.headers_out;
        matches!(h.status.get(), 200 | 403 | 404)
            && !r.is_subrequest()
            && !r.header_only.get()
            && !is_encoded(r)
            && h.content_length.get().is_none_or(|len| len >= self.length_min)
            && h.content_type.borrow().as_deref().is_some_and(|it| {
                let bare = it.split(|b| *b == b';').next().unwrap_or_default();
                self.types.has(bare.trim_ascii_end())
            })
    }
}

/// A short body needs no large window.
fn window_bits(length: Option<u64>) -> u8 {
    let (mut bits, least) = WINDOW_BITS;
    if let Some(length) = length {
        while bits > least && length + WINDOW_LOST_BYTES < 1 << (bits - 1) {
            bits -= 1;
        }
    }
    bits
}

/// The body filter.
pub(super) struct Pack;

impl BodyFilter for Pack {
    fn filter(&self, r: &Rc<Request>, mut chunk: Chunk) -> Step<Chunk> {
        let Some(stream) = r.state::<Stream>() else { return Step::Ready(chunk) };
        let flush = match &chunk {
            Chunk { last: true, .. } => FlushCompress::Finish,
            Chunk { flush: true, .. } => FlushCompress::Sync,
            _ => FlushCompress::None,
        };
        match pack(&mut stream.0.borrow_mut(), &chunk.data, flush) {
            Ok(packed) => chunk.data = packed.into(),
            Err(e) => {
                r.log(Level::Alert, format_args!("deflate() failed: {e}"));
                r.abort();
                chunk = Chunk { last: true, ..Chunk::default() };
            }
        }
        Step::Ready(chunk)
    }

    fn applies(&self, r: &Request) -> bool {
        !r.is_subrequest() && r.state::<Stream>().is_some()
    }

    fn is_for_whole_response(&self) -> bool {
        true
    }
}

fn pack(stream: &mut Compress, data: &[u8], flush: FlushCompress) -> Result<Vec<u8>, flate2::CompressError> {
    let mut out = Vec::new();
    let mut at = 0;
    if data.is_empty() && matches!(flush, FlushCompress::None) {
        return Ok(out);
    }
    loop {
        out.reserve(STEP_BYTES);
        let before = stream.total_in();
        let status = stream.compress_vec(&data[at..], &mut out, flush)?;
        at += (stream.total_in() - before) as usize;
        // With room left, all that there was to write is written.
        let is_written = at == data.len() && out.len() < out.capacity();
        if status == Status::StreamEnd || (is_written && !matches!(flush, FlushCompress::Finish)) {
            return Ok(out);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn windows_fit_the_length() {
        assert_eq!(window_bits(None), 15);
        assert_eq!(window_bits(Some(1_000_000)), 15);
        assert_eq!(window_bits(Some(10)), 9);
    }

    #[test]
    fn pieces_make_one_stream_and_a_flushed_one_can_be_read() {
        let mut stream = Compress::new_gzip(Compression::new(6), 15);
        let first = "Terrace ".repeat(10_000);
        let mut all = pack(&mut stream, first.as_bytes(), FlushCompress::None).expect("packed");
        all.extend(pack(&mut stream, b"flushed", FlushCompress::Sync).expect("packed"));
        let mut sofar = vec![0; first.len() + 7];
        flate2::read::GzDecoder::new(&all[..]).read_exact(&mut sofar).expect("all that was flushed");
        assert!(sofar.ends_with(b"flushed"));
        all.extend(pack(&mut stream, b"", FlushCompress::Finish).expect("packed"));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&all[..]).read_to_string(&mut text).expect("a whole stream");
        assert_eq!(text.len(), first.len() + 7);
    }
}
