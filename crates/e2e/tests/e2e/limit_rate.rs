//! `limit_rate`: responses that leave slowly come whole, and those that hardly leave at all hold nothing up. What waits
//! here waits for hours, so that no test depends on how fast the machine is.

use e2e::server::Server;
use e2e::wait_for;
use nix::sys::signal::Signal;

const CONF: &str = r#"
    error_log logs/error.log info;
    pid logs/nginx.pid;
    worker_shutdown_timeout 3600s;
    events {}
    http {
        log_format f '$uri $status $limit_rate';
        server {
            listen 127.0.0.1:PORT;
            access_log logs/access.log f;
            location /fast { root html; }
            location /file { limit_rate 200k; root html; }
            location /after { limit_rate 1; limit_rate_after 1m; root html; }
            location /rare { limit_rate 200; send_timeout 100ms; return 200 $request_uri; }
            location /proxied { limit_rate 200k; proxy_pass http://127.0.0.1:PORT1/fast; }
            location /unbuffered { limit_rate 1; limit_rate_after 1k; proxy_buffering off; proxy_pass http://127.0.0.1:PORT1/fast; }
            location /read { proxy_limit_rate 200k; proxy_pass http://127.0.0.1:PORT1/fast; }
            location /stuck {
                content_by_lua_block {
                    ngx.header.content_length = 100005
                    ngx.print(("x"):rep(100000))
                    ngx.flush(true)
                    ngx.var.limit_rate = 1
                    ngx.print("ended")
                }
            }
            location /freed {
                content_by_lua_block {
                    ngx.header.content_length = 200000
                    ngx.var.limit_rate = 1000000
                    ngx.print(("x"):rep(100000))
                    ngx.flush(true)
                    ngx.var.limit_rate = 0
                    ngx.print(("x"):rep(100000))
                }
            }
        }
        server { listen 127.0.0.1:PORT1; location / { root html; } }
    }
"#;

/// 300 kB whose bytes tell where they stand.
fn large() -> String {
    (0..50_000).map(|n| format!("{n:06}")).collect()
}

fn start() -> Server {
    let large = large();
    let names = ["fast", "file", "after"].map(|name| format!("html/{name}"));
    let files: Vec<_> = names.iter().map(|name| (&name[..], &large[..])).collect();
    Server::start(CONF, &files)
}

#[test]
fn limited_responses_come_whole_and_the_next_ones_are_not_limited() {
    let server = start();
    let mut client = server.connect();
    let large = large();
    // At the rate of /after or /unbuffered, anything that came late would take days.
    for path in ["/file", "/fast", "/after", "/fast", "/proxied", "/read", "/unbuffered", "/fast"] {
        let response = client.get(path).expect("a response");
        assert_eq!(response.status, 200, "{path}");
        assert!(response.text() == large, "{path}: {} bytes", response.body.len());
    }
    assert_eq!(client.get("/freed").expect("a response").body.len(), 200_000);
    // Waits of its own making do not count as the client's.
    let long = format!("/rare?{}", "x".repeat(400));
    assert_eq!(client.get(&long).expect("a response").text(), long);
    server.wait_for_line("logs/access.log", "/after 200 1");
    server.wait_for_line("logs/access.log", "/unbuffered 200 0");
}

#[test]
fn pipelined_requests_have_each_a_limit_of_their_own() {
    let server = start();
    let mut client = server.connect();
    let paths = ["/none", "/rare", "/none", "/after", "/none"];
    let requests: String =
        paths.iter().map(|path| format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests.as_bytes()).expect("sent");
    for path in paths {
        let response = client.read_response(false).expect("a response");
        let whole = match path {
            "/rare" => response.text() == "/rare",
            "/after" => response.body.len() == 300_000,
            _ => response.status == 404,
        };
        assert!(whole, "{path}: {}", response.line);
    }
}

/// A client that has all of a response but its end, which will take a day.
fn stuck(server: &Server) -> e2e::http::Client {
    let mut client = server.connect();
    client.send(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let mut byte = [0];
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).expect("the head");
        seen.push(byte[0]);
    }
    client.read_exact(&mut vec![0; 100_000]).expect("the body");
    client
}

#[test]
fn a_client_that_leaves_is_noticed_while_its_response_waits() {
    let server = start();
    drop(stuck(&server));
    server.wait_for_line("logs/access.log", "/stuck 200 1");
}

#[test]
fn others_are_served_while_a_response_waits() {
    let server = start();
    let _waiting = [stuck(&server), stuck(&server)];
    assert_eq!(server.get("/fast").body.len(), 300_000);
}

#[test]
fn a_drain_waits_for_a_limited_response_and_ends_with_it() {
    let mut server = start();
    let waiting = stuck(&server);
    server.signal(Signal::SIGHUP);
    // The next generation answers while the old one still has its response.
    server.wait_for_log("reconfiguring");
    assert_eq!(server.get("/fast").body.len(), 300_000);
    server.signal(Signal::SIGQUIT);
    wait_for("the listener to be closed", || e2e::http::Client::connect(server.ports.0[0]).err());
    assert!(server.is_running(), "the response is not ended: {}", server.error_log());
    drop(waiting);
    assert!(server.wait().success());
}
