//! Names that are resolved at run time: cosockets, datagrams and `proxy_pass` against name servers of all kinds.

use e2e::dns::{A, AAAA, Asked, Dns};
use e2e::server::Server;
use e2e::{free_ports, wait_for};

/// The server under test: `resolver` as given, and ways to reach a host's `PORT` on it.
fn start(resolver: &str) -> Server {
    let conf = format!(
        "worker_processes 1;
        error_log logs/error.log info;
        events {{}}
        http {{
            access_log off;
            {resolver}
            lua_socket_log_errors off;
            init_by_lua_block {{
                function try(host)
                    local sock = ngx.socket.tcp()
                    local ok, err = sock:connect(host, PORT)
                    if not ok then return err end
                    assert(sock:send('GET /hi HTTP/1.0\\r\\n\\r\\n'))
                    local all = sock:receive('*a')
                    sock:close()
                    return all:match('\\r\\n\\r\\n(.*)')
                end
            }}
            server {{
                listen 127.0.0.1:PORT;
                listen 127.0.0.2:PORT;
                location /hi {{ return 200 $server_addr; }}
                location /tcp {{ content_by_lua_block {{ ngx.print(try(ngx.var.arg_host)) }} }}
                location /udp {{ content_by_lua_block {{
                    local sock = ngx.socket.udp()
                    local ok, err = sock:setpeername(ngx.var.arg_host, PORT)
                    ngx.print(ok and 'set' or err)
                }} }}
                location /proxy {{ proxy_pass http://$arg_host:PORT/hi; }}
                location /many {{ content_by_lua_block {{
                    local threads, results = {{}}, {{}}
                    for i = 1, 100 do
                        threads[i] = ngx.thread.spawn(try, ngx.var.arg_host)
                    end
                    for i = 1, 100 do
                        local _, result = ngx.thread.wait(threads[i])
                        results[result] = (results[result] or 0) + 1
                    end
                    for result, count in pairs(results) do ngx.print(result, ' ', count) end
                }} }}
                location /cosocket-of-timer {{ content_by_lua_block {{
                    local result
                    local host = ngx.var.arg_host
                    ngx.timer.at(0, function() result = try(host) end)
                    repeat ngx.sleep(0.001) until result
                    ngx.print(result)
                }} }}
            }}
        }}"
    );
    Server::start(&conf, &[])
}

/// A server that asks `dns` alone, with further parameters.
fn asking(dns: &Dns, parameters: &str) -> Server {
    start(&format!("resolver 127.0.0.1:{} {parameters};", dns.port))
}

fn tcp(server: &Server, host: &str) -> String {
    server.get(&format!("/tcp?host={host}")).text()
}

fn here(asked: &Asked) -> Vec<Vec<u8>> {
    vec![asked.addresses(3600, &["127.0.0.1"])]
}

#[test]
fn all_users_of_names_share_what_is_known() {
    let dns = Dns::start(here);
    let server = asking(&dns, "");
    for _ in 0..3 {
        assert_eq!(tcp(&server, "web.test"), "127.0.0.1");
        assert_eq!(tcp(&server, "Web.TEST."), "127.0.0.1");
        assert_eq!(server.get("/udp?host=web.test").text(), "set");
        assert_eq!(server.get("/proxy?host=web.test").text(), "127.0.0.1");
        assert_eq!(server.get("/cosocket-of-timer?host=web.test").text(), "127.0.0.1");
    }
    assert_eq!((dns.count("web.test", A), dns.count("web.test", AAAA)), (1, 1));
    // Addresses are nothing to ask for.
    assert_eq!(tcp(&server, "127.0.0.1"), "127.0.0.1");
    assert_eq!(server.get("/proxy?host=127.0.0.2").text(), "127.0.0.2");
    assert_eq!(tcp(&server, "[::1]"), "connection refused");
    assert_eq!(dns.asked().len(), 2);
}

#[test]
fn a_hundred_at_once_ask_once() {
    let dns = Dns::start(here);
    let server = asking(&dns, "");
    assert_eq!(server.get("/many?host=web.test").text(), "127.0.0.1 100");
    assert_eq!((dns.count("web.test", A), dns.count("web.test", AAAA)), (1, 1));
}

#[test]
fn the_file_of_hosts_is_not_asked_where_servers_are() {
    let dns = Dns::start(|asked| vec![asked.addresses(3600, &["127.0.0.2"])]);
    let server = asking(&dns, "");
    assert_eq!(tcp(&server, "localhost"), "127.0.0.2");
    assert_eq!(tcp(&start(""), "localhost"), "127.0.0.1");
    assert_eq!(dns.count("localhost", A), 1);
}

#[test]
fn an_answer_is_good_for_its_time() {
    let dns = Dns::start(|asked| vec![asked.addresses(1, &["127.0.0.1"])]);
    let server = asking(&dns, "ipv6=off");
    wait_for("a name is asked for again", || {
        assert_eq!(tcp(&server, "web.test"), "127.0.0.1");
        (dns.count("web.test", A) == 3).then_some(())
    });
    // Whatever the server says, for how long is said here.
    let short = Dns::start(|asked| vec![asked.addresses(0, &["127.0.0.1"])]);
    let other = asking(&short, "valid=1h ipv6=off");
    wait_for("the first name is asked for again", || {
        assert_eq!(tcp(&other, "web.test"), "127.0.0.1");
        assert_eq!(tcp(&server, "web.test"), "127.0.0.1");
        (dns.count("web.test", A) == 5).then_some(())
    });
    assert_eq!(short.count("web.test", A), 1);
    let long = Dns::start(here);
    let server = asking(&long, "valid=1s ipv6=off");
    wait_for("a name is asked for again", || {
        assert_eq!(tcp(&server, "web.test"), "127.0.0.1");
        (long.count("web.test", A) == 2).then_some(())
    });
}

#[test]
fn a_change_of_addresses_reaches_the_proxy() {
    let moved = std::sync::atomic::AtomicBool::new(false);
    let dns = Dns::start(move |asked| {
        let to =
            if moved.swap(true, std::sync::atomic::Ordering::Relaxed) { "127.0.0.2" } else { "127.0.0.1" };
        vec![asked.addresses(0, &[to])]
    });
    let server = asking(&dns, "ipv6=off");
    assert_eq!(server.get("/proxy?host=web.test").text(), "127.0.0.1");
    wait_for("the other address is used", || {
        (server.get("/proxy?host=web.test").text() == "127.0.0.2").then_some(())
    });
}

#[test]
fn failures_have_the_words_of_nginx() {
    let dns = Dns::start(|asked| match &asked.name[..] {
        "format.test" => vec![asked.code(1)],
        "failure.test" => vec![asked.code(2)],
        "missing.test" => vec![asked.code(3)],
        "unimplemented.test" => vec![asked.code(4)],
        "refused.test" => vec![asked.code(5)],
        "odd.test" => vec![asked.code(9)],
        "empty.test" => vec![asked.addresses(60, &[])],
        _ => Vec::new(),
    });
    let server = start(&format!("resolver 127.0.0.1:{}; resolver_timeout 200ms;", dns.port));
    for (name, text) in [
        ("format", "(1: Format error)"),
        ("failure", "(2: Server failure)"),
        ("missing", "(3: Host not found)"),
        ("unimplemented", "(4: Unimplemented)"),
        ("refused", "(5: Operation refused)"),
        ("odd", "(9: Unknown error)"),
        ("empty", "(3: Host not found)"),
        ("silent", "(110: Operation timed out)"),
    ] {
        let want = format!("{name}.test could not be resolved {text}");
        assert_eq!(tcp(&server, &format!("{name}.test")), want);
        assert_eq!(server.get(&format!("/udp?host={name}.test")).text(), want);
        assert_eq!(server.get(&format!("/proxy?host={name}.test")).status, 502);
        server.wait_for_log(&want);
    }
    // What no query can have is not asked for. That a name is missing is asked again.
    for name in ["a..b", ".a", &"x".repeat(64), &"x.".repeat(200)] {
        assert_eq!(tcp(&server, name), format!("{name} could not be resolved (3: Host not found)"));
    }
    assert_eq!(dns.count("missing.test", A), 3);
    assert!(dns.asked().iter().all(|a| a.name.ends_with(".test")));
}

#[test]
fn one_family_is_enough() {
    let dns = Dns::start(|asked| match (&asked.name[..], asked.kind) {
        ("half.test", AAAA) => vec![asked.code(2)],
        ("six.test", A) => vec![asked.addresses(60, &[])],
        ("six.test", _) => vec![asked.addresses(60, &["::1"])],
        _ => here(asked),
    });
    let server = asking(&dns, "");
    assert_eq!(tcp(&server, "half.test"), "127.0.0.1");
    // Nobody listens there.
    assert_eq!(tcp(&server, "six.test"), "connection refused");
    let server = asking(&dns, "ipv6=off");
    assert_eq!(tcp(&server, "six.test"), "six.test could not be resolved (3: Host not found)");
    let server = asking(&dns, "ipv4=off");
    assert_eq!(tcp(&server, "six.test"), "connection refused");
    assert_eq!((dns.count("six.test", A), dns.count("six.test", AAAA)), (2, 2));
}

#[test]
fn what_does_not_fit_comes_over_tcp() {
    let many: Vec<String> = (1..=100).map(|n| format!("127.0.0.{n}")).collect();
    let dns = Dns::start(move |asked| {
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        vec![if asked.over_tcp { asked.addresses(60, &many) } else { asked.truncated() }]
    });
    let server = asking(&dns, "");
    let reached = tcp(&server, "large.test");
    assert!(["127.0.0.1", "127.0.0.2"].contains(&&reached[..]), "{reached}");
    assert_eq!(dns.asked().iter().filter(|a| a.over_tcp).count(), 2);
}

#[test]
fn the_next_server_is_asked_when_one_is_dead_or_fails() {
    let [dead] = free_ports();
    let dns = Dns::start(here);
    let server = start(&format!("resolver 127.0.0.1:{dead} 127.0.0.1:{};", dns.port));
    for name in ["a.test", "b.test", "c.test"] {
        assert_eq!(tcp(&server, name), "127.0.0.1");
    }
    let line = server.wait_for_log("failed (111: Connection refused) while resolving");
    assert!(line.contains(&format!("resolver: 127.0.0.1:{dead}")), "{line}");

    let failing = Dns::start(|asked| vec![asked.code(2)]);
    let server = start(&format!("resolver 127.0.0.1:{} 127.0.0.1:{};", failing.port, dns.port));
    for name in ["a.test", "b.test"] {
        assert_eq!(tcp(&server, name), "127.0.0.1");
    }
    // They take turns.
    assert_eq!(failing.asked().len(), 2);
    let server = start(&format!("resolver 127.0.0.1:{} 127.0.0.1:{dead};", failing.port));
    assert_eq!(tcp(&server, "a.test"), "a.test could not be resolved (2: Server failure)");
}

#[test]
fn wrong_replies_are_passed_over() {
    let dns = Dns::start(|asked| {
        let mut spoofed = asked.addresses(3600, &["127.0.0.2", "::2"]);
        spoofed[0] ^= 0x55;
        let mut other = asked.addresses(3600, &["127.0.0.2", "::2"]);
        other[14] ^= 1;
        let mut short = asked.addresses(3600, &["127.0.0.2", "::2"]);
        short.pop();
        let garbage = vec![b"".to_vec(), b"x".to_vec(), vec![0xff; 512]];
        [garbage, vec![spoofed, other, short], here(asked)].concat()
    });
    let server = asking(&dns, "ipv6=off");
    assert_eq!(tcp(&server, "web.test"), "127.0.0.1");
    server.wait_for_log("wrong ident in DNS response while resolving \"web.test\"");
    server.wait_for_log("unexpected DNS response while resolving \"web.test\"");
    server.wait_for_log("short DNS response while resolving \"web.test\"");
}

#[test]
fn nothing_but_garbage_is_no_answer() {
    let dns = Dns::start(|_| vec![vec![0xc0; 64]; 100]);
    let server = start(&format!("resolver 127.0.0.1:{}; resolver_timeout 300ms;", dns.port));
    assert_eq!(tcp(&server, "web.test"), "web.test could not be resolved (110: Operation timed out)");
    server.wait_for_log("too many invalid DNS responses while resolving \"web.test\"");
}

#[test]
fn aliases_are_followed_and_end() {
    let dns = Dns::start(|asked| match asked.name.split_once('.').expect("a dot") {
        ("www", _) => vec![asked.alias(3600, "middle.test")],
        ("middle", _) => vec![asked.alias(3600, "web.test")],
        ("round", _) => vec![asked.alias(3600, "again.test")],
        ("again", _) => vec![asked.alias(3600, "round.test")],
        _ => here(asked),
    });
    let server = asking(&dns, "ipv6=off");
    for _ in 0..2 {
        assert_eq!(tcp(&server, "www.test"), "127.0.0.1");
    }
    assert_eq!(dns.asked().len(), 3);
    assert_eq!(tcp(&server, "round.test"), "round.test could not be resolved (3: Host not found)");
    assert!(dns.asked().len() < 25, "{}", dns.asked().len());
}

#[test]
fn several_addresses_take_turns() {
    let dns = Dns::start(|asked| vec![asked.addresses(3600, &["127.0.0.1", "127.0.0.2"])]);
    let server = asking(&dns, "");
    for path in ["/tcp?host=web.test", "/proxy?host=web.test"] {
        let all: Vec<_> = (0..4).map(|_| server.get(path).text()).collect();
        assert!(all[0] != all[1] && all[0] == all[2] && all[1] == all[3], "{path}: {all:?}");
    }
    // One that does not answer is passed over.
    let dns = Dns::start(|asked| vec![asked.addresses(3600, &["127.0.0.3", "127.0.0.2"])]);
    let server = asking(&dns, "");
    for _ in 0..4 {
        assert_eq!(tcp(&server, "web.test"), "127.0.0.2");
    }
}

#[test]
fn a_location_may_have_its_own_servers() {
    let (one, two) = (
        Dns::start(|asked| vec![asked.addresses(3600, &["127.0.0.1"])]),
        Dns::start(|asked| vec![asked.addresses(3600, &["127.0.0.2"])]),
    );
    let conf = format!(
        "events {{}}
        http {{
            resolver 127.0.0.1:{};
            server {{
                listen 127.0.0.1:PORT;
                listen 127.0.0.2:PORT;
                location /hi {{ return 200 $server_addr; }}
                location /one {{ proxy_pass http://$arg_host:PORT/hi; }}
                location /two {{ resolver 127.0.0.1:{}; proxy_pass http://$arg_host:PORT/hi; }}
            }}
        }}",
        one.port, two.port
    );
    let server = Server::start(&conf, &[]);
    for _ in 0..2 {
        assert_eq!(server.get("/one?host=web.test").text(), "127.0.0.1");
        assert_eq!(server.get("/two?host=web.test").text(), "127.0.0.2");
    }
    assert_eq!((one.count("web.test", A), two.count("web.test", A)), (1, 1));
}
