//! Tests of request heads: each rule, at once and byte by byte.

use super::*;

fn read(head: &[u8], limits: &HeadLimits) -> Result<(RequestHead, Progress), RequestError> {
    let mut request = RequestHead::default();
    let progress = request.parse(head, limits)?;
    Ok((request, progress))
}

/// Reads `head` at once, split in two at every byte, and byte by byte; the outcome must be the same.
fn outcome(head: &[u8], limits: &HeadLimits) -> Result<RequestHead, RequestError> {
    let at_once = read(head, limits).map(|(request, progress)| {
        assert_ne!(progress, Progress::Partial, "{}", head.escape_ascii());
        request
    });
    let expected = format!("{at_once:?}");
    let finish = |request: &mut RequestHead, from: usize| {
        for end in from..=head.len() {
            match request.parse(&head[..end], limits) {
                Ok(Progress::Partial) => {}
                Ok(Progress::Complete { .. }) => return Ok(request.clone()),
                Err(error) => return Err(error),
            }
        }
        panic!("never complete: {}", head.escape_ascii());
    };
    for split in 0..head.len() {
        let mut request = RequestHead::default();
        let split_in_two = match request.parse(&head[..split], limits) {
            Ok(Progress::Partial) => finish(&mut request, head.len()),
            Ok(Progress::Complete { .. }) => Ok(request),
            Err(error) => Err(error),
        };
        assert_eq!(format!("{split_in_two:?}"), expected, "split at {split}: {}", head.escape_ascii());
    }
    let stepwise = finish(&mut RequestHead::default(), 0);
    assert_eq!(format!("{stepwise:?}"), expected, "byte by byte: {}", head.escape_ascii());
    at_once
}

fn accept(head: &str) -> RequestHead {
    outcome(head.as_bytes(), &HeadLimits::default()).unwrap_or_else(|error| panic!("{head:?}: {error}"))
}

fn refuse(head: &str) -> RequestError {
    match outcome(head.as_bytes(), &HeadLimits::default()) {
        Ok(_) => panic!("accepted: {head:?}"),
        Err(error) => error,
    }
}

fn text(span: Span, head: &str) -> &str {
    &head[span.range()]
}

#[test]
fn a_request_is_taken_apart() {
    let head = "POST /a/b.html?x=1&y HTTP/1.1\r\nHost: Shop.example:8080\r\nX-Two:\t two words \r\n\
                content-length: 12\r\nEmpty:\r\n\r\n";
    let request = accept(head);
    assert_eq!(request.line.method, Method::Post);
    assert_eq!(text(request.line.method_name, head), "POST");
    assert_eq!(text(request.line.whole, head), "POST /a/b.html?x=1&y HTTP/1.1");
    assert_eq!(text(request.line.target, head), "/a/b.html?x=1&y");
    assert_eq!(text(request.line.path, head), "/a/b.html");
    assert_eq!(request.line.args.map(|args| text(args, head)), Some("x=1&y"));
    assert_eq!(text(request.line.protocol, head), "HTTP/1.1");
    assert!(!request.line.complex);
    assert_eq!(request.host.map(|host| text(host, head)), Some("Shop.example"));
    assert_eq!((request.port, request.host_has_upper), (Some(8080), true));
    assert_eq!(request.framing, Framing::Length(12));
    assert!(request.keep_alive && !request.expect_continue && !request.upgrade);
    let lines: Vec<_> =
        request.headers.lines().iter().map(|line| (text(line.name, head), text(line.value, head))).collect();
    assert_eq!(
        lines,
        [("Host", "Shop.example:8080"), ("X-Two", "two words"), ("content-length", "12"), ("Empty", "")]
    );
    assert_eq!(request.headers.value(head.as_bytes(), KnownHeader::ContentLength), Some(&b"12"[..]));
    assert_eq!(request.headers.named(head.as_bytes(), b"x-two").count(), 1);
    assert_eq!(request.headers.all(KnownHeader::Cookie).count(), 0);
}

