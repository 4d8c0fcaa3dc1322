//! The bridge from memcached to HTTP.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use e2e::server::Server;
use e2e::stack::Memcached;
use e2e::{PATIENCE, wait_for};

/// The bridge over two backends.
fn start() -> (Server, [Memcached; 2]) {
    let backends = [Memcached::start(), Memcached::start()];
    let servers = [(11211, backends[0].port), (11212, backends[1].port)];
    let (server, _) = super::start("memcached-bridge", [8080], &servers);
    (server, backends)
}

/// A connection to a backend.
struct Backend(BufReader<TcpStream>);

impl Backend {
    fn connect(to: &Memcached) -> Backend {
        let stream = TcpStream::connect(to.address()).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        Backend(BufReader::new(stream))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer");
        line.trim_end().to_string()
    }

    fn set(&mut self, key: &str, flags: u32, data: &[u8]) {
        let head = format!("set {key} {flags} 0 {}\r\n", data.len());
        self.0.get_mut().write_all(&[head.as_bytes(), data, b"\r\n"].concat()).expect("sent");
        assert_eq!(self.line(), "STORED");
    }

    fn stat(&mut self, name: &str) -> u64 {
        self.0.get_mut().write_all(b"stats\r\n").expect("sent");
        let mut value = None;
        loop {
            let line = self.line();
            if line == "END" {
                return value.unwrap_or_else(|| panic!("no {name}"));
            }
            if let Some((n, v)) = line.strip_prefix("STAT ").and_then(|l| l.split_once(' '))
                && n == name
            {
                value = v.parse().ok();
            }
        }
    }
}

/// A request whose lines come one by one.
struct Pull(BufReader<TcpStream>);

impl Pull {
    fn start(server: &Server, args: &str) -> Pull {
        let mut stream = TcpStream::connect(("127.0.0.1", server.port)).expect("it accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        write!(stream, "GET /pull?{args} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
        Pull(BufReader::new(stream))
    }

    /// The next line of the body; chunks' heads and the response's are passed over.
    fn next(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.0.read_line(&mut line).expect("the stream goes on") > 0, "the stream ended");
            if line.starts_with('{') {
                return line.trim_end().to_string();
            }
        }
    }
}

fn gzip(text: &str) -> Vec<u8> {
    let mut child =
        Command::new("gzip").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip is there");
    // The pipe is closed behind the text; it is short.
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("sent");
    child.wait_with_output().expect("gzip ends").stdout
}

#[test]
fn messages_of_all_backends_are_pushed_as_they_come() {
    let (server, backends) = start();
    let mut b = backends.each_ref().map(Backend::connect);
    b[0].set("orders.1", 0, b"{\"id\":\n1}");
    let mut pull = Pull::start(&server, "topic=orders&limit=4");
    assert_eq!(pull.next(), "{\"backend\":1,\"n\":1,\"message\":{\"id\": 1}}", "{}", server.error_log());
    let large = format!("[\"{}\"]", "x".repeat(50_000));
    b[1].set("orders.1", 1, &gzip(&large));
    assert_eq!(pull.next(), format!("{{\"backend\":2,\"n\":1,\"message\":{large}}}"));
    b[0].set("orders.2", 0, b"2");
    assert_eq!(pull.next(), "{\"backend\":1,\"n\":2,\"message\":2}");
    b[1].set("orders.2", 1, b"not compressed");
    let error: serde_json::Value = serde_json::from_str(&pull.next()).expect("JSON");
    assert_eq!(error, serde_json::json!({ "backend": 2, "n": 2, "error": "the message does not inflate" }));
    b[1].set("orders.3", 1, &gzip(&"x".repeat(5_000_000)));
    assert!(pull.next().contains("the message is too large"));
    b[1].set("orders.4", 1, &gzip("{}")[..12]);
    assert!(pull.next().contains("the message is cut off"));
    b[1].set("orders.5", 9, b"{}");
    assert!(pull.next().contains("the message has flags 9"));
    b[1].set("orders.6", 0, b"{");
    assert!(pull.next().contains("the message is no JSON"));
    b[1].set("orders.7", 0, b"{}");
    assert_eq!(pull.next(), "{\"backend\":2,\"n\":7,\"message\":{}}");
    wait_for("the limit ends the stream", || (streams(&server) == 0).then_some(()));

    // Connections are kept: another stream of the same worker makes no more of them.
    let mut client = server.connect();
    let mut pulled = || {
        let request = "GET /pull?topic=orders&from=2,7&limit=2 HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.send(request.as_bytes()).expect("sent");
        client.read_response(false).expect("a whole stream")
    };
    pulled();
    let mut connections = || b.each_mut().map(|b| b.stat("total_connections"));
    let before = connections();
    let later = pulled();
    assert_eq!(later.header("Content-Type"), Some("application/x-ndjson"));
    let text = later.text();
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        ["{\"backend\":1,\"n\":2,\"message\":2}", "{\"backend\":2,\"n\":7,\"message\":{}}"],
        "{}",
        server.error_log()
    );
    assert_eq!(connections(), before);
    let again = pulled();
    assert_eq!(again.text().lines().count(), 2, "what is known of the arguments is right: {}", again.text());
}

