//! Configurations that are refused, and exchanges with scripted servers. The client's side is a request without a
//! connection whose body is kept, so no server binary is needed.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use terrace_base::clock;
use terrace_conf::Registry;
use terrace_event::EventLoop;
use terrace_http::Step;
use terrace_http::conf::Paths;
use terrace_http::core::Core;
use terrace_http::generation::ServerIndex;
use terrace_http::{Builder, Generation, Module, Request, Worker, engine};
use terrace_net::{ListenOptions, Listener};

use crate::{Attempt, Balancer, FailureKind, KNOWN, LastFailure, set_balancer};

static MODULES: &[&dyn Module] =
    &[&Core, &crate::upstream::UpstreamModule, &crate::proxy::Proxy, &crate::proxy::ProxySsl, &TestBalancer];

/// `test_balancer address…;` in an upstream: these peers, one an attempt.
struct TestBalancer;

struct Listed(Vec<SocketAddr>);

/// What a balancer was told of the attempt before, by request.
#[derive(Default)]
struct Told(RefCell<Vec<Option<LastFailure>>>);

impl Balancer for Listed {
    fn pick(&self, r: &Rc<Request>, attempt: &Rc<Attempt>) -> Step<Result<(), u16>> {
        r.worker.state(Told::default).0.borrow_mut().push(attempt.last_failure());
        if attempt.number() == 0 {
            attempt.set_more_tries(self.0.len() as u32 - 1);
        }
        match self.0.get(attempt.number() as usize) {
            Some(a) => attempt.set_peer((*a).into(), None),
            None => return Step::Ready(Err(503)),
        }
        Step::Ready(Ok(()))
    }
}

impl Module for TestBalancer {
    fn directives(&self) -> &'static [terrace_conf::Directive<Builder>] {
        use terrace_conf::{Arity, Contexts};
        static ROWS: &[terrace_conf::Directive<Builder>] = &[terrace_http::conf::table::simple(
            "test_balancer",
            Contexts::UPSTREAM,
            Arity::AtLeast(1),
            "",
            "",
            |b, n| {
                let list = (0..n.args.len()).map(|i| n.text(i).unwrap().parse().unwrap()).collect();
                set_balancer(b, n, Arc::new(Listed(list)))
            },
        )];
        ROWS
    }
}

fn load(http: &str) -> Result<Generation, String> {
    let tables: Vec<_> = MODULES.iter().map(|m| m.directives()).collect();
    let registry = Arc::new(Registry::new(&tables, KNOWN));
    let text = format!("error_log stderr emerg; http {{ {http} }}");
    let nodes =
        terrace_conf::parse_text(text.as_bytes(), "test.conf", &|_| false).map_err(|e| e.to_string())?;
    let prefix = PathBuf::from("/nonexistent");
    let paths = Paths { conf_dir: prefix.clone(), prefix, error_log: None, test_only: true };
    let builder = Builder::new(registry, MODULES, paths, Arc::default());
    builder.build(&nodes, 1).map(|(g, _)| g).map_err(|e| e.to_string())
}

fn refusal(http: &str) -> String {
    load(http).err().unwrap_or_else(|| "accepted".to_owned())
}

#[test]
fn upstream_blocks_are_refused_with_nginxs_words() {
    for (conf, want) in [
        ("upstream a { }", "no servers are inside upstream"),
        ("upstream a { server 127.0.0.1; } upstream a { server 127.0.0.1; }", "duplicate upstream \"a\""),
        ("upstream a { server 127.0.0.1 weight=0; }", "invalid parameter \"weight=0\""),
        ("upstream a { server 127.0.0.1 wait=1; }", "invalid parameter \"wait=1\""),
        ("upstream a { ip_hash; server 127.0.0.1 backup; }", "does not support parameter \"backup\""),
        ("upstream a { server 127.0.0.1:0; }", "invalid port in upstream \"127.0.0.1:0\""),
        ("upstream a { server 127.0.0.1/x; }", "invalid host in upstream \"127.0.0.1/x\""),
        ("upstream a { server 127.0.0.1; keepalive 0; }", "invalid value \"0\" in \"keepalive\" directive"),
        (
            "upstream a { server 127.0.0.1; keepalive 2; keepalive 3; }",
            "\"keepalive\" directive is duplicate",
        ),
        ("upstream a { server host.invalid; }", "host not found in upstream \"host.invalid\""),
        ("upstream a { hash $nope; server 127.0.0.1; }", "unknown \"nope\" variable"),
        ("upstream a { random one; server 127.0.0.1; }", "invalid parameter \"one\""),
    ] {
        let got = refusal(conf);
        assert!(got.contains(want), "{conf}: {got}");
    }
    assert_eq!(
        refusal(
            "upstream a { least_conn; server 127.0.0.1 max_fails=2 fail_timeout=3s; server [::1]:81 backup; }"
        ),
        "accepted"
    );
}

