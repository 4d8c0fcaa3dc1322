//! Proxying between real sockets: large bodies, clients and servers that leave, kept connections, tunnels.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use e2e::server::Server;
use e2e::{PATIENCE, wait_for};

const CONF: &str = "
    error_log logs/error.log info;
    events {}
    http {
        access_log off;
        log_format f '$uri $status $upstream_status';
        client_max_body_size 0;
        upstream kept { server 127.0.0.1:PORT1; keepalive 4; }
        upstream dead { server 127.0.0.1:PORT3; server 127.0.0.1:PORT4; }
        map $http_upgrade $connection_upgrade { default upgrade; '' close; }
        server {
            listen 127.0.0.1:PORT;
            access_log logs/access.log f;
            location / { proxy_pass http://127.0.0.1:PORT1; }
            location /unbuffered { proxy_request_buffering off; proxy_pass http://127.0.0.1:PORT1; }
            location /kept { proxy_http_version 1.1; proxy_set_header Connection ''; proxy_pass http://kept; }
            location /dead { proxy_pass http://dead; }
            location /length { proxy_pass http://127.0.0.1:PORT2; }
            location /upgrade {
                proxy_http_version 1.1;
                proxy_set_header Upgrade $http_upgrade;
                proxy_set_header Connection $connection_upgrade;
                proxy_pass http://127.0.0.1:PORT1;
            }
        }
        server { listen 127.0.0.1:PORT2; location / { proxy_pass http://127.0.0.1:PORT2/deeper/; }
                 location /deeper { return 200 '$content_length $http_transfer_encoding'; } }
    }
";

/// The proxy, and a listener that stands for the server behind it (`PORT1`).
fn start() -> (Server, TcpListener) {
    start_with(CONF)
}

fn start_with(conf: &str) -> (Server, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("a bound socket has an address").port();
    (Server::start(&conf.replace("PORT1", &port.to_string()), &[]), listener)
}

/// Accepts and reads a head.
fn accept(listener: &TcpListener) -> (BufReader<TcpStream>, String) {
    let (stream, _) = listener.accept().expect("the proxy connects");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut reader = BufReader::new(stream);
    let head = read_head(&mut reader);
    (reader, head)
}

fn read_head(reader: &mut BufReader<TcpStream>) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).expect("the head is read") == 0 {
            return head;
        }
    }
    head
}

fn length_of(head: &str) -> usize {
    let line = head.lines().find_map(|l| l.strip_prefix("Content-Length: ")).expect("a length");
    line.parse().expect("a number")
}

#[test]
fn five_megabytes_go_there_and_back() {
    for path in ["/big", "/unbuffered"] {
        let (server, listener) = start();
        let body: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
        let peer = thread::spawn(move || {
            let (mut reader, head) = accept(&listener);
            let mut body = vec![0; length_of(&head)];
            reader.read_exact(&mut body).expect("the whole body");
            let out = reader.get_mut();
            write!(out, "HTTP/1.0 200 OK\r\nContent-Type: x/y\r\n\r\n").expect("written");
            out.write_all(&body).expect("written");
        });
        let mut client = server.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        client.send(head.as_bytes()).expect("sent");
        client.send(&body).expect("sent");
        let response = client.read_response(false).expect("a response");
        assert_eq!((response.status, response.body.len()), (200, body.len()));
        assert!(response.body == body, "the same bytes come back");
        peer.join().expect("the peer is done");
    }
}

#[test]
fn the_length_of_a_body_is_kept_through_two_proxies() {
    let (server, _listener) = start();
    let mut client = server.connect();
    let body = vec![b'x'; 100_000];
    let head = format!("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(&[head.as_bytes(), &body].concat()).expect("sent");
    assert_eq!(client.read_response(false).expect("a response").text().trim(), "100000");
}

#[test]
fn a_client_that_leaves_is_499() {
    let (server, listener) = start();
    let mut client = server.connect();
    client.send(b"GET /leave HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let (mut peer, _) = accept(&listener);
    drop(client);
    server.wait_for_line("logs/access.log", "/leave 499 499");
    server.wait_for_log("client prematurely closed connection, so upstream connection is closed too");
    // The proxy has closed its side.
    assert_eq!(peer.read(&mut [0]).expect("the end"), 0);
}

#[test]
fn a_client_that_leaves_during_the_response_ends_the_exchange() {
    let (server, listener) = start();
    let mut client = server.connect();
    client.send(b"GET /middle HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let (peer, _) = accept(&listener);
    let mut peer = peer.into_inner();
    write!(peer, "HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n").expect("written");
    let piece = vec![b'x'; 65536];
    peer.write_all(&piece).expect("written");
    drop(client);
    // Sooner or later the proxy closes, long before all is written.
    let mut written = 0;
    while written < 100_000_000 && peer.write_all(&piece).is_ok() {
        written += piece.len();
    }
    server.wait_for_line("logs/access.log", "/middle ");
}

#[test]
fn a_server_that_dies_in_the_middle_cuts_the_response() {
    let (server, listener) = start();
    for head in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut client = server.connect();
        client.send(b"GET /kept/cut HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        let (mut peer, _) = accept(&listener);
        let body = if head.starts_with('C') { "half" } else { "4\r\nhalf\r\n" };
        write!(peer.get_mut(), "HTTP/1.1 200 OK\r\n{head}\r\n{body}").expect("written");
        drop(peer);
        assert!(client.read_response(false).is_err(), "a cut response must not look whole");
    }
    server.wait_for_log("upstream prematurely closed connection while reading upstream");
}

#[test]
fn all_servers_down_is_502() {
    let (server, _listener) = start();
    let response = server.get("/dead");
    assert_eq!(response.status, 502);
    server.wait_for_line("logs/access.log", "/dead 502 502, 502");
    assert_eq!(server.get("/dead").status, 502);
    server.wait_for_log("no live upstreams while connecting to upstream");
}

#[test]
fn kept_connections_are_used_again_and_a_stale_one_is_replaced() {
    let (server, listener) = start();
    let peer = thread::spawn(move || {
        let (mut reader, mut head) = accept(&listener);
        for _ in 0..5 {
            assert!(head.starts_with("GET /kept HTTP/1.1\r\n"), "{head}");
            write!(reader.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na").expect("written");
            head = read_head(&mut reader);
        }
        // The sixth request gets no answer but the end: it comes again on a fresh connection.
        drop(reader);
        let (mut reader, _) = accept(&listener);
        write!(reader.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb").expect("written");
        reader
    });
    let mut client = server.connect();
    let bodies: String = (0..6).map(|_| client.get("/kept").expect("a response").text()).collect();
    assert_eq!(bodies, "aaaaab");
    drop(peer.join().expect("the peer is done"));
}

#[test]
fn an_upgraded_connection_is_a_tunnel() {
    let (server, listener) = start();
    let mut client = server.connect();
    client
        .send(b"GET /upgrade HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
        .expect("sent");
    let (mut peer, head) = accept(&listener);
    assert!(head.contains("Upgrade: websocket\r\n") && head.contains("Connection: upgrade\r\n"), "{head}");
    write!(
        peer.get_mut(),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello"
    )
    .expect("written");
    let response = client.read_response(false).expect("a response");
    assert_eq!((response.status, response.header("Upgrade")), (101, Some("websocket")));
    let mut got = [0; 5];
    client.read_exact(&mut got).expect("bytes of the tunnel");
    assert_eq!(&got, b"hello");
    peer.read_exact(&mut got).expect("bytes of the tunnel");
    assert_eq!(&got, b"early");
    client.send(b"again").expect("sent");
    peer.read_exact(&mut got).expect("bytes of the tunnel");
    assert_eq!(&got, b"again");
    drop(peer);
    assert!(client.is_closed());
}

#[test]
fn a_slow_client_is_cut_after_send_timeout() {
    let conf = CONF.replace("location / {", "location / { send_timeout 50ms;");
    let (server, listener) = start_with(&conf);
    let mut client = server.connect();
    client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let (peer, _) = accept(&listener);
    let mut peer = peer.into_inner();
    peer.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    write!(peer, "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n").expect("written");
    // The client reads nothing: buffers fill up, then the proxy gives up.
    let piece = vec![b'x'; 1 << 20];
    let mut pieces = 0;
    while pieces < 1000 && peer.write_all(&piece).is_ok() {
        pieces += 1;
    }
    assert!(pieces < 1000, "the proxy must not take a gigabyte for a client that reads nothing");
    server.wait_for_line("logs/access.log", "/slow ");
}

#[test]
fn requests_one_behind_the_other_with_bodies() {
    let (server, listener) = start();
    let peer = thread::spawn(move || {
        for n in 0..3 {
            let (mut reader, head) = accept(&listener);
            let mut body = vec![0; length_of(&head)];
            reader.read_exact(&mut body).expect("a body");
            let text = format!("{n}:{}", String::from_utf8_lossy(&body));
            write!(reader.get_mut(), "HTTP/1.0 200 OK\r\n\r\n{text}").expect("written");
        }
    });
    let mut client = server.connect();
    client
        .send(
            b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none\
              POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\nX-T: y\r\n\r\n\
              POST /c HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nthree",
        )
        .expect("sent");
    for want in ["0:one", "1:two", "2:three"] {
        assert_eq!(client.read_response(false).expect("a response").text(), want);
    }
    peer.join().expect("the peer is done");
}

#[test]
fn a_client_that_waits_for_100_gets_it_before_it_sends() {
    let (server, listener) = start();
    let peer = thread::spawn(move || {
        let (mut reader, head) = accept(&listener);
        assert!(!head.contains("Expect"), "{head}");
        let mut body = vec![0; length_of(&head)];
        reader.read_exact(&mut body).expect("a body");
        write!(reader.get_mut(), "HTTP/1.0 200 OK\r\n\r\n").expect("written");
        reader.get_mut().write_all(&body).expect("written");
    });
    let mut client = server.connect();
    client
        .send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
        .expect("sent");
    let mut interim = [0; 25];
    client.read_exact(&mut interim).expect("an interim response");
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"body").expect("sent");
    assert_eq!(client.read_response(false).expect("a response").text(), "body");
    peer.join().expect("the peer is done");
}

#[test]
fn an_old_client_gets_no_chunks() {
    let (server, listener) = start();
    let peer = thread::spawn(move || {
        let (mut reader, _) = accept(&listener);
        write!(
            reader.get_mut(),
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        )
        .expect("written");
    });
    let mut client = server.connect();
    client.send(b"GET / HTTP/1.0\r\n\r\n").expect("sent");
    let response = client.read_response(false).expect("a response");
    assert_eq!((response.header("Transfer-Encoding"), response.text().as_str()), (None, "abc"));
    assert!(client.is_closed());
    peer.join().expect("the peer is done");
}

#[test]
fn a_head_request_leaves_the_connections_in_order() {
    let (server, listener) = start();
    let peer = thread::spawn(move || {
        let (mut reader, mut head) = accept(&listener);
        for _ in 0..2 {
            assert!(head.starts_with("HEAD /kept "), "{head}");
            write!(reader.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n").expect("written");
            head = read_head(&mut reader);
        }
        write!(reader.get_mut(), "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody").expect("written");
        reader
    });
    let mut client = server.connect();
    for _ in 0..2 {
        client.send(b"HEAD /kept HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
        assert_eq!(client.read_response(true).expect("a response").header("Content-Length"), Some("7"));
    }
    assert_eq!(client.get("/kept").expect("a response").text(), "body");
    drop(peer.join().expect("the peer is done"));
}

#[test]
fn the_temporary_file_of_a_body_is_gone_after_the_request() {
    let conf = CONF.replace("location / {", "client_body_temp_path logs/body; location / {");
    let server = Server::start(&conf, &[]);
    let mut client = server.connect();
    let body = vec![b'x'; 200_000];
    let head = format!("POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(&[head.as_bytes(), &body].concat()).expect("sent");
    assert_eq!(client.read_response(false).expect("a response").status, 200);
    server.wait_for_log("a client request body is buffered to a temporary file");
    wait_for("the file goes", || {
        (std::fs::read_dir(server.file("logs/body")).expect("the folder").count() == 0).then_some(())
    });
}
