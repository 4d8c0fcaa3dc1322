//! The head of an upstream's response, read from a growing buffer.
//!
//! Anything that two readers could frame differently (response splitting) is an error: both framings, a repeated or
//! malformed Content-Length, an unknown coding. Header names are taken as they are, as nginx does for upstreams.

use crate::framing::{self, Connection, Framing};
use crate::header::{self, HeaderLine, Headers, KnownHeader};
use crate::line::{Found, Lines};
use crate::request::Progress;
use crate::request_line::{Version, split_version};
use crate::{ResponseError, ResponseLimits, Span};

/// A response head. One value serves a connection: [`clear`](Self::clear) it before each response.
///
/// An interim response (1xx) is a head of its own: unless it is 101, cut it off the buffer, clear, and parse on.
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    /// The status code, 100 to 999.
    pub status: u16,
    /// The status line from the code on (`$upstream_status` and the line that is passed on).
    pub status_line: Span,
    /// The reason phrase as sent.
    pub reason: Span,
    /// The protocol version.
    pub version: Version,
    /// The header lines.
    pub headers: Headers,
    /// How the body is delimited.
    pub framing: Framing,
    /// Whether the connection may be used again once the body is read.
    pub keep_alive: bool,
    /// Whether the upstream switches protocols (101).
    pub upgrade: bool,
    connection: Connection,
    lines: Lines,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    StatusLine,
    Headers,
    Complete,
}

impl ResponseHead {
    /// Forgets the response, keeping what was allocated for its header lines.
    pub fn clear(&mut self) {
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        *self = Self { headers, ..Self::default() };
    }

    /// Reads on in `buf`, which holds the connection's bytes from the start of this response.
    ///
    /// `head_request` tells that the request was HEAD, so that no body follows. The rules for `buf` are those of
    /// [`RequestHead::parse`](crate::RequestHead::parse).
    pub fn parse(
        &mut self,
        buf: &[u8],
        limits: &ResponseLimits,
        head_request: bool,
    ) -> Result<Progress, ResponseError> {
        let limit = limits.head_bytes_max as usize;
        while self.stage != Stage::Complete {
            let line_start = self.lines.start();
            let (start, end) = match self.lines.next(buf, limit) {
                Found::Line { start, end } => (start, end),
                Found::Partial => {
                    self.refuse_other_protocol(buf)?;
                    return Ok(Progress::Partial);
                }
                Found::TooLong => {
                    self.refuse_other_protocol(buf)?;
                    return Err(ResponseError::HeadTooLarge);
                }
                Found::BadByte(_) if self.stage == Stage::StatusLine => {
                    return Err(ResponseError::InvalidStatusLine);
                }
                Found::BadByte(at) => return Err(invalid_header(buf, line_start, at)),
            };
            if self.stage == Stage::StatusLine {
                self.parse_status_line(buf, start, end).ok_or(ResponseError::InvalidStatusLine)?;
                self.stage = Stage::Headers;
            } else if start < end {
                self.take_line(buf, start, end, limits)?;
            } else {
                self.conclude(buf, head_request)?;
                self.stage = Stage::Complete;
            }
        }
        Ok(Progress::Complete { head_len: self.lines.start() })
    }

    /// An upstream that does not speak HTTP is found out before it fills the buffer.
    fn refuse_other_protocol(&self, buf: &[u8]) -> Result<(), ResponseError> {
        let seen = buf.len().min(PROTOCOL.len());
        if self.stage == Stage::StatusLine && buf[..seen] != PROTOCOL[..seen] {
            return Err(ResponseError::InvalidStatusLine);
        }
        Ok(())
    }

    fn parse_status_line(&mut self, buf: &[u8], start: usize, end: usize) -> Option<()> {
        let line = &buf[start..end];
        let protocol_len = line.iter().position(|&byte| byte == b' ')?;
        self.version = match split_version(&line[..protocol_len])? {
            (1, 0) => Version::Http10,
            (1, _) => Version::Http11,
            _ => return None,
        };
        let spaces = line[protocol_len..].iter().take_while(|&&byte| byte == b' ').count();
        let code = protocol_len + spaces;
        let digits = line.get(code..code + 3)?;
        if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' {
            return None;
        }
        self.status = digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit - b'0'));
        let reason = match line.get(code + 3) {
            None => code + 3,
            // A sub-status as in "403.1" counts as text.
            Some(b' ' | b'.') => code + 4,
            Some(_) => return None,
        };
        self.status_line = Span::new(start + code, end);
        self.reason = Span::new(start + reason, end);
        Some(())
    }

    fn take_line(
        &mut self,
        buf: &[u8],
        start: usize,
        end: usize,
        limits: &ResponseLimits,
    ) -> Result<(), ResponseError> {
        let raw = header::split_line(buf, start, end).map_err(|at| invalid_header(buf, start, at))?;
        if self.headers.lines().len() >= limits.headers_max as usize {
            return Err(ResponseError::TooManyHeaders);
        }
        let line = HeaderLine { name: raw.name, value: raw.value, id: raw.id };
        match line.id {
            Some(id @ (KnownHeader::ContentLength | KnownHeader::TransferEncoding)) => {
                if let Some(previous) = self.headers.first(id) {
                    let previous = Span::new(previous.name.start(), previous.value.end());
                    return Err(ResponseError::DuplicateHeader { line: Span::new(start, end), previous });
                }
            }
            Some(KnownHeader::Connection) => self.connection.add(line.value.of(buf)),
            _ => {}
        }
        self.headers.push(line);
        Ok(())
    }

    /// Decides framing and persistence (RFC 9112 sections 6.3 and 9.3).
    fn conclude(&mut self, buf: &[u8], head_request: bool) -> Result<(), ResponseError> {
        let declared = self.declared_framing(buf)?;
        let bodyless = head_request || matches!(self.status, 100..=199 | 204 | 304);
        self.framing = if bodyless { Framing::None } else { declared };
        self.upgrade = self.status == 101;
        self.keep_alive = self.version == Version::Http11
            && !self.connection.close
            && !self.upgrade
            && self.framing != Framing::UntilClose;
        Ok(())
    }

    fn declared_framing(&self, buf: &[u8]) -> Result<Framing, ResponseError> {
        let length = self.headers.first(KnownHeader::ContentLength);
        let coding = self.headers.first(KnownHeader::TransferEncoding);
        match (length, coding) {
            (Some(_), Some(_)) => Err(ResponseError::ContentLengthAndTransferEncoding),
            (Some(line), None) => framing::content_length(line.value.of(buf))
                .map(Framing::Length)
                .ok_or(ResponseError::InvalidContentLength { value: line.value }),
            (None, Some(line)) if line.value.of(buf).eq_ignore_ascii_case(b"chunked") => Ok(Framing::Chunked),
            (None, Some(line)) => Err(ResponseError::UnknownTransferEncoding { value: line.value }),
            (None, None) => Ok(Framing::UntilClose),
        }
    }
}

const PROTOCOL: &[u8] = b"HTTP/";

#[cold]
fn invalid_header(buf: &[u8], start: usize, at: usize) -> ResponseError {
    ResponseError::InvalidHeader { line: Span::new(start, at), byte: buf.get(at).copied().unwrap_or(0) }
}

#[cfg(test)]
mod tests;
