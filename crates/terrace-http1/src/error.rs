//! Why a peer's bytes were refused.
//!
//! Display gives nginx's error-log wording without the peer's data; `log_line` adds the data where nginx logs it.
//! An error of a request is the client's fault and a retry of the same bytes is pointless; an error of a response
//! is the upstream's fault and another upstream may do better.

use std::fmt::Write as _;

use thiserror::Error;

use crate::Span;

/// How many bytes of a peer's data a log line repeats.
const LOG_DATA_BYTES_MAX: usize = 1024;

/// Why a request head was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RequestError {
    /// The method is not made of upper-case letters, `_` and `-`.
    #[error("client sent invalid method")]
    InvalidMethod,
    /// The request line is malformed otherwise, or its target is.
    #[error("client sent invalid request")]
    InvalidRequest,
    /// The major version is above 1.
    #[error("client sent invalid version")]
    InvalidVersion,
    /// A request line without a version.
    #[error("client sent HTTP/0.9 request")]
    Http09,
    /// The request line is longer than a header buffer.
    #[error("client sent too long URI")]
    UriTooLong,
    /// The host of an absolute target is malformed.
    #[error("client sent invalid host in request line")]
    InvalidHostInRequestLine,
    /// A header line is malformed: a folded line, an empty name, white space before the colon, a control
    /// character in the name, NUL, or CR without LF.
    #[error("client sent invalid header line")]
    InvalidHeaderLine {
        /// The line up to the offending byte.
        line: Span,
        /// The offending byte.
        byte: u8,
    },
    /// A header line is longer than a header buffer.
    #[error("client sent too long header line")]
    HeaderLineTooLong {
        /// The part of the line that was read.
        line: Span,
    },
    /// The head is longer than all header buffers together.
    #[error("client sent too large request")]
    HeadTooLarge,
    /// More header lines than allowed.
    #[error("client sent too many header lines")]
    TooManyHeaders,
    /// A field that may occur once occurs again.
    #[error("client sent duplicate header line")]
    DuplicateHeader {
        /// The repeated line.
        line: Span,
        /// The line before.
        previous: Span,
    },
    /// More than one Host field.
    #[error("client sent duplicate host header")]
    DuplicateHost {
        /// The repeated line.
        line: Span,
        /// The line before.
        previous: Span,
    },
    /// The Host field is malformed.
    #[error("client sent invalid host header")]
    InvalidHost,
    /// An HTTP/1.1 request without a Host field.
    #[error("client sent HTTP/1.1 request without \"Host\" header")]
    MissingHost,
    /// The Content-Length is no decimal number or too large.
    #[error("client sent invalid \"Content-Length\" header")]
    InvalidContentLength,
    /// A Transfer-Encoding in an HTTP/1.0 request.
    #[error("client sent HTTP/1.0 request with \"Transfer-Encoding\" header")]
    TransferEncodingInHttp10,
    /// Both framings at once (RFC 9112 section 6.3 allows to refuse).
    #[error("client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time")]
    ContentLengthAndTransferEncoding,
    /// A transfer coding other than exactly `chunked`.
    #[error("client sent unknown \"Transfer-Encoding\"")]
    UnknownTransferEncoding {
        /// The field's value.
        value: Span,
    },
    /// A CONNECT request: this is no forward proxy.
    #[error("client sent CONNECT method")]
    ConnectMethod,
    /// A TRACE request, which would reflect credentials.
    #[error("client sent TRACE method")]
    TraceMethod,
}

impl RequestError {
    /// The status nginx ends the request with. 494 is nginx's own; see [`wire_status`](Self::wire_status).
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidVersion => 505,
            Self::UriTooLong => 414,
            Self::HeaderLineTooLong { .. } | Self::HeadTooLarge | Self::TooManyHeaders => 494,
            Self::UnknownTransferEncoding { .. } => 501,
            Self::ConnectMethod | Self::TraceMethod => 405,
            _ => 400,
        }
    }

    /// The status that is sent: 494 goes out as 400.
    pub fn wire_status(&self) -> u16 {
        match self.status() {
            494 => 400,
            status => status,
        }
    }

    /// The line nginx writes to the error log; `buf` is the buffer that was parsed.
    pub fn log_line(&self, buf: &[u8]) -> String {
        let mut text = self.to_string();
        match *self {
            Self::InvalidHeaderLine { line, byte } => push_invalid(&mut text, buf, line, byte),
            Self::HeaderLineTooLong { line } => {
                text.push_str(": \"");
                push_data(&mut text, line.of(buf));
                text.push_str("...\"");
            }
            Self::DuplicateHeader { line, previous } | Self::DuplicateHost { line, previous } => {
                push_duplicate(&mut text, buf, line, previous);
            }
            Self::UnknownTransferEncoding { value } => push_quoted(&mut text, buf, value),
            _ => {}
        }
        text
    }
}

