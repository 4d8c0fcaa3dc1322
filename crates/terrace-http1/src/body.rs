//! Bodies, decoded in place.
//!
//! The decoder copies nothing: it tells which bytes of the input are data. It keeps its place at any byte, and bounds
//! everything that is not data. How much data a body may have is the caller's matter (`client_max_body_size`);
//! [`BodyDecoder::total_bytes`] tells how much there was.

use std::ops::Range;

use crate::{BodyError, Framing};

/// The longest size line of a chunk with its extensions, in bytes.
pub const CHUNK_LINE_BYTES_MAX: u32 = 4096;

/// How many bytes the chunk extensions of one body may have together.
pub const CHUNK_EXTENSION_BYTES_MAX: u32 = 16 * 1024;

/// How many bytes the trailers of one body may have together.
pub const TRAILER_BYTES_MAX: u32 = 16 * 1024;

/// The largest size of a body: nginx's largest file offset.
const BODY_BYTES_MAX: u64 = i64::MAX as u64;

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// How many bytes of the input are done with.
    pub consumed: usize,
    /// The bytes of the input that are data of the body; may be empty.
    pub data: Range<usize>,
    /// Whether the body is complete; the bytes after `consumed` belong to the next message.
    pub finished: bool,
}

/// Decodes one body.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
    /// Bytes of data that are to come: of the body, or of the present chunk.
    remaining: u64,
    total_bytes: u64,
    line_bytes: u32,
    extension_bytes: u32,
    trailer_bytes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Length,
    UntilClose,
    /// Before the first digit of a chunk size.
    SizeStart,
    Size,
    /// White space after the size.
    SizeBlank,
    Extension,
    /// After the CR of the size line.
    SizeEnd,
    Data,
    /// After the data of a chunk.
    DataEnd,
    /// After the CR that follows the data.
    DataLineEnd,
    /// At the start of a line after the last chunk.
    Trailer,
    TrailerLine,
    TrailerLineEnd,
    /// After the CR of the empty line that ends the body.
    FinalLineEnd,
    Finished,
    Failed(BodyError),
}

impl BodyDecoder {
    /// Starts a body with this framing.
    pub fn new(framing: Framing) -> Self {
        let (state, remaining) = match framing {
            Framing::None | Framing::Length(0) => (State::Finished, 0),
            Framing::Length(length) => (State::Length, length),
            Framing::Chunked => (State::SizeStart, 0),
            Framing::UntilClose => (State::UntilClose, 0),
        };
        Self { state, remaining, total_bytes: 0, line_bytes: 0, extension_bytes: 0, trailer_bytes: 0 }
    }

