//! The head of a request, read from a growing buffer.
//!
//! Lines are read as they become whole, so that a head that arrives byte by byte costs no more looks at a byte than
//! one that arrives at once, and gives the same result. What follows from the fields (framing, persistence) is
//! decided once the head is whole (RFC 9112 sections 6.3 and 9.3).

use smallvec::SmallVec;

use crate::framing::{self, Connection, Framing};
use crate::header::{self, HeaderLine, Headers, KnownHeader, NameSet, RawLine};
use crate::line::{Found, Lines};
use crate::request_line::{self, Method, RequestLine, Version};
use crate::{HeadLimits, RequestError, Span, host, uri};

/// How far a head has been read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Partial,
    /// The head is whole.
    Complete {
        /// How many bytes of the buffer the head takes, empty lines before it included; the body starts there.
        head_len: usize,
    },
}

/// A request head. One value serves a connection: [`clear`](Self::clear) it before each request.
#[derive(Clone, Debug, Default)]
pub struct RequestHead {
    /// The request line.
    pub line: RequestLine,
    /// The header lines.
    pub headers: Headers,
    /// The name of the host asked for, without port and trailing dot, as sent: that of an absolute target, otherwise
    /// that of the Host field.
    pub host: Option<Span>,
    /// The port sent with the host.
    pub port: Option<u16>,
    /// Whether `host` has upper-case letters.
    pub host_has_upper: bool,
    /// How the body is delimited; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether the client lets the connection persist.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// Whether the client asks to switch protocols (the field Upgrade, named by Connection).
    pub upgrade: bool,
    /// How many lines were dropped because of their names.
    pub ignored_lines: u32,
    /// The first of the lines that were dropped.
    pub first_ignored_line: Option<Span>,
    connection: Connection,
    lines: Lines,
    stage: Stage,
    known_host: KnownHost,
}

/// The host that was asked for last. Clients mostly ask for the same one, so that it is taken apart once.
#[derive(Clone, Debug, Default)]
struct KnownHost {
    field: SmallVec<[u8; 64]>,
    host: Option<host::Host>,
}

/// A host field that is longer is taken apart each time.
const KNOWN_HOST_BYTES_MAX: usize = 256;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Empty lines before the request line are skipped.
    #[default]
    Before,
    /// The request line has not arrived whole; `true` once its method was seen to be valid.
    RequestLine(bool),
    Headers,
    Complete,
}

/// The fields that a request may have only once (nginx's list); Host has an error of its own.
const UNIQUE: u64 = KnownHeader::IfModifiedSince.bit()
    | KnownHeader::IfUnmodifiedSince.bit()
    | KnownHeader::IfMatch.bit()
    | KnownHeader::IfNoneMatch.bit()
    | KnownHeader::ContentLength.bit()
    | KnownHeader::ContentRange.bit()
    | KnownHeader::IfRange.bit()
    | KnownHeader::TransferEncoding.bit()
    | KnownHeader::Expect.bit()
    | KnownHeader::Authorization.bit()
    | KnownHeader::ProxyAuthorization.bit();

/// The fields that say how the body is delimited.
const FRAMING: NameSet = NameSet::of(&[KnownHeader::ContentLength, KnownHeader::TransferEncoding]);

/// The fields with which a client of HTTP/1.1 asks for more than a response.
const WISHES: NameSet = NameSet::of(&[KnownHeader::Expect, KnownHeader::Upgrade]);

impl RequestHead {
    /// Forgets the request, keeping what was allocated for its header lines.
    pub fn clear(&mut self) {
        // Field by field: the header lines take most of the struct and need not move.
        let Self {
            line,
            headers,
            host,
            port,
            host_has_upper,
            framing,
            keep_alive,
            expect_continue,
            upgrade,
            ignored_lines,
            first_ignored_line,
            connection,
            lines,
            stage,
            known_host: _,
        } = self;
        headers.clear();
        *line = RequestLine::default();
        *host = None;
        *port = None;
        *host_has_upper = false;
        *framing = Framing::default();
        *keep_alive = false;
        *expect_continue = false;
        *upgrade = false;
        *ignored_lines = 0;
        *first_ignored_line = None;
        *connection = Connection::default();
        *lines = Lines::default();
        *stage = Stage::default();
    }

