//! Requests that are none: each is refused as nginx would, or more strictly, and the connection closed.

use e2e::http::Client;
use e2e::server::Server;

const CONF: &str = "
    error_log logs/error.log info;
    events {}
    http { server { listen 127.0.0.1:PORT; location / { return 200 ok; } } }
";

/// Bytes, and the status they get.
const REFUSED: &[(&str, &str, u16)] = &[
    (
        "both lengths",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "repeated length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        400,
    ),
    ("list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello", 400),
    ("signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", 400),
    ("negative length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", 400),
    ("hex length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", 400),
    ("huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\n", 400),
    ("folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400),
    ("bare CR in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n", 400),
    ("bare CR in the line", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("NUL in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\0\r\n\r\n", 400),
    ("NUL in the target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400),
    ("no Host", "GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    ("odd Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("lower-case method", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("no version", "GET /\r\nHost: a\r\n\r\n", 400),
    ("odd version", "GET / HTTP/1.x\r\nHost: a\r\n\r\n", 400),
    ("version 2", "GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    ("unknown coding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ("chunked in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    ("above the root", "GET /../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("escaped NUL", "GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("broken escape", "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("TLS on a plain port", "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\r\n\r\n", 400),
    ("not HTTP", "hello\r\n\r\n", 400),
];

#[test]
fn malformed_requests_are_refused_and_the_connection_closed() {
    let server = Server::start(CONF, &[]);
    for (what, bytes, status) in REFUSED {
        let mut client = server.connect();
        // A second request behind the first must never be served.
        let smuggled = format!("{bytes}GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n");
        client.send(smuggled.as_bytes()).expect("the server reads");
        let response = client.read_response(false).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(response.status, *status, "{what}");
        assert_eq!(response.header("Connection"), Some("close"), "{what}");
        assert!(client.is_closed(), "{what}: the connection stays open");
    }
    assert!(!server.error_log().contains("panicked"), "{}", server.error_log());
    assert_eq!(server.get("/").status, 200, "the server lives on");
}

#[test]
fn bad_chunks_end_the_connection() {
    let conf = CONF.replace(
        "return 200 ok;",
        "client_body_timeout 5s; content_by_lua_block { ngx.req.read_body() ngx.say('ok') }",
    );
    let server = Server::start(&conf, &[]);
    let chunks = [
        "g\r\nx\r\n0\r\n\r\n",
        "-1\r\nx\r\n",
        "5\r\nhelloX\r\n0\r\n\r\n",
        "ffffffffffffffffff\r\n",
        "5 5\r\nhello\r\n",
    ];
    for body in chunks {
        let mut client = server.connect();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send(format!("{head}{body}").as_bytes()).expect("the server reads");
        let response = client.read_response(false).unwrap_or_else(|e| panic!("{body:?}: {e}"));
        assert_eq!(response.status, 400, "{body:?}");
        assert!(client.is_closed(), "{body:?}");
    }
}

#[test]
fn limits_of_the_head() {
    let server = Server::start(CONF, &[]);
    let long = "x".repeat(9000);
    let many = format!("X-Filler: {}\r\n", "y".repeat(4000)).repeat(12);
    let cases = [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), 400),
        (format!("GET /?{} HTTP/1.1\r\nHost: a\r\n\r\n", "z".repeat(7000)), 200),
    ];
    for (bytes, status) in cases {
        let mut client = server.connect();
        // The server may close before it has read everything.
        let _ = client.send(bytes.as_bytes());
        assert_eq!(client.read_response(false).expect("an answer").status, status, "{} bytes", bytes.len());
    }
}

#[test]
fn a_head_may_come_byte_by_byte_and_requests_may_be_pipelined() {
    let server = Server::start(CONF, &[]);
    let mut client = server.connect();
    for byte in b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: value\r\n\r\n" {
        client.send(&[*byte]).expect("the server reads");
    }
    assert_eq!(client.read_response(false).expect("an answer").text(), "ok");
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(50).as_slice()).expect("the server reads");
    for n in 0..50 {
        assert_eq!(client.read_response(false).unwrap_or_else(|e| panic!("{n}: {e}")).text(), "ok");
    }
}

#[test]
fn half_closed_clients_get_their_answer() {
    let server = Server::start(CONF, &[]);
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("the server reads");
    client.stream().shutdown(std::net::Shutdown::Write).expect("a half-closed socket");
    assert_eq!(client.read_response(false).expect("an answer").text(), "ok");
    assert!(client.is_closed());
    assert!(Client::connect(server.port).is_ok());
}
