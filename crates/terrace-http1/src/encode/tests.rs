//! Tests of what is written.

use super::*;
use crate::{BodyDecoder, Framing, reason};

#[test]
fn chunks_can_be_decoded() {
    for len in [1, 9, 10, 15, 16, 255, 4096, 70_000] {
        let mut out = Vec::new();
        chunk_header(len, &mut out);
        assert_eq!(out, format!("{len:x}\r\n").into_bytes());
        out.resize(out.len() + len, b'x');
        out.extend_from_slice(CRLF);
        out.extend_from_slice(LAST_CHUNK);
        let decoded = BodyDecoder::new(Framing::Chunked).decode(&out).expect("valid");
        assert_eq!((decoded.data.len(), decoded.consumed, decoded.finished), (len, out.len(), true));
    }
    let mut out = Vec::new();
    chunk_header(usize::MAX, &mut out);
    assert_eq!(out, format!("{:x}\r\n", usize::MAX).into_bytes());
}

#[test]
fn status_lines_are_those_of_nginx() {
    for (status, line) in [
        (200, "HTTP/1.1 200 OK\r\n"),
        (302, "HTTP/1.1 302 Moved Temporarily\r\n"),
        (404, "HTTP/1.1 404 Not Found\r\n"),
        (299, "HTTP/1.1 299 \r\n"),
        (7, "HTTP/1.1 007 \r\n"),
    ] {
        let mut out = Vec::new();
        write_status_line(&mut out, status);
        assert_eq!(out, line.as_bytes());
    }
    assert_eq!(reason(503), Some("Service Temporarily Unavailable"));
    assert_eq!(reason(203), None);
}

#[test]
fn header_lines_cannot_be_split() {
    let mut out = Vec::new();
    assert_eq!(write_header(&mut out, b"X-A", b"b c"), Ok(()));
    assert_eq!(write_number_header(&mut out, b"Content-Length", u64::MAX), Ok(()));
    assert_eq!(out, b"X-A: b c\r\nContent-Length: 18446744073709551615\r\n");
    out.clear();
    for value in [&b"a\rb"[..], b"a\nb", b"a\0b", b"a\r\nX: y"] {
        assert_eq!(write_header(&mut out, b"X-A", value), Err(EncodeError::InvalidValue));
    }
    for name in [&b""[..], b"a b", b"a:", b"a\r\nb", b"a\0", b"\xe9"] {
        assert_eq!(write_header(&mut out, name, b"v"), Err(EncodeError::InvalidName));
        assert_eq!(write_header_escaped(&mut out, name, b"v"), Err(EncodeError::InvalidName));
        assert_eq!(write_number_header(&mut out, name, 1), Err(EncodeError::InvalidName));
    }
    assert!(out.is_empty());
    assert_eq!(write_header_escaped(&mut out, b"X-A", b"a\r\nb\0"), Ok(()));
    assert_eq!(out, b"X-A: a%0D%0Ab%00\r\n");
}

#[test]
fn request_lines_cannot_be_split() {
    let mut out = Vec::new();
    assert_eq!(write_request_line(&mut out, b"GET", b"/a?b", Version::Http11), Ok(()));
    assert_eq!(write_request_line(&mut out, b"PUT", b"/", Version::Http10), Ok(()));
    assert_eq!(out, b"GET /a?b HTTP/1.1\r\nPUT / HTTP/1.0\r\n");
    for (method, target) in [("", "/"), ("G T", "/"), ("GET", ""), ("GET", "/a b"), ("GET", "/\r\nX:")] {
        let refused = write_request_line(&mut out, method.as_bytes(), target.as_bytes(), Version::Http11);
        assert_eq!(refused, Err(EncodeError::InvalidRequestLine));
    }
}