fn streams(server: &Server) -> u64 {
    let json: serde_json::Value = serde_json::from_slice(&server.get("/status").body).expect("JSON");
    json["streams"].as_u64().expect("a number")
}

#[test]
fn nobody_reads_for_a_client_that_has_left() {
    let (server, backends) = start();
    let mut b = backends.each_ref().map(Backend::connect);
    b[0].set("orders.1", 0, b"1");
    b[1].set("orders.1", 0, b"2");
    let mut pull = Pull::start(&server, "topic=orders&wait=300");
    let _ = (pull.next(), pull.next());
    assert_eq!(streams(&server), 1);
    let mut connections = || b.each_mut().map(|b| b.stat("curr_connections"));
    let with = connections();
    drop(pull);
    wait_for("the stream is over", || (streams(&server) == 0).then_some(()));
    wait_for("its connections are closed", || {
        let without = connections();
        (without[0] < with[0] && without[1] < with[1]).then_some(())
    });
    server.wait_for_log("the client left, the backends are read no more");
}

#[test]
fn a_backend_that_is_gone_does_not_end_the_others() {
    let (server, backends) = start();
    let mut first = Backend::connect(&backends[0]);
    first.set("orders.1", 0, b"1");
    backends[1].process.kill();
    let mut pull = Pull::start(&server, "topic=orders&limit=2");
    assert_eq!(pull.next(), "{\"backend\":1,\"n\":1,\"message\":1}", "{}", server.error_log());
    assert!(pull.next().contains("the backend does not answer"));
    first.set("orders.2", 0, b"2");
    assert_eq!(pull.next(), "{\"backend\":1,\"n\":2,\"message\":2}");
    backends[0].process.kill();
    let none = server.get("/pull?topic=orders");
    assert_eq!((none.status, none.text().as_str()), (502, "{\"error\":\"no backend answers\"}\n"));
}

#[test]
fn wrong_arguments_are_told() {
    let (server, _backends) = start();
    for (args, said) in [
        ("", "topic is missing or malformed"),
        ("topic=a%20b", "topic is missing or malformed"),
        ("topic=a&topic=b", "topic is missing or malformed"),
        ("topic=a&from=0", "from is not a number from 1 to 1000000000"),
        ("topic=a&from=1,2,3", "from has more numbers than there are backends"),
        ("topic=a&limit=1e9", "limit is not a number from 1 to 100000"),
        ("topic=a&wait=301", "wait is not a number from 1 to 300"),
    ] {
        let response = server.get(&format!("/pull?{args}"));
        let json: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
        assert_eq!((response.status, json["error"].as_str()), (400, Some(said)), "{args}");
    }
    let long = server.get(&format!("/pull?topic=a&x={}", "x".repeat(600)));
    assert_eq!(long.status, 400, "{}", long.text());
}
