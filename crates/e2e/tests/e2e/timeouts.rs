//! Timeouts on both sides, and what a server behind the proxy may say that is no response. Nothing here measures a time:
//! short timeouts are waited for, and the test bounds only a hang.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use e2e::PATIENCE;
use e2e::http::Client;
use e2e::server::Server;

const CONF: &str = "
    error_log logs/error.log info;
    events {}
    http {
        log_format f '$uri $status $upstream_status';
        access_log logs/access.log f;
        upstream two { server 127.0.0.1:PORT1; server 127.0.0.1:PORT2; }
        server {
            listen 127.0.0.1:PORT;
            # more
            location / { proxy_read_timeout 50ms; proxy_buffer_size 1k; proxy_pass http://127.0.0.1:PORT1; }
            location /patient { proxy_pass http://127.0.0.1:PORT1; }
            location /two { proxy_read_timeout 50ms; proxy_pass http://two; }
            location /idle { keepalive_timeout 50ms; return 200 idle; }
        }
        server { listen 127.0.0.1:PORT2; return 200 second; }
    }
";

/// The proxy, and a listener that stands for the server behind it (`PORT1`).
fn start(more: &str) -> (Server, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    let conf = CONF.replace("PORT1", &port.to_string()).replace("# more", more);
    (Server::start(&conf, &[]), listener)
}

/// Accepts, reads a head, and answers with `bytes`; the connection stays open as long as the result.
fn answer(listener: &TcpListener, bytes: &[u8]) -> TcpStream {
    let (stream, _) = listener.accept().expect("the proxy connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert!(reader.read_line(&mut line).expect("the head is read") > 0, "the head ends early");
    }
    let mut stream = reader.into_inner();
    // Where the proxy has given up already, nobody takes it.
    let _ = stream.write_all(bytes);
    stream
}

/// The status of one GET while the server behind says `bytes`.
fn status_of(bytes: &'static [u8], log: &str) -> u16 {
    let (server, listener) = start("");
    let peer = thread::spawn(move || drop(answer(&listener, bytes)));
    let status = server.get("/patient").status;
    peer.join().expect("the peer is done");
    server.wait_for_log(log);
    status
}

#[test]
fn a_connection_without_a_request_is_closed() {
    let (server, _listener) = start("client_header_timeout 50ms;");
    let mut client = server.connect();
    assert!(client.is_closed());
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.1\r\nHos").expect("sent");
    assert!(client.is_closed(), "half a head is not answered either");
}

#[test]
fn a_body_that_does_not_come_closes_the_connection() {
    let (server, _listener) = start("client_body_timeout 50ms;");
    let mut client = server.connect();
    client.send(b"POST /patient HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").expect("sent");
    assert!(client.is_closed());
    server.wait_for_line("logs/access.log", "/patient 408 -");
}

#[test]
fn an_idle_connection_is_closed_by_its_locations_timeout() {
    let (server, _listener) = start("");
    let mut client = server.connect();
    let response = client.get("/idle").expect("a response");
    assert_eq!(response.header("Connection"), Some("keep-alive"));
    assert!(client.is_closed());
}

#[test]
fn a_server_that_says_nothing_is_504() {
    let (server, listener) = start("");
    let peer = thread::spawn(move || answer(&listener, b""));
    assert_eq!(server.get("/").status, 504);
    server.wait_for_log(
        "upstream timed out (110: Connection timed out) while reading response header from upstream",
    );
    server.wait_for_line("logs/access.log", "/ 504 504");
    drop(peer.join().expect("the peer is done"));
}

#[test]
fn the_next_server_answers_for_one_that_says_nothing() {
    let (server, listener) = start("");
    let peer = thread::spawn(move || answer(&listener, b""));
    assert_eq!(server.get("/two").text(), "second");
    server.wait_for_line("logs/access.log", "/two 200 504, 200");
    drop(peer.join().expect("the peer is done"));
}

#[test]
fn a_post_is_not_repeated_after_a_timeout() {
    let (server, listener) = start("");
    let peer = thread::spawn(move || answer(&listener, b""));
    let mut client = server.connect();
    client.send(b"POST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").expect("sent");
    assert_eq!(client.read_response(false).expect("a response").status, 504);
    drop(peer.join().expect("the peer is done"));
}

#[test]
fn a_response_that_stops_is_cut_after_the_timeout() {
    let (server, listener) = start("");
    let peer = thread::spawn(move || answer(&listener, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"));
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    assert!(client.read_response(false).is_err());
    server.wait_for_log("upstream timed out (110: Connection timed out) while reading upstream");
    drop(peer.join().expect("the peer is done"));
}

#[test]
fn what_is_no_response_is_502() {
    assert_eq!(status_of(b"", "upstream prematurely closed connection while reading response header"), 502);
    assert_eq!(
        status_of(
            b"HTTP/1.1 200 OK\r\nA: b\r\n",
            "upstream prematurely closed connection while reading response header"
        ),
        502
    );
    assert_eq!(status_of(b"HTTP/1.1 200 OK\r\na\0b: c\r\n\r\n", "upstream sent invalid header"), 502);
}

#[test]
fn a_head_larger_than_the_buffer_is_502() {
    let (server, listener) = start("");
    let big = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(2000));
    let peer = thread::spawn(move || answer(&listener, big.as_bytes()));
    assert_eq!(server.get("/").status, 502);
    server.wait_for_log("upstream sent too big header while reading response header from upstream");
    drop(peer.join().expect("the peer is done"));
}

#[test]
fn an_interim_response_is_passed_over() {
    let (server, listener) = start("");
    let peer = thread::spawn(move || {
        answer(
            &listener,
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        )
    });
    let response = server.get("/patient");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    drop(peer.join().expect("the peer is done"));
}

#[test]
fn trailers_and_extensions_of_chunks_are_passed_over() {
    let (server, listener) = start("");
    let peer = thread::spawn(move || {
        answer(
            &listener,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nTrailer: x\r\n\r\n",
        )
    });
    let response = server.get("/patient");
    assert_eq!((response.status, response.text().as_str()), (200, "ok"));
    assert_eq!(response.header("Trailer"), None);
    drop(peer.join().expect("the peer is done"));
}

#[test]
fn a_client_that_closes_its_side_after_the_request_is_answered() {
    let (server, _listener) = start("proxy_ignore_client_abort on;");
    let mut client = Client::connect(server.port).expect("it accepts");
    client.send(b"GET /idle HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    client.stream().shutdown(std::net::Shutdown::Write).expect("half-closed");
    assert_eq!(client.read_response(false).expect("a response").text(), "idle");
}