/// Why a response head of an upstream was refused; nginx answers 502 or tries the next upstream.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ResponseError {
    /// The status line is malformed or its version is not 1.x.
    #[error("upstream sent no valid HTTP/1.0 header")]
    InvalidStatusLine,
    /// A header line is malformed.
    #[error("upstream sent invalid header")]
    InvalidHeader {
        /// The line up to the offending byte.
        line: Span,
        /// The offending byte.
        byte: u8,
    },
    /// The head is longer than its buffer.
    #[error("upstream sent too big header")]
    HeadTooLarge,
    /// More header lines than allowed.
    #[error("upstream sent too many header lines")]
    TooManyHeaders,
    /// A repeated Content-Length or Transfer-Encoding.
    #[error("upstream sent duplicate header line")]
    DuplicateHeader {
        /// The repeated line.
        line: Span,
        /// The line before.
        previous: Span,
    },
    /// The Content-Length is no decimal number or too large.
    #[error("upstream sent invalid \"Content-Length\" header")]
    InvalidContentLength {
        /// The field's value.
        value: Span,
    },
    /// Both framings at once.
    #[error("upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time")]
    ContentLengthAndTransferEncoding,
    /// A transfer coding other than exactly `chunked`.
    #[error("upstream sent unknown \"Transfer-Encoding\"")]
    UnknownTransferEncoding {
        /// The field's value.
        value: Span,
    },
}

impl ResponseError {
    /// The line nginx writes to the error log; `buf` is the buffer that was parsed.
    pub fn log_line(&self, buf: &[u8]) -> String {
        let mut text = self.to_string();
        match *self {
            Self::InvalidHeader { line, byte } => push_invalid(&mut text, buf, line, byte),
            Self::DuplicateHeader { line, previous } => push_duplicate(&mut text, buf, line, previous),
            Self::InvalidContentLength { value } => {
                text.push_str(": \"Content-Length: ");
                push_data(&mut text, value.of(buf));
                text.push('"');
            }
            Self::UnknownTransferEncoding { value } => push_quoted(&mut text, buf, value),
            _ => {}
        }
        text
    }
}

/// Why a body was refused.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BodyError {
    /// A chunk does not start with a hexadecimal size, or its size line is malformed.
    #[error("invalid chunk size")]
    InvalidChunkSize,
    /// A chunk size, or the sum of them, above `i64::MAX`.
    #[error("too large chunk size")]
    ChunkSizeTooLarge,
    /// A size line above [`CHUNK_LINE_BYTES_MAX`](crate::CHUNK_LINE_BYTES_MAX), or chunk extensions that add up to
    /// more than [`CHUNK_EXTENSION_BYTES_MAX`](crate::CHUNK_EXTENSION_BYTES_MAX).
    #[error("too large chunk extension")]
    ChunkExtensionTooLarge,
    /// The data of a chunk is not followed by CRLF.
    #[error("chunk data without line end")]
    InvalidChunkEnd,
    /// A trailer line is malformed.
    #[error("invalid trailer")]
    InvalidTrailer,
    /// Trailers that add up to more than [`TRAILER_BYTES_MAX`](crate::TRAILER_BYTES_MAX).
    #[error("too large trailers")]
    TrailersTooLarge,
    /// The peer closed before the body was complete.
    #[error("connection closed before the body was complete")]
    PrematureEnd,
}

fn push_invalid(text: &mut String, buf: &[u8], line: Span, byte: u8) {
    text.push_str(": \"");
    push_data(text, line.of(buf));
    let _ = write!(text, "\\x{byte:02x}...\"");
}

fn push_quoted(text: &mut String, buf: &[u8], value: Span) {
    text.push_str(": \"");
    push_data(text, value.of(buf));
    text.push('"');
}

fn push_duplicate(text: &mut String, buf: &[u8], line: Span, previous: Span) {
    text.push_str(": \"");
    push_data(text, line.of(buf));
    text.push_str("\", previous value: \"");
    push_data(text, previous.of(buf));
    text.push('"');
}

/// Appends a peer's bytes so that they cannot end or forge a log line.
fn push_data(text: &mut String, data: &[u8]) {
    let data = &data[..data.len().min(LOG_DATA_BYTES_MAX)];
    for chunk in data.utf8_chunks() {
        for symbol in chunk.valid().chars() {
            if symbol.is_control() {
                let _ = write!(text, "\\x{:02x}", symbol as u32);
            } else {
                text.push(symbol);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
}
