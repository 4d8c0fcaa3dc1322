//! Requests that are sent before the answer to the one before: responses may share a write, and none waits for another.

use std::net::Shutdown;

use e2e::server::Server;

const CONF: &str = r#"
    error_log logs/error.log info;
    events {}
    http {
        lua_shared_dict gate 1m;
        server {
            listen 127.0.0.1:PORT;
            location / { return 200 "$uri"; }
            location = /large { content_by_lua_block { ngx.print(("0123456789"):rep(2000)) } }
            location = /waits {
                content_by_lua_block {
                    while not ngx.shared.gate:get("open") do ngx.sleep(0.005) end
                    ngx.print("waited")
                }
            }
            location = /open { content_by_lua_block { ngx.shared.gate:set("open", true) ngx.print("open") } }
        }
    }
"#;

fn get(uri: &str) -> String {
    format!("GET {uri} HTTP/1.1\r\nHost: a\r\n\r\n")
}

#[test]
fn a_response_does_not_wait_for_the_next_one() {
    let server = Server::start(CONF, &[]);
    let mut client = server.connect();
    client.send([get("/1"), get("/waits"), get("/3")].concat().as_bytes()).expect("the server reads");
    assert_eq!(client.read_response(false).expect("an answer").text(), "/1");
    assert_eq!(server.get("/open").text(), "open");
    assert_eq!(client.read_response(false).expect("an answer").text(), "waited");
    assert_eq!(client.read_response(false).expect("an answer").text(), "/3");
}

#[test]
fn a_response_does_not_wait_for_the_rest_of_a_head() {
    let server = Server::start(CONF, &[]);
    let mut client = server.connect();
    client.send((get("/1") + "GET /2 HTTP/1.1\r\nHo").as_bytes()).expect("the server reads");
    assert_eq!(client.read_response(false).expect("an answer").text(), "/1");
    client.send(b"st: a\r\n\r\n").expect("the server reads");
    assert_eq!(client.read_response(false).expect("an answer").text(), "/2");
}

#[test]
fn a_client_that_ends_in_the_middle_of_a_head_gets_what_it_has_asked_for() {
    let server = Server::start(CONF, &[]);
    let mut client = server.connect();
    client.send((get("/1") + &get("/2") + "GET /3 HT").as_bytes()).expect("the server reads");
    client.stream().shutdown(Shutdown::Write).expect("a half-closed socket");
    assert_eq!(client.read_response(false).expect("an answer").text(), "/1");
    assert_eq!(client.read_response(false).expect("an answer").text(), "/2");
    assert!(client.is_closed());
}

#[test]
fn nothing_is_lost_where_the_client_reads_late() {
    const REQUESTS: usize = 300;
    let server = Server::start(CONF, &[]);
    let mut client = server.connect();
    let asked: String =
        (0..REQUESTS).map(|n| if n % 3 == 0 { get("/large") } else { get(&format!("/{n}")) }).collect();
    // About 2 MB wait for it, more than the sockets hold.
    client.send(asked.as_bytes()).expect("the server reads");
    client.stream().shutdown(Shutdown::Write).expect("a half-closed socket");
    for n in 0..REQUESTS {
        let response = client.read_response(false).unwrap_or_else(|e| panic!("{n}: {e}"));
        let expected = if n % 3 == 0 { "0123456789".repeat(2000) } else { format!("/{n}") };
        assert_eq!(response.text(), expected, "{n}");
    }
    assert!(client.is_closed());
}