#[test]
fn request_lines() {
    let host = "\r\nHost: h\r\n\r\n";
    let accepted: &[(&str, &str, Option<&str>, bool)] = &[
        ("GET / HTTP/1.1", "/", None, false),
        ("GET   /a   HTTP/1.1  ", "/a", None, false),
        ("GET /a? HTTP/1.0", "/a", Some(""), false),
        ("GET /a.b/c.d HTTP/1.2", "/a.b/c.d", None, false),
        ("GET /a?b#c HTTP/1.1", "/a", Some("b"), false),
        ("GET /a#c?b HTTP/1.1", "/a", None, true),
        ("GET //a HTTP/1.1", "//a", None, true),
        ("GET /a/../b HTTP/1.1", "/a/../b", None, true),
        ("GET /%41?%zz HTTP/1.1", "/%41", Some("%zz"), true),
        ("GET http://x/a?b HTTP/1.1", "/a", Some("b"), false),
        ("GET http://x:80 HTTP/1.1", "/", None, false),
        ("GET http://x?q HTTP/1.1", "", Some("q"), true),
        ("MY-METHOD_X / HTTP/1.1", "/", None, false),
    ];
    for &(line, path, args, complex) in accepted {
        let head = format!("{line}{host}");
        let request = accept(&head);
        assert_eq!(text(request.line.path, &head), path, "{line}");
        assert_eq!(request.line.args.map(|args| text(args, &head)), args, "{line}");
        assert_eq!(request.line.complex, complex, "{line}");
    }
    let refused: &[(&str, RequestError, u16)] = &[
        ("get / HTTP/1.1", RequestError::InvalidMethod, 400),
        (" GET / HTTP/1.1", RequestError::InvalidMethod, 400),
        ("GET", RequestError::InvalidMethod, 400),
        ("GE\tT / HTTP/1.1", RequestError::InvalidMethod, 400),
        ("\u{16}\u{3}\u{1}", RequestError::InvalidMethod, 400),
        ("G\u{0}T / HTTP/1.1", RequestError::InvalidMethod, 400),
        ("GET /a\u{0}b HTTP/1.1", RequestError::InvalidRequest, 400),
        ("GET /a\rb HTTP/1.1", RequestError::InvalidRequest, 400),
        ("GET /a\tb HTTP/1.1", RequestError::InvalidRequest, 400),
        ("GET /a\u{7f} HTTP/1.1", RequestError::InvalidRequest, 400),
        ("GET /a b HTTP/1.1", RequestError::InvalidRequest, 400),
        ("GET * HTTP/1.1", RequestError::InvalidRequest, 400),
        ("GET http:/x HTTP/1.1", RequestError::InvalidRequest, 400),
        ("GET / HTTP/1.1 x", RequestError::InvalidRequest, 400),
        ("GET / HTTP/1", RequestError::InvalidRequest, 400),
        ("GET / HTTP/0.9", RequestError::InvalidRequest, 400),
        ("GET / HTTP/1.1234", RequestError::InvalidRequest, 400),
        ("GET / http/1.1", RequestError::InvalidRequest, 400),
        ("GET / HTTP/2.0", RequestError::InvalidVersion, 505),
        ("GET / HTTP/11.0", RequestError::InvalidVersion, 505),
        ("GET /", RequestError::Http09, 400),
        ("GET / ", RequestError::Http09, 400),
        ("GET http://a@b/ HTTP/1.1", RequestError::InvalidHostInRequestLine, 400),
        ("GET http:///a HTTP/1.1", RequestError::InvalidHostInRequestLine, 400),
        ("CONNECT h:443 HTTP/1.1", RequestError::ConnectMethod, 405),
        ("TRACE / HTTP/1.1", RequestError::TraceMethod, 405),
    ];
    for &(line, error, status) in refused {
        let got = refuse(&format!("{line}{host}"));
        assert_eq!((got, got.status()), (error, status), "{line:?}");
    }
}

#[test]
fn an_absolute_target_names_the_host() {
    let head = "GET https://A.example:444/x HTTP/1.1\r\nHost: other\r\n\r\n";
    let request = accept(head);
    assert_eq!(request.host.map(|host| text(host, head)), Some("A.example"));
    assert_eq!(request.port, Some(444));
    assert_eq!(request.line.scheme.map(|scheme| text(scheme, head)), Some("https"));
    assert_eq!(refuse("GET http://a/ HTTP/1.1\r\n\r\n"), RequestError::MissingHost);
    assert_eq!(refuse("GET http://a/ HTTP/1.1\r\nHost: a b\r\n\r\n"), RequestError::InvalidHost);
}

#[test]
fn line_ends_and_empty_lines() {
    let head = "\r\n\n\r\nGET / HTTP/1.1\nHost: h\nA: b\r\n\n";
    let request = accept(head);
    assert_eq!(request.headers.lines().len(), 2);
    let (_, progress) = read(head.as_bytes(), &HeadLimits::default()).expect("valid");
    assert_eq!(progress, Progress::Complete { head_len: head.len() });
}

