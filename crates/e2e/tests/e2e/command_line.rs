//! The flags, exit codes, the daemon with its pid file, and `-s`.

use std::path::Path;

use e2e::http::{self, Client};
use e2e::server::{Ports, Server, folder, run};
use e2e::wait_for;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CONF: &str = "events {}\nhttp { server { listen 127.0.0.1:PORT; return 200 \"$pid\"; } }\n";

#[test]
fn test_dump_and_version() {
    let dir = folder(&Ports::free().fill(CONF), &[]);
    let (status, said) = run(dir.path(), &["-t"]);
    assert!(status.success());
    assert!(
        said.contains("conf/nginx.conf syntax is ok") && said.contains("conf/nginx.conf test is successful"),
        "{said}"
    );
    let (status, said) = run(dir.path(), &["-tq"]);
    assert!(status.success() && said.is_empty(), "{said}");
    let (status, said) = run(dir.path(), &["-T"]);
    assert!(status.success());
    assert!(said.contains("# configuration file ") && said.contains("return 200 \"$pid\";"), "{said}");
    let (status, said) = run(dir.path(), &["-v"]);
    assert!(status.success() && said.contains("terrace version: terrace/"), "{said}");
    let (status, said) = run(dir.path(), &["-V"]);
    assert!(status.success() && said.contains("configure arguments: "), "{said}");
    assert!(!dir.path().join("logs/nginx.pid").exists(), "a check leaves no pid file");
}

#[test]
fn wrong_calls_end_with_1() {
    let dir = folder("events {} oops;", &[]);
    for (args, text) in [
        (&["-t"][..], "unknown directive \"oops\""),
        (&["-x"], "invalid option: \"x\""),
        (&["-s", "dance"], "invalid option: \"-s dance\""),
        (&["-c", "conf/none.conf"], "conf/none.conf\" failed (2: No such file or directory)"),
        (&["-g", "daemon off"], "unexpected end of parameter, expecting \";\" in command line"),
    ] {
        let (status, said) = run(dir.path(), args);
        assert_eq!(status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains(text), "{args:?}: {said}");
    }
    let dir = folder(&Ports::free().fill(CONF), &[]);
    let (status, said) = run(dir.path(), &["-s", "stop"]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("logs/nginx.pid\" failed (2: No such file or directory)"), "{said}");
}

/// A daemon in a folder; it is killed when a test fails.
struct Daemon<'a>(&'a Path);

impl Daemon<'_> {
    fn pid(&self) -> Option<i32> {
        std::fs::read_to_string(self.0.join("logs/nginx.pid")).ok()?.trim().parse().ok()
    }

    fn command(&self, name: &str) {
        let (status, said) = run(self.0, &["-s", name]);
        assert!(status.success(), "{name}: {said}");
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // It may be gone by now.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

#[test]
fn a_daemon_is_commanded_by_its_pid_file() {
    for end in ["stop", "quit"] {
        let ports = Ports::free();
        let port = ports.0[0];
        let conf = ports.fill(CONF).replace("return 200", "access_log logs/access.log; return 200");
        let dir = folder(&conf, &[]);
        let daemon = Daemon(dir.path());
        let (status, said) = run(dir.path(), &[]);
        assert!(status.success(), "{said}");
        // The socket is bound before the parent ends.
        let serving = http::get(port, "/").expect("it answers").text();
        let master = daemon.pid().expect("a pid file");
        assert_ne!(serving, master.to_string(), "the master does not serve");

        std::fs::write(dir.path().join("conf/nginx.conf"), conf.replace("\"$pid\"", "two")).expect("written");
        daemon.command("reload");
        wait_for("the new configuration", || (http::get(port, "/").ok()?.text() == "two").then_some(()));
        assert_eq!(daemon.pid(), Some(master), "the master stays");

        let log = dir.path().join("logs/access.log");
        std::fs::rename(&log, dir.path().join("logs/old.log")).expect("rotated");
        daemon.command("reopen");
        wait_for("the new log", || log.exists().then_some(()));

        daemon.command(end);
        wait_for("it ends", || Client::connect(port).is_err().then_some(()));
        wait_for("the pid file goes", || daemon.pid().is_none().then_some(()));
    }
}

#[test]
fn a_used_port_is_told_in_nginx_words() {
    let first = Server::start(CONF, &[]);
    let dir = folder(&first.ports.fill(CONF), &[]);
    let (status, said) = run(dir.path(), &["-g", "daemon off; master_process off;"]);
    assert_eq!(status.code(), Some(1));
    let text = format!("[emerg] bind() to 127.0.0.1:{} failed (98: Address already in use)", first.port);
    assert!(said.contains(&text), "{said}");
    assert!(!first.get("/").text().is_empty(), "the first one goes on");
}