#[test]
fn proxy_directives_are_refused_with_nginxs_words() {
    let location = |l: &str, d: &str| {
        format!("upstream up {{ server 127.0.0.1; }} server {{ listen 1; location {l} {{ {d} }} }}")
    };
    for (l, d, want) in [
        ("/", "proxy_pass ftp://x;", "invalid URL prefix"),
        (
            "/",
            "proxy_ssl_verify on; proxy_pass https://up;",
            "no proxy_ssl_trusted_certificate for proxy_ssl_verify",
        ),
        (
            "/",
            "proxy_ssl_certificate a; proxy_pass https://up;",
            "no \"proxy_ssl_certificate_key\" is defined for certificate \"a\"",
        ),
        ("/", "proxy_pass http://up; proxy_pass http://up;", "\"proxy_pass\" directive is duplicate"),
        ("~ x", "proxy_pass http://up/a;", "\"proxy_pass\" cannot have URI part"),
        ("@n", "proxy_pass http://up/a;", "\"proxy_pass\" cannot have URI part"),
        ("/", "proxy_pass http://up:81;", "upstream \"up\" may not have port 81"),
        ("/", "proxy_pass http://host.invalid;", "host not found in upstream \"host.invalid\""),
        ("/", "proxy_redirect default; proxy_pass http://up;", "should be placed after the \"proxy_pass\""),
        ("/", "proxy_next_upstream error sometimes;", "invalid value \"sometimes\""),
        ("/", "proxy_http_version 2;", "invalid value \"2\""),
        ("/", "proxy_cache zone;", "known but not carried out yet"),
    ] {
        let got = refusal(&location(l, d));
        assert!(got.contains(want), "{l} {d}: {got}");
    }
}

/// A server that answers each connection with the next script: the pieces are sent one a request, then it closes.
struct Peer {
    address: SocketAddr,
    seen: Rc<RefCell<Vec<String>>>,
    connections: Rc<RefCell<usize>>,
}

