//! `memc_pass` and `memcached_pass` against a real memcached.

use std::collections::BTreeSet;

use e2e::server::Server;
use e2e::stack::Memcached;

const CONF: &str = r#"
error_log logs/error.log info;
pid logs/nginx.pid;
events {}
http {
    access_log logs/access.log;
    default_type text/plain;
    upstream backend { server 127.0.0.1:MEMCACHED; keepalive 4; }
    upstream dead_first { server 127.0.0.1:PORT1; server 127.0.0.1:MEMCACHED backup; }
    server {
        listen 127.0.0.1:PORT;
        server_name localhost;
        location /rest { set $memc_key $arg_key; memc_pass 127.0.0.1:MEMCACHED; }
        location /any {
            set $memc_cmd $arg_cmd;
            set $memc_key $arg_key;
            set $memc_value $arg_val;
            set $memc_flags $arg_flags;
            set $memc_exptime $arg_exptime;
            memc_pass backend;
            add_header X-Flags $memc_flags always;
        }
        location /body { set $memc_cmd $arg_cmd; set $memc_key $arg_key; memc_pass backend; }
        location /in_file { client_body_in_file_only clean; set $memc_key $arg_key; memc_pass backend; }
        location /dated { set $memc_key $arg_key; memc_flags_to_last_modified on; memc_pass backend; }
        location /allowed { set $memc_cmd $arg_cmd; set $memc_key k; memc_cmds_allowed get stats; memc_pass backend; }
        location /computed { set $memc_key $arg_key; set $to $arg_to; memc_pass $to; }
        location /next { set $memc_key $arg_key; memc_pass dead_first; memc_connect_timeout 5s; memc_next_upstream error timeout; }
        location /gone { set $memc_key k; memc_pass 127.0.0.1:PORT1; }
        location /missing { set $memc_key none; memc_pass backend; error_page 404 = @made; }
        location @made { echo "made for $memc_key"; }
        location /sub { echo_location /rest key=$arg_key; echo; echo end; }
        location /plain { set $memcached_key $arg_key; memcached_pass backend; memcached_gzip_flag 2; }
        location /unset { memcached_pass backend; }
    }
}
"#;

fn start() -> (Memcached, Server) {
    let memcached = Memcached::start();
    let server = Server::start(&CONF.replace("MEMCACHED", &memcached.port.to_string()), &[]);
    (memcached, server)
}

/// Sends a request, on a connection of its own; the answer is the status and the body.
fn ask(server: &Server, method: &str, target: &str, body: &str) -> (u16, String) {
    let mut client = server.connect();
    let request = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    client.send(request.as_bytes()).expect("sent");
    let response = client.read_response(method == "HEAD").expect("a response");
    (response.status, response.text())
}

#[test]
fn methods_stand_for_commands() {
    let (_memcached, server) = start();
    let is = |status, text: &str| (status, text.to_owned());
    assert_eq!(ask(&server, "GET", "/rest?key=a", "").0, 404);
    assert_eq!(ask(&server, "POST", "/rest?key=a", "one"), is(201, "STORED\r\n"));
    assert_eq!(ask(&server, "GET", "/rest?key=a", ""), is(200, "one"));
    assert_eq!(ask(&server, "HEAD", "/rest?key=a", ""), is(200, ""));
    assert_eq!(ask(&server, "POST", "/rest?key=a", "two"), is(200, "NOT_STORED\r\n"));
    assert_eq!(ask(&server, "PUT", "/rest?key=a", "two"), is(201, "STORED\r\n"));
    assert_eq!(ask(&server, "GET", "/rest?key=a", ""), is(200, "two"));
    assert_eq!(ask(&server, "DELETE", "/rest?key=a", ""), is(200, "DELETED\r\n"));
    assert_eq!(ask(&server, "DELETE", "/rest?key=a", "").0, 404);
    assert_eq!(ask(&server, "OPTIONS", "/rest?key=a", "").0, 400);
    server.wait_for_line("logs/error.log", "$memc_cmd variable not found for HTTP OPTIONS requests");
}

#[test]
fn every_command_and_its_status() {
    let (_memcached, server) = start();
    let get = |target: &str| ask(&server, "GET", target, "");
    let is = |status, text: &str| (status, text.to_owned());
    assert_eq!(get("/any?cmd=set&key=n&val=5&flags=7"), is(201, "STORED\r\n"));
    assert_eq!(get("/any?cmd=incr&key=n&val=3"), is(200, "8\r\n"));
    assert_eq!(get("/any?cmd=decr&key=n&val=1"), is(200, "7\r\n"));
    assert_eq!(get("/any?cmd=incr&key=none&val=3").0, 404);
    assert_eq!(get("/any?cmd=replace&key=n&val=b"), is(201, "STORED\r\n"));
    assert_eq!(get("/any?cmd=replace&key=none&val=b"), is(200, "NOT_STORED\r\n"));
    assert_eq!(get("/any?cmd=append&key=n&val=c"), is(201, "STORED\r\n"));
    assert_eq!(get("/any?cmd=prepend&key=n&val=a"), is(201, "STORED\r\n"));
    assert_eq!(get("/any?cmd=get&key=n"), is(200, "abc"));
    assert_eq!(get("/any?cmd=add&key=n&val=x"), is(200, "NOT_STORED\r\n"));
    assert_eq!(get("/any?cmd=incr&key=n&val=1").0, 502, "what is no number is a client's error");
    assert_eq!(get("/any?cmd=delete&key=n"), is(200, "DELETED\r\n"));
    let (status, stats) = get("/any?cmd=stats");
    assert!(status == 200 && stats.starts_with("STAT pid ") && stats.ends_with("END\r\n"), "{stats}");
    let (status, version) = get("/any?cmd=version");
    assert!(status == 200 && version.starts_with("VERSION "), "{version}");
    assert_eq!(get("/any?cmd=set&key=f&val=1").0, 201);
    assert_eq!(get("/any?cmd=flush_all"), is(200, "OK\r\n"));
    assert_eq!(get("/any?cmd=get&key=f").0, 404);
    for (target, said) in [
        ("/any?cmd=nonsense&key=a", "unknown $memc_cmd \"nonsense\""),
        ("/any?cmd=set&key=a&val=1&flags=x", "variable \"$memc_flags\" takes invalid value: x"),
        ("/any?cmd=set&key=a&val=1&exptime=-1", "variable \"$memc_exptime\" takes invalid value: -1"),
        ("/any?cmd=incr&key=a", "the \"$memc_value\" variable is required for command \"incr\""),
        ("/any?cmd=incr&key=a&val=x", "variable \"$memc_value\" is invalid for incr/decr: x"),
    ] {
        assert_eq!(get(target).0, 400, "{target}");
        server.wait_for_line("logs/error.log", said);
    }
    assert_eq!(get("/any?cmd=get").0, 500);
    server.wait_for_line("logs/error.log", "the \"$memc_key\" variable is not set");
    assert_eq!(get("/allowed?cmd=get").0, 404);
    assert_eq!(get("/allowed?cmd=flush_all").0, 403);
}

