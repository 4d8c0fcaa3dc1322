//! Scripts and the client's connection: sockets on it, WebSockets, clients that leave.

use std::io::Write;
use std::net::Shutdown;

use e2e::http::Client;
use e2e::server::Server;

fn start(http: &str, config: &str) -> Server {
    let conf = format!(
        "error_log logs/error.log info;
        events {{}}
        http {{
            log_format f '$uri $status';
            access_log logs/access.log f;
            lua_shared_dict notes 100k;
            {http}
            server {{ listen 127.0.0.1:PORT; {config} }}
        }}"
    );
    Server::start(&conf, &[])
}

fn request(server: &Server, text: &str) -> Client {
    let mut client = server.connect();
    client.send(text.as_bytes()).expect("the request is sent");
    client
}

#[test]
fn a_body_socket_reads_what_comes_when_it_comes() {
    let config = "location / { content_by_lua_block {
        local sock = assert(ngx.req.socket())
        while true do
            local line, err, partial = sock:receive()
            ngx.say(line or err, partial or '')
            ngx.flush(true)
            if not line then return end
        end
    } }";
    let server = start("", config);
    let mut client =
        request(&server, "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 12\r\n\r\n");
    let mut hundred = [0; 25];
    client.read_exact(&mut hundred).expect("an interim response");
    assert_eq!(&hundred, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send(b"one\nt").expect("sent");
    client.send(b"wo\nend").expect("sent");
    client.send(b"!GET /next").expect("sent");
    let response = client.read_response(false).expect("a response");
    assert_eq!(response.text(), "one\ntwo\nclosedend!\n");
    // What follows the body belongs to the next request.
    client.send(b" HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nx\n").expect("sent");
    assert_eq!(client.read_response(false).expect("a response").text(), "x\nclosed\n");
}

#[test]
fn a_client_that_leaves_in_its_body_is_an_error_of_the_socket() {
    let config = "location / { content_by_lua_block {
        local data, err, partial = ngx.req.socket():receive(100)
        ngx.log(ngx.WARN, 'got: ', tostring(data), ' ', err, ' ', partial)
    } }";
    let server = start("", config);
    let client = request(&server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc");
    client.stream().shutdown(Shutdown::Both).expect("closed");
    server.wait_for_log("got: nil client aborted abc");
}

#[test]
fn websockets_speak_both_ways() {
    let config = "location / { content_by_lua_block {
        local ws = assert(require('resty.websocket.server'):new { timeout = 5000 })
        local writer = ngx.thread.spawn(function() ws:send_text('welcome') end)
        while true do
            local data, kind, err = ws:recv_frame()
            if kind == 'close' then
                ws:send_close(1000, 'bye')
                return
            elseif kind == 'ping' then
                ws:send_pong(data)
            elseif kind == 'text' then
                ws:send_text('echo ' .. data)
            else
                ngx.log(ngx.ERR, 'failed: ', err)
                return ngx.exit(444)
            end
        end
    } }";
    let server = start("", config);
    let mut client = request(
        &server,
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    );
    let response = client.read_response(false).expect("a response");
    assert_eq!((response.status, response.header("Upgrade")), (101, Some("websocket")));
    assert_eq!(response.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(frame(&mut client), (1, b"welcome".to_vec()));
    for n in 0..100 {
        let text = format!("{n}").repeat(1 + n * 7);
        client.send(&masked(1, text.as_bytes())).expect("sent");
        assert_eq!(frame(&mut client), (1, format!("echo {text}").into_bytes()));
    }
    client.send(&masked(9, b"still there?")).expect("sent");
    assert_eq!(frame(&mut client), (10, b"still there?".to_vec()));
    client.send(&masked(8, b"\x03\xe8")).expect("sent");
    assert_eq!(frame(&mut client), (8, b"\x03\xe8bye".to_vec()));
    assert!(client.is_closed());
    assert!(!server.error_log().contains("[error]"), "{}", server.error_log());
}

/// A frame as a client sends it.
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [7, 77, 177, 17];
    let mut bytes = vec![0x80 | opcode];
    match u8::try_from(payload.len()) {
        Ok(len) if len < 126 => bytes.push(0x80 | len),
        _ => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&u16::try_from(payload.len()).expect("a short payload").to_be_bytes());
        }
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    bytes
}

/// The next frame of the server: opcode and payload.
fn frame(client: &mut Client) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    client.read_exact(&mut head).expect("a frame");
    let mut len = usize::from(head[1]);
    if len == 126 {
        let mut long = [0; 2];
        client.read_exact(&mut long).expect("a length");
        len = usize::from(u16::from_be_bytes(long));
    }
    let mut payload = vec![0; len];
    client.read_exact(&mut payload).expect("a payload");
    (head[0] & 0x0f, payload)
}

