//! Reloads, stops and the other signals.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use e2e::http::{self, Client};
use e2e::server::Server;
use e2e::wait_for;
use nix::sys::signal::Signal;

const CONF: &str = "
    worker_processes 2;
    error_log logs/error.log notice;
    events {}
    http {
        access_log logs/access.log;
        lua_shared_dict d 1m;
        init_by_lua_block { generation = 'one' }
        server {
            listen 127.0.0.1:PORT;
            location / { content_by_lua_block { ngx.say(generation) } }
            location /count { content_by_lua_block { ngx.say((ngx.shared.d:incr('n', 1, 0))) } }
            location /slow { content_by_lua_block { ngx.sleep(0.3) ngx.say('done') } }
        }
    }
";

/// Ends the other threads of a test when one fails.
struct StopOnPanic<'a>(&'a AtomicBool);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

#[test]
fn a_thousand_requests_across_fifty_reloads() {
    let server = Server::start(CONF, &[]);
    let (done, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|s| {
        for kind in 0..4 {
            let (done, stop, port) = (&done, &stop, server.port);
            s.spawn(move || {
                let _stop_all = StopOnPanic(stop);
                let mut kept: Option<Client> = None;
                while !stop.load(Ordering::Relaxed) {
                    let response = if kind % 2 == 0 {
                        http::get(port, "/count")
                    } else {
                        let client = kept.get_or_insert_with(|| Client::connect(port).expect("accepted"));
                        client.get("/count")
                    };
                    let response = response.unwrap_or_else(|e| panic!("a request failed: {e}"));
                    assert_eq!(response.status, 200);
                    if response.header("Connection") == Some("close") {
                        kept = None;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _stop_all = StopOnPanic(&stop);
        for n in 0..50 {
            // Each reload has served at least twenty requests before the next.
            wait_for("requests go on", || {
                (done.load(Ordering::Relaxed) >= n * 20 || stop.load(Ordering::Relaxed)).then_some(())
            });
            server.signal(Signal::SIGHUP);
            wait_for("the reload began", || {
                (server.error_log().matches("reconfiguring").count() > n).then_some(())
            });
        }
        wait_for("a thousand requests", || {
            (done.load(Ordering::Relaxed) >= 1000 || stop.load(Ordering::Relaxed)).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
    });
    let count: usize = server.get("/count").text().trim().parse().expect("a number");
    assert_eq!(
        count,
        done.load(Ordering::Relaxed) + 1,
        "the dictionary outlives reloads and no request ran twice"
    );
}

#[test]
fn a_wrong_configuration_leaves_the_running_one() {
    let server = Server::start(CONF, &[]);
    let conf = std::fs::read_to_string(server.file("conf/nginx.conf")).expect("the configuration");
    std::fs::write(server.file("conf/nginx.conf"), conf.replace("events {}", "events {} oops;"))
        .expect("written");
    server.signal(Signal::SIGHUP);
    let line = server.wait_for_log("unknown directive");
    assert!(line.contains("[emerg]") && line.contains("\"oops\"") && line.contains("nginx.conf:4"), "{line}");
    assert_eq!(server.get("/").text(), "one\n");
    std::fs::write(server.file("conf/nginx.conf"), conf.replace("'one'", "'two'")).expect("written");
    server.signal(Signal::SIGHUP);
    wait_for("the new generation serves", || (server.get("/").text() == "two\n").then_some(()));
}

#[test]
fn quit_finishes_what_runs() {
    let mut server = Server::start(&CONF.replace("worker_processes 2", "worker_processes 1"), &[]);
    let mut client = server.connect();
    client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    // The request is on its way once another of the same connection's worker was answered.
    server.get("/");
    server.signal(Signal::SIGQUIT);
    assert_eq!(client.read_response(false).expect("the answer comes").text(), "done\n");
    assert!(server.wait().success());
    assert!(Client::connect(server.port).is_err());
}

#[test]
fn logs_are_reopened() {
    let server = Server::start(CONF, &[]);
    server.get("/");
    let log = server.file("logs/access.log");
    wait_for("a line", || std::fs::metadata(&log).ok().filter(|m| m.len() > 0));
    std::fs::rename(&log, server.file("logs/old.log")).expect("rotated");
    server.signal(Signal::SIGUSR1);
    wait_for("lines go to the new file", || {
        server.get("/");
        std::fs::metadata(&log).ok().filter(|m| m.len() > 0)
    });
}