    /// Decodes the start of `input`: at most one run of data, with the framing around it.
    ///
    /// Call again with the bytes after `consumed`; when nothing is consumed and the body is not finished, more input
    /// is needed. An error is final.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let (consumed, data) = match self.state {
            State::Finished => (0, 0..0),
            State::Failed(error) => return Err(error),
            State::UntilClose => (input.len(), 0..input.len()),
            State::Length => {
                let taken = self.take(input.len());
                if self.remaining == 0 {
                    self.state = State::Finished;
                }
                (taken, 0..taken)
            }
            _ => self.decode_chunked(input)?,
        };
        self.total_bytes = self.total_bytes.saturating_add(data.len() as u64);
        Ok(Decoded { consumed, data, finished: self.is_finished() })
    }

    /// The peer has closed: whether the body is complete now.
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Finished => Ok(()),
            State::UntilClose => {
                self.state = State::Finished;
                Ok(())
            }
            State::Failed(error) => Err(error),
            _ => Err(self.fail(BodyError::PrematureEnd)),
        }
    }

    /// Whether the body is complete.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.state == State::Finished
    }

    /// How many bytes of data there have been.
    #[inline]
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// How many bytes of data are sure to come: the rest of a body of known length, or of the present chunk.
    #[inline]
    pub fn remaining_bytes(&self) -> u64 {
        match self.state {
            State::Length | State::Data => self.remaining,
            _ => 0,
        }
    }

    fn decode_chunked(&mut self, input: &[u8]) -> Result<(usize, Range<usize>), BodyError> {
        let mut at = 0;
        let mut data = 0..0;
        while at < input.len() && self.state != State::Finished {
            if self.state == State::Data {
                if !data.is_empty() {
                    break;
                }
                let taken = self.take(input.len() - at);
                data = at..at + taken;
                at += taken;
                if self.remaining == 0 {
                    self.state = State::DataEnd;
                }
            } else {
                let byte = input[at];
                self.state = self.step(byte).map_err(|error| self.fail(error))?;
                at += 1;
            }
        }
        Ok((at, data))
    }

    /// The state after one byte that is not data.
    fn step(&mut self, byte: u8) -> Result<State, BodyError> {
        match self.state {
            State::SizeStart | State::Size | State::SizeBlank | State::Extension => self.step_size_line(byte),
            State::SizeEnd if byte == b'\n' => self.start_chunk(),
            State::SizeEnd => Err(BodyError::InvalidChunkSize),
            State::DataEnd if byte == b'\r' => Ok(State::DataLineEnd),
            State::DataLineEnd if byte == b'\n' => Ok(State::SizeStart),
            State::DataEnd | State::DataLineEnd => Err(BodyError::InvalidChunkEnd),
            _ => self.step_trailer(byte),
        }
    }

    /// A byte of a size line: the size, white space, extensions (RFC 9112 section 7.1).
    fn step_size_line(&mut self, byte: u8) -> Result<State, BodyError> {
        self.line_bytes += 1;
        if self.line_bytes > CHUNK_LINE_BYTES_MAX {
            return Err(BodyError::ChunkExtensionTooLarge);
        }
        match (self.state, byte) {
            (State::SizeStart | State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if self.remaining > BODY_BYTES_MAX >> 4 {
                    return Err(BodyError::ChunkSizeTooLarge);
                }
                let digit = (byte as char).to_digit(16).unwrap_or(0);
                self.remaining = (self.remaining << 4) | u64::from(digit);
                Ok(State::Size)
            }
            (State::SizeStart, _) => Err(BodyError::InvalidChunkSize),
            (_, b'\r') => Ok(State::SizeEnd),
            (_, 0 | b'\n') => Err(BodyError::InvalidChunkSize),
            (State::Size | State::SizeBlank, b' ' | b'\t') => {
                self.count_extension()?;
                Ok(State::SizeBlank)
            }
            (State::Extension, _) | (_, b';') => {
                self.count_extension()?;
                Ok(State::Extension)
            }
            _ => Err(BodyError::InvalidChunkSize),
        }
    }

    fn count_extension(&mut self) -> Result<(), BodyError> {
        self.extension_bytes += 1;
        if self.extension_bytes > CHUNK_EXTENSION_BYTES_MAX {
            return Err(BodyError::ChunkExtensionTooLarge);
        }
        Ok(())
    }

    fn start_chunk(&mut self) -> Result<State, BodyError> {
        self.line_bytes = 0;
        if self.remaining == 0 {
            return Ok(State::Trailer);
        }
        // `total_bytes` lacks only the data of this very call, which is shorter than any buffer.
        if self.total_bytes.saturating_add(self.remaining) > BODY_BYTES_MAX {
            return Err(BodyError::ChunkSizeTooLarge);
        }
        Ok(State::Data)
    }

    /// A byte after the last chunk; trailers are skipped, not read.
    fn step_trailer(&mut self, byte: u8) -> Result<State, BodyError> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(BodyError::TrailersTooLarge);
        }
        match (self.state, byte) {
            (State::Trailer, b'\r') => Ok(State::FinalLineEnd),
            (State::TrailerLine, b'\r') => Ok(State::TrailerLineEnd),
            (State::Trailer | State::TrailerLine, 0 | b'\n') => Err(BodyError::InvalidTrailer),
            (State::Trailer | State::TrailerLine, _) => Ok(State::TrailerLine),
            (State::TrailerLineEnd, b'\n') => Ok(State::Trailer),
            (State::FinalLineEnd, b'\n') => Ok(State::Finished),
            _ => Err(BodyError::InvalidTrailer),
        }
    }

    fn take(&mut self, available: usize) -> usize {
        let taken = self.remaining.min(available as u64);
        self.remaining -= taken;
        taken as usize
    }

    fn fail(&mut self, error: BodyError) -> BodyError {
        self.state = State::Failed(error);
        error
    }
}

#[cfg(test)]
mod tests;
