//! Writing heads and chunks.
//!
//! Nothing that is written here can end a line early: names and values with CR, LF or NUL are refused, or escaped
//! where asked for. The output grows as needed (`Vec<u8>`, `BytesMut`); a fixed slice as output must be large enough.

use bytes::BufMut;
use memchr::memchr3;
use thiserror::Error;

use crate::{Version, status_line};

/// Ends a line, a head, and the data of a chunk.
pub const CRLF: &[u8] = b"\r\n";

/// Ends a chunked body without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Why something was not written; nothing of it was.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum EncodeError {
    /// The name is empty or has a byte that is no token character (RFC 9110 section 5.1).
    #[error("invalid header name")]
    InvalidName,
    /// The value has CR, LF or NUL.
    #[error("invalid header value")]
    InvalidValue,
    /// The method is no token, or the target is empty or has a space or a control character.
    #[error("invalid request line")]
    InvalidRequestLine,
}

/// Writes the size line of a chunk of `len` bytes; its data and [`CRLF`] follow. `len` must not be 0, which would
/// end the body.
pub fn chunk_header(len: usize, out: &mut impl BufMut) {
    debug_assert!(len > 0);
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // As many digits as a length can have, from the last to the first.
    let mut line = *b"0000000000000000\r\n";
    let mut begin = line.len() - CRLF.len();
    let mut rest = len;
    while rest > 0 {
        begin -= 1;
        line[begin] = DIGITS[rest % 16];
        rest /= 16;
    }
    out.put_slice(&line[begin..]);
}

/// The most that [`chunk_header`] and the line end behind a chunk add to its bytes.
pub const CHUNK_FRAME_BYTES_MAX: usize = usize::BITS as usize / 4 + 4;

/// Writes the status line of an HTTP/1.1 response, with the bare number where nginx has no reason phrase.
pub fn write_status_line(out: &mut impl BufMut, status: u16) {
    match status_line(status) {
        Some(line) => out.put_slice(line),
        None => {
            out.put_slice(b"HTTP/1.1 ");
            if status < 100 {
                out.put_slice(if status < 10 { b"00" } else { b"0" });
            }
            write_number(out, u64::from(status));
            out.put_slice(b" ");
        }
    }
    out.put_slice(b"\r\n");
}

/// Writes a request line for an upstream.
pub fn write_request_line(
    out: &mut impl BufMut,
    method: &[u8],
    target: &[u8],
    version: Version,
) -> Result<(), EncodeError> {
    let target_ok = !target.is_empty() && target.iter().all(|&byte| byte > b' ' && byte != 0x7f);
    if !is_token(method) || !target_ok {
        return Err(EncodeError::InvalidRequestLine);
    }
    out.put_slice(method);
    out.put_slice(b" ");
    out.put_slice(target);
    out.put_slice(match version {
        Version::Http10 => b" HTTP/1.0\r\n",
        Version::Http11 => b" HTTP/1.1\r\n",
    });
    Ok(())
}

/// Writes one header line; refuses a name that is no token and a value with CR, LF or NUL.
#[inline]
pub fn write_header(out: &mut impl BufMut, name: &[u8], value: &[u8]) -> Result<(), EncodeError> {
    if !is_token(name) {
        return Err(EncodeError::InvalidName);
    }
    if memchr3(b'\r', b'\n', 0, value).is_some() {
        return Err(EncodeError::InvalidValue);
    }
    put_line(out, name, value);
    Ok(())
}

/// Writes one header line with CR, LF and NUL of the value as `%0D`, `%0A` and `%00`, as a script's values are.
pub fn write_header_escaped(out: &mut impl BufMut, name: &[u8], value: &[u8]) -> Result<(), EncodeError> {
    if !is_token(name) {
        return Err(EncodeError::InvalidName);
    }
    out.put_slice(name);
    out.put_slice(b": ");
    let mut rest = value;
    while let Some(at) = memchr3(b'\r', b'\n', 0, rest) {
        out.put_slice(&rest[..at]);
        out.put_slice(match rest[at] {
            b'\r' => b"%0D",
            b'\n' => b"%0A",
            _ => b"%00",
        });
        rest = &rest[at + 1..];
    }
    out.put_slice(rest);
    out.put_slice(CRLF);
    Ok(())
}

/// Writes one header line with a decimal number; refuses a name that is no token.
pub fn write_number_header(out: &mut impl BufMut, name: &[u8], value: u64) -> Result<(), EncodeError> {
    if !is_token(name) {
        return Err(EncodeError::InvalidName);
    }
    put_line(out, name, itoa::Buffer::new().format(value).as_bytes());
    Ok(())
}

/// Writes a decimal number.
#[inline]
pub fn write_number(out: &mut impl BufMut, number: u64) {
    out.put_slice(itoa::Buffer::new().format(number).as_bytes());
}

#[inline]
fn put_line(out: &mut impl BufMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(CRLF);
}

#[inline]
fn is_token(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| TOKEN[byte as usize])
}

static TOKEN: [bool; 256] = {
    let mut token = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        token[byte] = matches!(byte as u8,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*'
            | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    token
};

#[cfg(test)]
mod tests;
