//! The master and its serving process; what a reload may change: addresses, workers, scripts that fail.

use e2e::http::{self, Client};
use e2e::server::Server;
use e2e::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CONF: &str = "
    worker_processes 1;
    error_log logs/error.log notice;
    events {}
    http {
        access_log off;
        init_by_lua_block { version = 'one' }
        server {
            listen 127.0.0.1:PORT;
            # more
            location / { content_by_lua_block { ngx.say(version) } }
            location /pid { return 200 $pid; }
            location /workers { content_by_lua_block { ngx.print(ngx.worker.count()) } }
        }
    }
";

fn rewrite(server: &Server, change: impl Fn(&str) -> String) {
    let path = server.file("conf/nginx.conf");
    let conf = std::fs::read_to_string(&path).expect("the configuration");
    std::fs::write(path, server.ports.fill(&change(&conf))).expect("written");
    server.signal(Signal::SIGHUP);
}

#[test]
fn the_master_starts_a_killed_process_again_and_clients_wait() {
    let server = Server::start_with(CONF, &[], "daemon off;");
    let first = server.get("/pid").text();
    let pid: i32 = first.parse().expect("a pid");
    assert_ne!(pid, server.pid().as_raw());
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it is alive");
    // The master holds the sockets: to connect never fails. A connection may still have met the dying process.
    let second = wait_for("the next process answers", || {
        let mut client = Client::connect(server.port).expect("the master listens");
        client.get("/pid").ok().map(|r| r.text()).filter(|pid| *pid != first)
    });
    assert_ne!(first, second);
    server.wait_for_log("exited on signal 9");
}

#[test]
fn addresses_come_and_go_with_reloads() {
    let server = Server::start(CONF, &[]);
    let other = server.ports.0[1];
    assert!(Client::connect(other).is_err());
    rewrite(&server, |c| c.replace("# more", "listen 127.0.0.1:PORT1;"));
    wait_for("the second address answers", || http::get(other, "/").ok());
    assert_eq!(server.get("/").text(), "one\n");
    rewrite(&server, |c| c.replace(&format!("listen 127.0.0.1:{other};"), "# more"));
    wait_for("the second address is closed", || Client::connect(other).is_err().then_some(()));
    assert_eq!(server.get("/").text(), "one\n");
}

#[test]
fn the_number_of_workers_changes_with_a_reload() {
    let server = Server::start(CONF, &[]);
    assert_eq!(server.get("/workers").text(), "1");
    for (from, to) in [("1", "3"), ("3", "2")] {
        rewrite(&server, |c| {
            c.replace(&format!("worker_processes {from};"), &format!("worker_processes {to};"))
        });
        wait_for("the new number", || (server.get("/workers").text() == to).then_some(()));
        for _ in 0..20 {
            assert_eq!(server.get("/").text(), "one\n");
        }
    }
}

#[test]
fn a_script_that_fails_on_reload_leaves_the_old_generation() {
    let server = Server::start(CONF, &[]);
    rewrite(&server, |c| c.replace("version = 'one'", "error('no good')"));
    let line = server.wait_for_log("no good");
    assert!(line.contains("[e"), "{line}");
    assert_eq!(server.get("/").text(), "one\n");
    rewrite(&server, |c| c.replace("error('no good')", "version = 'two'"));
    wait_for("a good one is taken", || (server.get("/").text() == "two\n").then_some(()));
}

#[test]
fn an_address_that_is_taken_leaves_the_old_generation() {
    let server = Server::start(CONF, &[]);
    let held = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = held.local_addr().expect("an address").port();
    rewrite(&server, |c| c.replace("# more", &format!("listen 127.0.0.1:{port};")).replace("'one'", "'two'"));
    server.wait_for_log(&format!("bind() to 127.0.0.1:{port} failed (98: Address already in use)"));
    assert_eq!(server.get("/").text(), "one\n");
}