#[test]
fn header_lines_are_refused() {
    let lines = [
        "A : b",
        "A\t: b",
        " folded",
        "\tfolded",
        ": b",
        "A: b\rc",
        "A: b\u{0}",
        "A\u{0}: b",
        "A\u{1}: b",
        "A b: c",
        "A: b\r\r",
        "A\u{7f}: b",
    ];
    for line in lines {
        let error = refuse(&format!("GET / HTTP/1.1\r\nHost: h\r\n{line}\r\n\r\n"));
        assert!(matches!(error, RequestError::InvalidHeaderLine { .. }), "{line:?}: {error:?}");
        assert_eq!(error.status(), 400);
    }
    let head = "GET / HTTP/1.1\r\nAb\u{1}: b\r\n\r\n";
    assert_eq!(refuse(head).log_line(head.as_bytes()), "client sent invalid header line: \"Ab\\x01...\"",);
}

#[test]
fn host_length_and_coding_fields() {
    let refused: &[(&str, u16, &str)] = &[
        ("", 400, "client sent HTTP/1.1 request without \"Host\" header"),
        ("Host:", 400, "client sent invalid host header"),
        ("Host: a b", 400, "client sent invalid host header"),
        (
            "Host: a\r\nhost: a",
            400,
            "client sent duplicate host header: \"host: a\", previous value: \"Host: a\"",
        ),
        (
            "Host: a\r\nContent-Length: 5\r\nContent-Length: 5",
            400,
            "client sent duplicate header line: \"Content-Length: 5\", previous value: \"Content-Length: 5\"",
        ),
        ("Host: a\r\nContent-Length: +5", 400, "client sent invalid \"Content-Length\" header"),
        ("Host: a\r\nContent-Length: -5", 400, "client sent invalid \"Content-Length\" header"),
        ("Host: a\r\nContent-Length: 5, 5", 400, "client sent invalid \"Content-Length\" header"),
        ("Host: a\r\nContent-Length: 0x5", 400, "client sent invalid \"Content-Length\" header"),
        ("Host: a\r\nContent-Length:", 400, "client sent invalid \"Content-Length\" header"),
        (
            "Host: a\r\nContent-Length: 9223372036854775808",
            400,
            "client sent invalid \"Content-Length\" header",
        ),
        (
            "Host: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked",
            400,
            "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        ),
        (
            "Host: a\r\nTransfer-Encoding: gzip, chunked",
            501,
            "client sent unknown \"Transfer-Encoding\": \"gzip, chunked\"",
        ),
        (
            "Host: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            400,
            "client sent duplicate header line: \"Transfer-Encoding: chunked\", previous value: \
             \"Transfer-Encoding: chunked\"",
        ),
    ];
    for &(lines, status, log) in refused {
        let separator = if lines.is_empty() { "" } else { "\r\n" };
        let head = format!("GET / HTTP/1.1\r\n{lines}{separator}\r\n");
        let error = refuse(&head);
        assert_eq!(error.status(), status, "{lines:?}");
        assert_eq!(error.log_line(head.as_bytes()), log, "{lines:?}");
    }
    let old = "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(refuse(old), RequestError::TransferEncodingInHttp10);
    let chunked = accept("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n");
    assert_eq!(chunked.framing, Framing::Chunked);
    let none = accept("GET / HTTP/1.0\r\n\r\n");
    assert_eq!((none.framing, none.host), (Framing::None, None));
    let most = accept("GET / HTTP/1.0\r\nContent-Length: 9223372036854775807\r\n\r\n");
    assert_eq!(most.framing, Framing::Length(i64::MAX as u64));
}

#[test]
fn every_unique_field_is_refused_when_repeated() {
    for &id in KnownHeader::ALL {
        let head = format!("GET / HTTP/1.0\r\n{0}: 1\r\n{0}: 1\r\n\r\n", id.name());
        let refused = outcome(head.as_bytes(), &HeadLimits::default()).is_err();
        let unique =
            UNIQUE & id.bit() != 0 || matches!(id, KnownHeader::Host | KnownHeader::TransferEncoding);
        assert_eq!(refused, unique, "{}", id.name());
    }
}

#[test]
fn persistence_expectation_and_upgrade() {
    let cases: &[(&str, &str, bool)] = &[
        ("1.1", "", true),
        ("1.0", "", false),
        ("1.1", "Connection: close\r\n", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: foo , keep-alive\r\n", true),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.1", "Connection: close\r\nConnection: keep-alive\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
    ];
    for &(version, line, keep_alive) in cases {
        let request = accept(&format!("GET / HTTP/{version}\r\nHost: h\r\n{line}\r\n"));
        assert_eq!(request.keep_alive, keep_alive, "{version} {line:?}");
    }
    assert!(accept("PUT / HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n\r\n").expect_continue);
    assert!(!accept("PUT / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n").expect_continue);
    assert!(!accept("PUT / HTTP/1.0\r\nHost: h\r\nExpect: 100-continue\r\n\r\n").expect_continue);
    assert!(accept("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").upgrade);
    assert!(!accept("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n").upgrade);
}

#[test]
fn odd_names_follow_the_flags() {
    let head = "GET / HTTP/1.0\r\nA_b: 1\r\nC!d: 2\r\nE-f: 3\r\nContent_Length: 7\r\n\r\n";
    for (ignore, underscores, expected) in
        [(true, false, 1), (true, true, 3), (false, false, 4), (false, true, 4)]
    {
        let limits = HeadLimits {
            ignore_invalid_headers: ignore,
            underscores_in_headers: underscores,
            ..HeadLimits::default()
        };
        let request = outcome(head.as_bytes(), &limits).expect("valid");
        assert_eq!(request.headers.lines().len(), expected, "{ignore} {underscores}");
        assert_eq!(request.ignored_lines as usize, 4 - expected);
        assert_eq!(request.framing, Framing::None);
    }
    let request = accept(head);
    assert_eq!(request.first_ignored_line.map(|line| text(line, head)), Some("A_b: 1"));
}

#[test]
fn limits_are_kept() {
    let limits = HeadLimits {
        client_header_buffer_size: 32,
        large_client_header_buffers_number: 2,
        large_client_header_buffers_size: 64,
        headers_max: 3,
        ..HeadLimits::default()
    };
    let line = |len: usize| format!("GET /{} HTTP/1.0\r\n", "a".repeat(len - 16));
    assert!(outcome(format!("{}\r\n", line(64)).as_bytes(), &limits).is_ok());
    let too_long = outcome(format!("{}\r\n", line(65)).as_bytes(), &limits).expect_err("too long");
    assert_eq!((too_long, too_long.status()), (RequestError::UriTooLong, 414));
    let field = |len: usize| format!("{}A: {}\r\n\r\n", line(20), "b".repeat(len - 5));
    assert!(outcome(field(64).as_bytes(), &limits).is_ok());
    let too_long = outcome(field(65).as_bytes(), &limits).expect_err("too long");
    assert!(matches!(too_long, RequestError::HeaderLineTooLong { .. }));
    assert_eq!((too_long.status(), too_long.wire_status()), (494, 400));
    let many = format!("{}{}\r\n", line(20), "A: b\r\n".repeat(4));
    assert_eq!(outcome(many.as_bytes(), &limits).expect_err("too many"), RequestError::TooManyHeaders);
    let large = format!("{0}A: {1}\r\nA: {1}\r\nA: {1}\r\n\r\n", line(20), "b".repeat(50));
    assert_eq!(outcome(large.as_bytes(), &limits).expect_err("too large"), RequestError::HeadTooLarge);
    let empty = "\r\n".repeat(80);
    assert_eq!(outcome(empty.as_bytes(), &limits).expect_err("too large"), RequestError::HeadTooLarge);
    let method = "A".repeat(70);
    assert_eq!(outcome(method.as_bytes(), &limits).expect_err("too long"), RequestError::UriTooLong);
}

#[test]
fn pipelined_requests_are_told_apart() {
    let first = "GET /1 HTTP/1.1\r\nHost: h\r\n\r\n";
    let second = "\r\nGET /2 HTTP/1.1\r\nHost: h\r\nA: b\r\n\r\n";
    let both = format!("{first}{second}");
    let mut request = RequestHead::default();
    let limits = HeadLimits::default();
    let progress = request.parse(both.as_bytes(), &limits);
    assert_eq!(progress, Ok(Progress::Complete { head_len: first.len() }));
    assert_eq!(request.parse(both.as_bytes(), &limits), progress);
    request.clear();
    let rest = &both.as_bytes()[first.len()..];
    assert_eq!(request.parse(rest, &limits), Ok(Progress::Complete { head_len: second.len() }));
    assert_eq!(request.line.path.of(rest), b"/2");
    assert_eq!(request.headers.lines().len(), 2);
}