const ABORT: &str = "
    lua_check_client_abort on;
    client_body_buffer_size 1m;
    location /note {
        content_by_lua_block {
            assert(ngx.on_abort(function() ngx.shared.notes:set('left', true) ngx.log(ngx.WARN, 'noted') ngx.exit(499) end))
            ngx.log(ngx.INFO, 'second: ', select(2, ngx.on_abort(print)))
            ngx.log(ngx.WARN, 'waiting ', ngx.var.uri)
            ngx.sleep(600)
        }
    }
    location /default {
        content_by_lua_block {
            ngx.thread.spawn(function() ngx.sleep(600) end)
            ngx.log(ngx.WARN, 'waiting ', ngx.var.uri)
            ngx.sleep(600)
        }
    }
    location /access {
        access_by_lua_block { ngx.log(ngx.WARN, 'waiting ', ngx.var.uri) ngx.sleep(600) }
        content_by_lua_block { ngx.say('never') }
    }
    location /goes-on {
        content_by_lua_block {
            ngx.on_abort(function() ngx.log(ngx.WARN, 'left') ngx.shared.notes:set('left', true) end)
            ngx.log(ngx.WARN, 'waiting ', ngx.var.uri)
            while not ngx.shared.notes:get('left') do ngx.sleep(0.001) end
            ngx.log(ngx.WARN, 'the end')
        }
    }
    location /stays { content_by_lua_block { ngx.on_abort(function() ngx.log(ngx.ERR, 'wrong') end) ngx.sleep(0.05) ngx.say('here') } }
    location /upload {
        content_by_lua_block {
            ngx.on_abort(function() ngx.log(ngx.ERR, 'wrong') end)
            ngx.sleep(0.02)
            ngx.req.read_body()
            ngx.sleep(0.02)
            ngx.say(#ngx.req.get_body_data())
        }
    }
    location /threads {
        content_by_lua_block {
            ngx.on_abort(function() ngx.log(ngx.WARN, 'left') ngx.exit(499) end)
            ngx.thread.spawn(function() ngx.req.read_body() ngx.log(ngx.WARN, 'read: ', ngx.req.get_body_data()) end)
            ngx.sleep(600)
        }
    }
    location /off { lua_check_client_abort off; content_by_lua_block { ngx.say(select(2, ngx.on_abort(print))) } }
";

#[test]
fn a_client_that_leaves_ends_its_request() {
    let server = start("", ABORT);
    for (path, said) in
        [("/note", "noted"), ("/default", "prematurely closed"), ("/access", "prematurely closed")]
    {
        let client = request(&server, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        server.wait_for_log(&format!("waiting {path}"));
        client.stream().shutdown(Shutdown::Both).expect("closed");
        server.wait_for_log(said);
        server.wait_for_line("logs/access.log", &format!("{path} 499"));
    }
    server.wait_for_log("second: duplicate call");
    assert_eq!(server.get("/off").text(), "lua_check_client_abort is off\n");
}

#[test]
fn a_callback_that_returns_lets_the_request_go_on() {
    let server = start("", ABORT);
    let client = request(&server, "GET /goes-on HTTP/1.1\r\nHost: a\r\n\r\n");
    server.wait_for_log("waiting");
    client.stream().shutdown(Shutdown::Both).expect("closed");
    server.wait_for_log("the end");
}

#[test]
fn uploads_and_pipelined_requests_are_no_leaving() {
    let server = start("", ABORT);
    let mut client =
        request(&server, "GET /stays HTTP/1.1\r\nHost: a\r\n\r\nGET /off HTTP/1.1\r\nHost: a\r\n\r\n");
    client.stream().shutdown(Shutdown::Write).expect("half closed");
    assert_eq!(client.read_response(false).expect("a response").text(), "here\n");
    let body = "x".repeat(150_000);
    let head = format!("POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let mut client = request(&server, &head);
    for piece in body.as_bytes().chunks(40_000) {
        client.stream().write_all(piece).expect("a piece is sent");
    }
    let response = client.read_response(false).expect("a response");
    assert_eq!(response.text(), "150000\n");
    assert!(!server.error_log().contains("wrong"), "{}", server.error_log());
    // While a light thread reads the body nobody else does, and afterwards the leaving is seen.
    let mut client = request(&server, "POST /threads HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc");
    client.send(b"def").expect("sent");
    server.wait_for_log("read: abcdef");
    client.stream().shutdown(Shutdown::Both).expect("closed");
    server.wait_for_line("logs/access.log", "/threads 499");
}

#[test]
fn a_loop_in_compiled_code_is_ended_and_the_worker_serves_on() {
    let config = "location /loop { content_by_lua_block { local n = 0 while true do n = (n + 1) % 7 end } }
        location /fine { return 200 fine; }";
    let server = start("lua_max_running_time 200ms;", config);
    for _ in 0..3 {
        assert_eq!(server.get("/loop").status, 500);
        assert_eq!(server.get("/fine").text(), "fine");
    }
    let log = server.error_log();
    assert!(log.contains("ran longer than allowed") && log.contains("stack traceback:"), "{log}");
}
