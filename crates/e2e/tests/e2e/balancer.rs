//! `ngx.balancer` where connections are watched from the other side: kept ones that end, TLS by the peer's name, and
//! `memc_bind`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use e2e::PATIENCE;
use e2e::server::Server;
use e2e::tls::Authority;

const KEPT: &str = r#"
    error_log logs/error.log info;
    events {}
    http {
        access_log off;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        upstream kept {
            balancer_by_lua_block {
                local balancer = require "ngx.balancer"
                assert(balancer.set_current_peer("127.0.0.1", UP, ngx.var.arg_name))
                assert(balancer.enable_keepalive(tonumber(ngx.var.arg_idle)))
            }
        }
        server {
            listen 127.0.0.1:PORT;
            location / { proxy_pass http://kept; }
            location /memc { memc_bind 127.0.0.7; set $memc_key a; memc_pass 127.0.0.1:UP; }
        }
    }
"#;

/// The server, and a listener that stands for the peer.
fn start() -> (Server, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    (Server::start(&KEPT.replace("UP", &port.to_string()), &[]), listener)
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().expect("the proxy connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    BufReader::new(stream)
}

/// Reads a request and answers it.
fn answer(peer: &mut BufReader<TcpStream>) {
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        assert_ne!(peer.read_line(&mut line).expect("a request"), 0, "a request, not the end");
    }
    write!(peer.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").expect("written");
}

#[test]
fn idle_connections_end_when_their_own_time_is_up() {
    let (server, listener) = start();
    let mut client = server.connect();
    let mut ask = |path: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("sent");
        let mut peer = accept(&listener);
        answer(&mut peer);
        assert_eq!(client.read_response(false).expect("a response").text(), "ok");
        peer
    };
    let mut long = ask("/?name=long&idle=3600");
    let mut short = ask("/?name=short&idle=0.05");
    assert_eq!(short.read(&mut [0]).expect("the end"), 0);
    client.send(b"GET /?name=long HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    answer(&mut long);
    assert_eq!(client.read_response(false).expect("a response").text(), "ok");
}

#[test]
fn a_kept_connection_that_its_peer_has_closed_is_not_used() {
    let (server, listener) = start();
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        let mut peer = accept(&listener);
        answer(&mut peer);
        assert_eq!(client.read_response(false).expect("a response").text(), "ok");
    }
}

#[test]
fn memc_bind_is_where_connections_come_from() {
    let (server, listener) = start();
    let mut client = server.connect();
    client.send(b"GET /memc HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let mut peer = accept(&listener);
    assert_eq!(peer.get_ref().peer_addr().expect("an address").ip().to_string(), "127.0.0.7");
    let mut line = String::new();
    peer.read_line(&mut line).expect("a command");
    assert_eq!(line, "get a\r\n");
    write!(peer.get_mut(), "VALUE a 0 2\r\nhi\r\nEND\r\n").expect("written");
    assert_eq!(client.read_response(false).expect("a response").text(), "hi");
}

const SECURED: &str = r#"
    error_log logs/error.log info;
    events {}
    http {
        access_log off;
        proxy_http_version 1.1;
        proxy_ssl_trusted_certificate ca.crt;
        proxy_ssl_verify on;
        proxy_ssl_server_name on;
        upstream up {
            balancer_by_lua_block {
                local balancer = require "ngx.balancer"
                assert(balancer.set_current_peer("127.0.0.1", PORT1, ngx.var.arg_name))
                assert(balancer.enable_keepalive())
                if ngx.var.arg_tls then
                    assert(balancer.set_upstream_tls(ngx.var.arg_tls == "on"))
                end
            }
        }
        server { listen 127.0.0.1:PORT1 ssl; server_name a.test; ssl_certificate a.crt; ssl_certificate_key a.key;
                 return 200 "a $ssl_server_name $connection_requests"; }
        server { listen 127.0.0.1:PORT1 ssl; server_name b.test; ssl_certificate b.crt; ssl_certificate_key b.key;
                 return 200 "b $ssl_server_name $connection_requests"; }
        server {
            listen 127.0.0.1:PORT;
            proxy_set_header Connection "";
            proxy_set_header Host $arg_name;
            location / { proxy_pass https://up; }
            location /directive { proxy_set_header Host b.test; proxy_ssl_name b.test; proxy_pass https://up; }
            location /plain { proxy_pass http://up; }
        }
    }
"#;

#[test]
fn tls_is_spoken_by_the_name_of_the_peer_and_connections_are_kept_by_it() {
    let ca = Authority::new("Test CA");
    let (a, b) = (ca.issue("a.test"), ca.issue("b.test"));
    let files = [
        ("conf/a.crt", &a.certificate[..]),
        ("conf/a.key", &a.key),
        ("conf/b.crt", &b.certificate),
        ("conf/b.key", &b.key),
        ("conf/ca.crt", ca.pem()),
    ];
    let server = Server::start(SECURED, &files);
    for (path, body) in [
        ("/?name=a.test", "a a.test 1"),
        ("/?name=b.test", "b b.test 1"),
        ("/?name=a.test", "a a.test 2"),
        // The directive's name is the one that counts, as in OpenResty; the peer's parts kept connections all the same.
        ("/directive?name=c.test", "b b.test 1"),
        ("/directive?name=b.test", "b b.test 2"),
        // The same settings of TLS, the same connections.
        ("/plain?name=a.test&tls=on", "a a.test 3"),
        ("/plain?name=a.test&tls=on", "a a.test 4"),
    ] {
        assert_eq!(server.get(path).text(), body, "{path}\n{}", server.error_log());
    }
    assert_eq!(server.get("/?name=c.test").status, 502);
    server
        .wait_for_log("upstream SSL certificate does not match \"c.test\" while SSL handshaking to upstream");
    // Plain bytes to a port of TLS.
    assert_eq!(server.get("/?name=a.test&tls=off").status, 400);
}