    /// Reads on in `buf`, which holds the connection's bytes from the start of this request.
    ///
    /// Between two calls `buf` may grow at its end and may move, but must not change otherwise. After an error, and
    /// before the next request, [`clear`](Self::clear) must be called.
    pub fn parse(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Progress, RequestError> {
        let head_max = limits.head_bytes_max();
        if self.stage == Stage::Before && !self.skip_empty_lines(buf, head_max)? {
            return Ok(Progress::Partial);
        }
        if let Stage::RequestLine(method_seen) = self.stage {
            if !self.parse_request_line(buf, limits, head_max, method_seen)? {
                return Ok(Progress::Partial);
            }
            self.stage = Stage::Headers;
        }
        if self.stage == Stage::Headers {
            if !self.parse_headers(buf, limits, head_max)? {
                return Ok(Progress::Partial);
            }
            self.stage = Stage::Complete;
        }
        Ok(Progress::Complete { head_len: self.lines.start() })
    }

    /// Whether the request line has begun.
    #[inline]
    fn skip_empty_lines(&mut self, buf: &[u8], head_max: usize) -> Result<bool, RequestError> {
        let mut start = self.lines.start();
        while matches!(buf.get(start), Some(b'\r' | b'\n')) {
            start += 1;
        }
        if start >= head_max {
            return Err(RequestError::HeadTooLarge);
        }
        self.lines = Lines::at(start);
        let has_begun = start < buf.len();
        if has_begun {
            self.stage = Stage::RequestLine(false);
        }
        Ok(has_begun)
    }

    /// The path that locations are matched against, and the query; see [`uri::normalize`]. A path that needs no work
    /// is given as a span of `buf`, the buffer that was parsed, and `out` is left alone.
    #[inline]
    pub fn uri(
        &self,
        buf: &[u8],
        merge_slashes: bool,
        out: &mut Vec<u8>,
    ) -> Result<uri::Parts, uri::UriError> {
        if !self.line.complex {
            return Ok(uri::Parts { path: uri::Path::AsSent(self.line.path), args: self.line.args });
        }
        uri::normalize(self.line.target.of(buf), out, merge_slashes)
            .map(|parts| uri::Parts { args: self.line.args, ..parts })
    }

    fn parse_request_line(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
        head_max: usize,
        method_seen: bool,
    ) -> Result<bool, RequestError> {
        let searched = self.lines.scanned();
        let limit = self.lines.start().saturating_add(limits.line_bytes_max()).min(head_max);
        let found = self.lines.next(buf, limit);
        if let Found::Line { start, end } = found {
            request_line::parse(&mut self.line, buf, start, end)?;
            if let Some(authority) = self.line.authority {
                self.set_host(buf, authority).ok_or(RequestError::InvalidHostInRequestLine)?;
            }
            return Ok(true);
        }
        // A method that cannot become valid is refused at once: the client may not speak HTTP at all.
        let stop = if let Found::BadByte(at) = found { at + 1 } else { buf.len().min(limit) };
        let mut method_seen = method_seen;
        if !method_seen {
            let rest = buf.get(searched..stop).unwrap_or_default();
            match rest.iter().position(|&byte| !request_line::is_method_byte(byte)) {
                Some(at) if rest[at] == b' ' && searched + at > self.lines.start() => method_seen = true,
                // The line end itself may be cut between its two bytes.
                Some(at) if rest[at] == b'\r' && found == Found::Partial && searched + at + 1 == stop => {}
                Some(_) => return Err(RequestError::InvalidMethod),
                None => {}
            }
        }
        match found {
            Found::BadByte(_) => Err(RequestError::InvalidRequest),
            Found::TooLong => Err(RequestError::UriTooLong),
            _ => {
                self.stage = Stage::RequestLine(method_seen);
                Ok(false)
            }
        }
    }

    fn parse_headers(
        &mut self,
        buf: &[u8],
        limits: &HeadLimits,
        head_max: usize,
    ) -> Result<bool, RequestError> {
        let line_max = limits.line_bytes_max();
        loop {
            let line_start = self.lines.start();
            let limit = line_start.saturating_add(line_max).min(head_max);
            if self.lines.take_empty(buf, limit) {
                self.conclude(buf)?;
                return Ok(true);
            }
            match self.lines.next(buf, limit) {
                Found::Line { start, end } if start == end => {
                    self.conclude(buf)?;
                    return Ok(true);
                }
                Found::Line { start, end } => {
                    let raw =
                        header::split_line(buf, start, end).map_err(|at| invalid_line(buf, start, at))?;
                    self.take_line(buf, raw, limits)?;
                }
                Found::Partial => return Ok(false),
                Found::TooLong if limit == head_max => return Err(RequestError::HeadTooLarge),
                Found::TooLong => {
                    return Err(RequestError::HeaderLineTooLong { line: Span::new(line_start, limit) });
                }
                Found::BadByte(at) => return Err(invalid_line(buf, line_start, at)),
            }
        }
    }

    #[inline]
    fn take_line(&mut self, buf: &[u8], raw: RawLine, limits: &HeadLimits) -> Result<(), RequestError> {
        let invalid = raw.odd || (raw.underscore && !limits.underscores_in_headers);
        if invalid && limits.ignore_invalid_headers {
            self.ignored_lines += 1;
            let whole = Span::new(raw.name.start(), raw.value.end());
            self.first_ignored_line.get_or_insert(whole);
            return Ok(());
        }
        if self.headers.lines().len() >= limits.headers_max as usize {
            return Err(RequestError::TooManyHeaders);
        }
        let line = HeaderLine { name: raw.name, value: raw.value, id: raw.id };
        if let Some(id) = line.id {
            if UNIQUE & id.bit() != 0 {
                self.check_unique(&line, id)?;
            }
            match id {
                KnownHeader::Host => self.take_host(buf, &line)?,
                KnownHeader::Connection => self.connection.add(line.value.of(buf)),
                _ => {}
            }
        }
        self.headers.push(line);
        Ok(())
    }

    fn check_unique(&self, line: &HeaderLine, id: KnownHeader) -> Result<(), RequestError> {
        match self.headers.first(id) {
            Some(previous) => {
                Err(RequestError::DuplicateHeader { line: whole(line), previous: whole(previous) })
            }
            None => Ok(()),
        }
    }

    fn take_host(&mut self, buf: &[u8], line: &HeaderLine) -> Result<(), RequestError> {
        if let Some(previous) = self.headers.first(KnownHeader::Host) {
            return Err(RequestError::DuplicateHost { line: whole(line), previous: whole(previous) });
        }
        // The host of an absolute target goes before that of the field (RFC 9112 section 3.2.2).
        let valid = if self.line.authority.is_some() {
            host::parse(line.value.of(buf)).map(|_| ())
        } else {
            self.set_host(buf, line.value)
        };
        valid.ok_or(RequestError::InvalidHost)
    }

    fn set_host(&mut self, buf: &[u8], field: Span) -> Option<()> {
        let text = field.of(buf);
        let host = match self.known_host.host {
            Some(known) if self.known_host.field[..] == *text => known,
            _ => {
                let host = host::parse(text)?;
                if text.len() <= KNOWN_HOST_BYTES_MAX {
                    self.known_host.field.clear();
                    self.known_host.field.extend_from_slice(text);
                    self.known_host.host = Some(host);
                }
                host
            }
        };
        self.host = Some(Span::new(field.start(), field.start() + host.name_len));
        self.port = host.port;
        self.host_has_upper = host.has_upper;
        Some(())
    }

    /// Decides what follows from the fields, in nginx's order of complaints.
    fn conclude(&mut self, buf: &[u8]) -> Result<(), RequestError> {
        let http11 = self.line.version == Version::Http11;
        if http11 && !self.headers.has(KnownHeader::Host) {
            return Err(RequestError::MissingHost);
        }
        if self.headers.has_any(FRAMING) {
            self.framing = self.body_framing(buf, http11)?;
        }
        match self.line.method {
            Method::Connect => return Err(RequestError::ConnectMethod),
            Method::Trace => return Err(RequestError::TraceMethod),
            _ => {}
        }
        self.keep_alive = !self.connection.close && (http11 || self.connection.keep_alive);
        if http11 && self.headers.has_any(WISHES) {
            let expect = self.headers.value(buf, KnownHeader::Expect);
            self.expect_continue = expect.is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"));
            self.upgrade = self.connection.upgrade && self.headers.has(KnownHeader::Upgrade);
        }
        Ok(())
    }

    fn body_framing(&self, buf: &[u8], http11: bool) -> Result<Framing, RequestError> {
        let length = match self.headers.value(buf, KnownHeader::ContentLength) {
            Some(value) => Some(framing::content_length(value).ok_or(RequestError::InvalidContentLength)?),
            None => None,
        };
        let Some(coding) = self.headers.first(KnownHeader::TransferEncoding) else {
            return Ok(length.map_or(Framing::None, Framing::Length));
        };
        if !http11 {
            return Err(RequestError::TransferEncodingInHttp10);
        }
        if !coding.value.of(buf).eq_ignore_ascii_case(b"chunked") {
            return Err(RequestError::UnknownTransferEncoding { value: coding.value });
        }
        if length.is_some() {
            return Err(RequestError::ContentLengthAndTransferEncoding);
        }
        Ok(Framing::Chunked)
    }
}

fn whole(line: &HeaderLine) -> Span {
    Span::new(line.name.start(), line.value.end())
}

#[cold]
fn invalid_line(buf: &[u8], start: usize, at: usize) -> RequestError {
    RequestError::InvalidHeaderLine { line: Span::new(start, at), byte: buf.get(at).copied().unwrap_or(0) }
}

#[cfg(test)]
mod tests;