fn peer(scripts: Vec<Vec<&'static str>>) -> Peer {
    let any = SocketAddr::from(([127, 0, 0, 1], 0)).into();
    let listener = Listener::bind(&any, &ListenOptions::default()).unwrap();
    let address = listener.socket().local_addr().unwrap().as_socket().unwrap();
    let acceptor = listener.acceptor().unwrap();
    let seen = Rc::new(RefCell::new(Vec::new()));
    let connections = Rc::new(RefCell::new(0));
    let (log, count) = (Rc::clone(&seen), Rc::clone(&connections));
    let mut scripts = VecDeque::from(scripts);
    terrace_event::spawn(async move {
        while let Some(answers) = scripts.pop_front() {
            let (stream, _) = acceptor.accept().await.unwrap();
            *count.borrow_mut() += 1;
            for answer in answers {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    match stream.read(&mut byte).await {
                        Ok(1) => request.push(byte[0]),
                        _ => return,
                    }
                }
                log.borrow_mut().push(String::from_utf8(request).unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    });
    Peer { address, seen, connections }
}

fn worker(http: &str) -> Rc<Worker> {
    Worker::new(Some(0), Arc::new(load(http).unwrap()))
}

async fn get(worker: &Rc<Worker>, target: &str) -> (Rc<Request>, String) {
    let mut r = Request::detached(worker, ServerIndex(0));
    Rc::get_mut(&mut r).unwrap().parent = Some(Weak::new());
    let (path, args) = target.split_once('?').unwrap_or((target, ""));
    r.set_uri(path.as_bytes().to_vec());
    r.set_args(args.as_bytes().to_vec());
    engine::run(&r).await;
    let body = String::from_utf8(r.output.take_captured()).unwrap();
    (r, body)
}

fn run(test: impl Future<Output = ()>) {
    EventLoop::new(clock::update_at).unwrap().block_on(test);
}

fn variable(r: &Request, name: &str) -> String {
    let mut out = Vec::new();
    r.generation().vars.get_by_name(r, name.as_bytes(), &mut out);
    String::from_utf8(out).unwrap()
}

const OK: &str =
    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Seen: a\r\nX-Seen: b\r\nSet-Cookie: k=v; Path=/\r\n\r\nok";

#[test]
fn kept_connections_are_reused_and_stale_ones_replaced() {
    run(async {
        let p = peer(vec![vec![OK, OK], vec![OK]]);
        let w = worker(&format!(
            "upstream u {{ server {}; keepalive 2; }} server {{ listen 1; proxy_http_version 1.1; \
             proxy_set_header Connection \"\"; proxy_set_header X-A \"$proxy_host\"; location /a/ {{ proxy_pass http://u/b/; }} }}",
            p.address
        ));
        for i in 0..3 {
            let (r, body) = get(&w, "/a/c%20d?q").await;
            assert_eq!((r.headers_out.status.get(), &body[..]), (200, "ok"), "{i}");
            assert_eq!(variable(&r, "upstream_http_x_seen"), "a, b");
            assert_eq!(variable(&r, "upstream_cookie_k"), "v");
            assert!(variable(&r, "upstream_status").ends_with("200"));
        }
        assert_eq!(*p.connections.borrow(), 2);
        let want = "GET /b/c%2520d?q HTTP/1.1\r\nX-A: u\r\nHost: u\r\n\r\n";
        assert!(p.seen.borrow().iter().all(|s| s == want), "{:?}", p.seen.borrow());
    });
}

#[test]
fn bodies_of_every_framing_pass() {
    run(async {
        let p = peer(vec![
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"],
            vec!["HTTP/1.1 200 OK\r\n\r\nuntil close"],
            vec![
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 203 Odd Words\r\nContent-Length: 1\r\n\r\n!",
            ],
        ]);
        let w = worker(&format!("server {{ listen 1; location / {{ proxy_pass http://{}; }} }}", p.address));
        for want in [(200, "abcde"), (200, "until close"), (203, "!")] {
            let (r, body) = get(&w, "/").await;
            assert_eq!((r.headers_out.status.get(), &body[..]), want);
            assert!(r.output.is_finished());
            if want.0 == 203 {
                assert_eq!(r.headers_out.status_line.borrow().as_deref(), Some(&b"203 Odd Words"[..]));
            }
        }
    });
}

#[test]
fn a_body_cut_short_never_looks_complete() {
    run(async {
        let p = peer(vec![
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort"],
            vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"],
        ]);
        let w = worker(&format!("server {{ listen 1; location / {{ proxy_pass http://{}; }} }}", p.address));
        for want in ["short", "hel"] {
            let (r, body) = get(&w, "/").await;
            assert_eq!(body, want);
            assert!(r.output.is_aborted() && !r.output.is_finished() && !r.keep_alive.get());
        }
    });
}

#[test]
fn the_next_peer_is_asked_where_one_fails() {
    run(async {
        let bad = peer(vec![vec![], vec!["HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"]]);
        let good = peer(vec![vec![OK], vec![OK]]);
        let w = worker(&format!(
            "upstream u {{ server {} max_fails=0; server {} backup; }} \
             server {{ listen 1; proxy_next_upstream error http_500; location / {{ proxy_pass http://u; }} }}",
            bad.address, good.address
        ));
        for want in ["502, 200", "500, 200"] {
            let (r, body) = get(&w, "/").await;
            assert_eq!((&variable(&r, "upstream_status")[..], &body[..]), (want, "ok"));
            let addresses = format!("{}, {}", bad.address, good.address);
            assert_eq!(variable(&r, "upstream_addr"), addresses);
        }
    });
}

#[test]
fn a_balancer_chooses_and_is_told_of_failures() {
    run(async {
        let bad = peer(vec![vec!["nonsense\r\n"]]);
        let good = peer(vec![vec![OK]]);
        let w = worker(&format!(
            "upstream u {{ server 0.0.0.1; test_balancer {} {}; }} server {{ listen 1; \
             proxy_next_upstream error invalid_header; location / {{ proxy_pass http://u; }} }}",
            bad.address, good.address
        ));
        let (r, body) = get(&w, "/").await;
        assert_eq!((&body[..], &variable(&r, "upstream_status")[..]), ("ok", "502, 200"));
        let failed = LastFailure { kind: FailureKind::Failed, status: 502 };
        assert_eq!(*w.state(Told::default).0.borrow(), [None, Some(failed)]);
    });
}