#[test]
fn flags_are_read_and_may_be_a_date() {
    let (_memcached, server) = start();
    let mut client = server.connect();
    assert_eq!(ask(&server, "GET", "/any?cmd=set&key=d&val=x&flags=1262304000", "").0, 201);
    let response = client.get("/any?cmd=get&key=d").expect("a response");
    assert_eq!(response.header("X-Flags"), Some("1262304000"));
    let response = client.get("/dated?key=d").expect("a response");
    assert_eq!(response.header("Last-Modified"), Some("Fri, 01 Jan 2010 00:00:00 GMT"));
    let since =
        "GET /dated?key=d HTTP/1.1\r\nHost: a\r\nIf-Modified-Since: Fri, 01 Jan 2010 00:00:00 GMT\r\n\r\n";
    client.send(since.as_bytes()).expect("sent");
    assert_eq!(client.read_response(false).expect("a response").status, 304);
}

#[test]
fn large_values_and_odd_keys_pass_both_ways() {
    let (_memcached, server) = start();
    let large: String = (0..300_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    assert_eq!(ask(&server, "PUT", "/body?cmd=set&key=large", &large).0, 201);
    assert_eq!(ask(&server, "GET", "/rest?key=large", ""), (200, large.clone()));
    assert_eq!(ask(&server, "PUT", "/in_file?key=file", &large).0, 201);
    assert_eq!(ask(&server, "GET", "/plain?key=file", ""), (200, large));
    assert_eq!(ask(&server, "PUT", "/body?cmd=set&key=a%20b", "\r\nEND\r\n").0, 201);
    assert_eq!(ask(&server, "GET", "/rest?key=a%20b", ""), (200, "\r\nEND\r\n".to_owned()));
    let too_large = "x".repeat(2_000_000);
    assert_eq!(ask(&server, "PUT", "/rest?key=huge", &too_large).0, 413, "client_max_body_size");
}

#[test]
fn connections_are_kept() {
    let (memcached, server) = start();
    for n in 0..5 {
        assert_eq!(ask(&server, "PUT", &format!("/body?cmd=set&key=k{n}"), "v").0, 201);
        assert_eq!(ask(&server, "GET", &format!("/body?key=k{n}"), ""), (200, "v".to_owned()));
    }
    let (_, stats) = ask(&server, "GET", "/any?cmd=stats", "");
    let total = stats.lines().find_map(|l| l.strip_prefix("STAT total_connections "));
    let total: u32 = total.and_then(|n| n.trim().parse().ok()).expect("a number of connections");
    assert!(total < 8, "each request had a connection of its own: {total}");
    memcached.process.restart();
    assert_eq!(
        ask(&server, "PUT", "/body?cmd=set&key=new", "v").0,
        201,
        "a connection that died is replaced"
    );
}

#[test]
fn other_servers_other_locations() {
    let (memcached, server) = start();
    assert_eq!(ask(&server, "PUT", "/rest?key=a", "one").0, 201);
    let direct = format!("/computed?key=a&to=127.0.0.1:{}", memcached.port);
    let answers: BTreeSet<_> = [direct.as_str(), "/computed?key=a&to=backend", "/next?key=a", "/plain?key=a"]
        .map(|target| ask(&server, "GET", target, ""))
        .into();
    assert_eq!(answers, BTreeSet::from([(200, "one".to_owned())]));
    assert_eq!(ask(&server, "GET", "/sub?key=a", ""), (200, "one\nend\n".to_owned()));
    assert_eq!(ask(&server, "GET", "/missing", ""), (200, "made for none\n".to_owned()));
    assert_eq!(ask(&server, "GET", "/gone", "").0, 502);
    assert_eq!(ask(&server, "POST", "/plain?key=a", "x").0, 405);
    assert_eq!(ask(&server, "GET", "/unset", "").0, 500);
    server.wait_for_line("logs/error.log", "the \"$memcached_key\" variable is not set");
    assert_eq!(ask(&server, "GET", "/any?cmd=set&key=z&val=zip&flags=3", "").0, 201);
    let response = server.connect().get("/plain?key=z").expect("a response");
    assert_eq!(response.header("Content-Encoding"), Some("gzip"));
}
