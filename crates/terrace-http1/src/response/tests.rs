//! Tests of response heads: each rule, at once and byte by byte.

use super::*;

fn outcome(head: &[u8], limits: &ResponseLimits, head_request: bool) -> Result<ResponseHead, ResponseError> {
    let mut at_once = ResponseHead::default();
    let expected = at_once.parse(head, limits, head_request);
    assert_ne!(expected, Ok(Progress::Partial), "{}", head.escape_ascii());
    let mut stepwise = ResponseHead::default();
    let got = (0..=head.len())
        .map(|end| stepwise.parse(&head[..end], limits, head_request))
        .find(|progress| *progress != Ok(Progress::Partial));
    assert_eq!(got, Some(expected), "{}", head.escape_ascii());
    expected?;
    assert_eq!(format!("{at_once:?}"), format!("{stepwise:?}"));
    Ok(at_once)
}

fn accept(head: &str) -> ResponseHead {
    outcome(head.as_bytes(), &ResponseLimits::default(), false)
        .unwrap_or_else(|error| panic!("{head:?}: {error}"))
}

fn refuse(head: &str) -> ResponseError {
    match outcome(head.as_bytes(), &ResponseLimits::default(), false) {
        Ok(_) => panic!("accepted: {head:?}"),
        Err(error) => error,
    }
}

#[test]
fn status_lines() {
    let accepted: &[(&str, u16, &str, &str)] = &[
        ("HTTP/1.1 200 OK", 200, "OK", "200 OK"),
        ("HTTP/1.1 404 Not  Found ", 404, "Not  Found ", "404 Not  Found "),
        ("HTTP/1.0 299", 299, "", "299"),
        ("HTTP/1.1 299 ", 299, "", "299 "),
        ("HTTP/1.1  403.1 No", 403, "1 No", "403.1 No"),
    ];
    for &(line, status, reason, whole) in accepted {
        let head = format!("{line}\r\n\r\n");
        let response = accept(&head);
        assert_eq!(response.status, status, "{line}");
        assert_eq!(&head[response.reason.range()], reason, "{line}");
        assert_eq!(&head[response.status_line.range()], whole, "{line}");
    }
    for line in [
        "HTTP/2.0 200 OK",
        "HTTP/1.1 20 OK",
        "HTTP/1.1 2000 OK",
        "HTTP/1.1 099 OK",
        "HTTP/1.1",
        "HTTP/1.1 ",
        "ICY 200 OK",
        "hello",
        "HTTP/1.1 200 O\u{0}K",
        "HTTP/1.1 200 O\rK",
        " HTTP/1.1 200 OK",
        "",
    ] {
        assert_eq!(refuse(&format!("{line}\r\n\r\n")), ResponseError::InvalidStatusLine, "{line:?}");
    }
    let mut early = ResponseHead::default();
    let unfinished = early.parse(b"SSH-2.0", &ResponseLimits::default(), false);
    assert_eq!(unfinished, Err(ResponseError::InvalidStatusLine));
}

#[test]
fn framing_and_persistence() {
    let cases: &[(&str, bool, Framing, bool)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", false, Framing::Length(5), true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", true, Framing::None, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", false, Framing::Chunked, true),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n", false, Framing::Chunked, false),
        ("HTTP/1.1 200 OK\r\n", false, Framing::UntilClose, false),
        ("HTTP/1.1 200 OK\r\n", true, Framing::None, true),
        ("HTTP/1.1 204 No Content\r\n", false, Framing::None, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n", false, Framing::None, true),
        ("HTTP/1.1 100 Continue\r\n", false, Framing::None, true),
        ("HTTP/1.1 101 Switching Protocols\r\n", false, Framing::None, false),
        ("HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n", false, Framing::Length(0), false),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n",
            false,
            Framing::Length(0),
            false,
        ),
    ];
    for &(lines, head_request, framing, keep_alive) in cases {
        let head = format!("{lines}\r\n");
        let response =
            outcome(head.as_bytes(), &ResponseLimits::default(), head_request).expect("valid response");
        assert_eq!((response.framing, response.keep_alive), (framing, keep_alive), "{lines:?}");
        assert_eq!(response.upgrade, response.status == 101);
    }
}

#[test]
fn what_could_split_a_response_is_refused() {
    let cases: &[(&str, &str)] = &[
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time",
        ),
        (
            "Content-Length: 5\r\nContent-Length: 6",
            "upstream sent duplicate header line: \"Content-Length: 6\", previous value: \"Content-Length: 5\"",
        ),
        ("Content-Length: 5x", "upstream sent invalid \"Content-Length\" header: \"Content-Length: 5x\""),
        ("Transfer-Encoding: gzip", "upstream sent unknown \"Transfer-Encoding\": \"gzip\""),
        ("A: b\rc", "upstream sent invalid header: \"A: b\\x0d...\""),
        ("A: b\r\n folded", "upstream sent invalid header: \"\\x20...\""),
        ("A : b", "upstream sent invalid header: \"A\\x20...\""),
    ];
    for &(lines, log) in cases {
        let head = format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n");
        assert_eq!(refuse(&head).log_line(head.as_bytes()), log, "{lines:?}");
    }
}

#[test]
fn fields_have_numbers_and_limits_are_kept() {
    let head = "HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nx-accel-redirect: /x\r\nset-cookie: b\r\nA_b!: c\r\n\r\n";
    let response = accept(head);
    assert_eq!(response.headers.all(KnownHeader::SetCookie).count(), 2);
    assert_eq!(response.headers.value(head.as_bytes(), KnownHeader::XAccelRedirect), Some(&b"/x"[..]));
    assert_eq!(response.headers.lines().len(), 4);
    let few = ResponseLimits { headers_max: 3, ..ResponseLimits::default() };
    assert_eq!(outcome(head.as_bytes(), &few, false).err(), Some(ResponseError::TooManyHeaders));
    let fits = ResponseLimits { head_bytes_max: head.len() as u32, ..ResponseLimits::default() };
    assert!(outcome(head.as_bytes(), &fits, false).is_ok());
    let small = ResponseLimits { head_bytes_max: head.len() as u32 - 1, ..ResponseLimits::default() };
    assert_eq!(outcome(head.as_bytes(), &small, false).err(), Some(ResponseError::HeadTooLarge));
}

#[test]
fn an_interim_response_is_followed_by_the_final_one() {
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let both = format!("{interim}HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    let mut response = ResponseHead::default();
    let limits = ResponseLimits::default();
    let progress = response.parse(both.as_bytes(), &limits, false);
    assert_eq!(progress, Ok(Progress::Complete { head_len: interim.len() }));
    response.clear();
    let rest = &both.as_bytes()[interim.len()..];
    assert_eq!(response.parse(rest, &limits, false), Ok(Progress::Complete { head_len: rest.len() - 1 }));
    assert_eq!((response.status, response.headers.lines().len()), (200, 1));
}
