//! `listen ssl`: what curl and OpenSSL see.

use std::io::Read;

use e2e::server::{Server, folder, run};
use e2e::tls::{Authority, curl, s_client};
use nix::sys::signal::Signal;

const CONF: &str = "
    error_log logs/error.log info;
    events {}
    http {
        log_format f '$status $uri';
        access_log logs/access.log f;
        client_header_timeout 1s;
        ssl_certificate a.crt;
        ssl_certificate_key a.key;
        ssl_client_certificate ca.crt;
        server {
            listen 127.0.0.1:PORT ssl;
            server_name a.test;
            location / { return 200 '$scheme,$https,$ssl_protocol,$ssl_cipher,$ssl_server_name,$ssl_session_reused'; }
            location = /to { return 301 /there; }
            location = /large {
                content_by_lua_block { for i = 1, 200 do ngx.print(string.rep(i % 10, 10000)) end }
            }
        }
        server {
            listen 127.0.0.1:PORT;
            server_name b.test;
            ssl_certificate b.crt;
            ssl_certificate_key b.key;
            return 200 'b';
        }
        server { listen 127.0.0.1:PORT ssl; server_name no.test; ssl_reject_handshake on; }
        server {
            listen 127.0.0.1:PORT1 ssl;
            ssl_protocols TLSv1.2;
            ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256;
            ssl_verify_client optional;
            ssl_session_tickets off;
            ssl_session_cache shared:s:1m;
            return 200 '$ssl_client_verify,$ssl_client_s_dn,$ssl_protocol,$ssl_cipher';
        }
        server { listen 127.0.0.1:PORT2 ssl; ssl_verify_client on; return 200 'known'; }
        server {
            listen 127.0.0.1:PORT3 ssl;
            error_page 497 https://$host/elsewhere;
            error_page 496 =200 /none;
            ssl_verify_client on;
            location = /none { return 200 'nobody'; }
        }
        server {
            listen 127.0.0.1:PORT4 ssl;
            ssl_certificate $ssl_server_name.crt;
            ssl_certificate_key $ssl_server_name.key;
            return 200 'by name';
        }
    }
";

struct Setup {
    server: Server,
}

fn start() -> Setup {
    let ca = Authority::new("Test CA");
    let (a, b, client) = (ca.issue("a.test"), ca.issue("b.test"), ca.issue("client"));
    let stranger = Authority::new("Other CA").issue("stranger");
    let server = Server::start(
        CONF,
        &[
            ("conf/ca.crt", ca.pem()),
            ("conf/a.crt", &a.certificate),
            ("conf/a.key", &a.key),
            ("conf/b.crt", &b.certificate),
            ("conf/b.key", &b.key),
            ("conf/b.test.crt", &b.certificate),
            ("conf/b.test.key", &b.key),
            ("conf/client.crt", &client.certificate),
            ("conf/client.key", &client.key),
            ("conf/stranger.crt", &stranger.certificate),
            ("conf/stranger.key", &stranger.key),
        ],
    );
    Setup { server }
}

impl Setup {
    fn curl(&self, host: &str, port: usize, path: &str, args: &[&str]) -> String {
        let args = [&["--cacert", "ca.crt"], args].concat();
        curl(&self.server.file("conf"), host, self.server.ports.0[port], path, &args)
    }
}

#[test]
fn names_choose_the_certificate_and_variables_tell() {
    let s = start();
    assert_eq!(s.curl("a.test", 0, "/", &[]), "https,on,TLSv1.3,TLS_AES_256_GCM_SHA384,a.test,.");
    assert_eq!(s.curl("b.test", 0, "/", &[]), "b");
    assert!(s.curl("no.test", 0, "/", &[]).contains("unrecognized name"));
    let port = s.server.port;
    assert!(s.curl("a.test", 0, "/to", &["-i"]).contains(&format!("Location: https://a.test:{port}/there")));
    let large = s.curl("a.test", 0, "/large", &[]);
    assert_eq!((large.len(), large.bytes().filter(|b| *b == b'7').count()), (2_000_000, 200_000));
}

#[test]
fn plain_http_is_told_so() {
    let s = start();
    let port = |i: usize| s.server.ports.0[i];
    let text = s.curl("a.test", 0, &format!("http://a.test:{}/", port(0)), &["-i"]);
    assert!(text.starts_with("HTTP/1.1 400 Bad Request"), "{text}");
    assert!(text.contains("The plain HTTP request was sent to HTTPS port"), "{text}");
    s.server.wait_for_log("client sent plain HTTP request to HTTPS port");
    s.server.wait_for_line("logs/access.log", "400 /");
    let text = s.curl("a.test", 3, &format!("http://a.test:{}/", port(3)), &["-i"]);
    assert!(text.contains("302 Moved") && text.contains("Location: https://a.test/elsewhere"), "{text}");
}

#[test]
fn clients_show_certificates() {
    let s = start();
    let known = ["--cert", "client.crt", "--key", "client.key"];
    let stranger = ["--cert", "stranger.crt", "--key", "stranger.key"];
    let insecure = |port, args: &[&str]| s.curl("a.test", port, "/", args);
    let cipher = "TLSv1.2,ECDHE-ECDSA-AES128-GCM-SHA256";
    assert_eq!(insecure(1, &[]), format!("NONE,,{cipher}"));
    assert_eq!(insecure(1, &known), format!("SUCCESS,CN=client,{cipher}"));
    assert!(insecure(1, &stranger).contains("The SSL certificate error"));
    s.server.wait_for_log("client SSL certificate verify error: (20:unable to get local issuer certificate)");
    assert_eq!(insecure(2, &known), "known");
    assert!(insecure(2, &[]).contains("400 No required SSL certificate was sent"));
    assert_eq!(insecure(3, &[]), "nobody");
}

/// OpenSSL makes such a certificate where it is asked for no extension.
#[test]
fn a_clients_certificate_of_version_1_is_good() {
    let s = start();
    let dir = s.server.file("conf");
    let openssl = |line: &str| {
        let out = std::process::Command::new("openssl").current_dir(&dir).args(line.split(' ')).output();
        assert!(out.expect("openssl runs").status.success(), "{line}");
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout old.key -out ca.crt -subj /CN=Old");
    openssl("req -newkey rsa:2048 -nodes -keyout client.key -out client.csr -subj /CN=one");
    openssl("x509 -req -in client.csr -CA ca.crt -CAkey old.key -CAcreateserial -out client.crt");
    s.server.signal(Signal::SIGHUP);
    e2e::wait_for("the new authority is known", || {
        let answer = s.curl("a.test", 1, "/", &["-k", "--cert", "client.crt", "--key", "client.key"]);
        answer.starts_with("SUCCESS,CN=one").then_some(())
    });
}

#[test]
fn sessions_are_taken_up_again_by_ticket_and_by_number() {
    let s = start();
    let dir = s.server.file("conf");
    for port in [0, 1] {
        let port = s.server.ports.0[port];
        let first = s_client(&dir, port, &["-tls1_2", "-CAfile", "ca.crt", "-sess_out", "session"]);
        assert!(first.contains("New, TLSv1.2") && first.contains("Verification: OK"), "{first}");
        let second = s_client(&dir, port, &["-tls1_2", "-CAfile", "ca.crt", "-sess_in", "session"]);
        assert!(second.contains("Reused, TLSv1.2"), "{second}");
    }
    assert!(s_client(&dir, s.server.ports.0[1], &["-tls1_3"]).contains("alert protocol version"));
}

#[test]
fn a_client_that_says_nothing_is_let_go() {
    let s = start();
    let client = s.server.connect();
    assert_eq!(client.stream().read(&mut [0]).expect("the end"), 0);
    s.server.wait_for_log("client timed out (110: Connection timed out) while SSL handshaking");
}

#[test]
fn certificates_are_read_anew_by_a_reload_or_by_each_handshake() {
    let s = start();
    let shown = |port| {
        let text = s_client(&s.server.file("conf"), s.server.ports.0[port], &["-servername", "b.test"]);
        text.lines().find_map(|l| l.strip_prefix("subject=").map(str::to_owned)).unwrap_or_default()
    };
    assert_eq!((shown(2).as_str(), shown(4).as_str()), ("CN = a.test", "CN = b.test"));
    assert_eq!(s.curl("b.test", 4, "/", &[]), "by name");
    for (from, to) in [("b", "a"), ("client", "b.test")] {
        for kind in ["crt", "key"] {
            let name = |n| s.server.file(&format!("conf/{n}.{kind}"));
            std::fs::copy(name(from), name(to)).expect("copied");
        }
    }
    assert_eq!((shown(2).as_str(), shown(4).as_str()), ("CN = a.test", "CN = client"));
    s.server.signal(Signal::SIGHUP);
    e2e::wait_for("the new certificate", || (shown(2) == "CN = b.test").then_some(()));
    assert!(s.curl("gone.test", 4, "/", &[]).contains("alert internal error"));
    s.server.wait_for_log("gone.test.crt\": open() failed (2: No such file or directory)");
}

#[test]
fn wrong_files_are_told_when_the_configuration_is_read() {
    let ca = Authority::new("Test CA");
    let (a, b) = (ca.issue("a.test"), ca.issue("b.test"));
    for (directives, want) in [
        (
            "ssl_certificate no.crt; ssl_certificate_key a.key;",
            "no.crt\": open() failed (2: No such file or directory)",
        ),
        ("ssl_certificate a.crt;", "no \"ssl_certificate_key\" is defined for certificate \"a.crt\""),
        ("ssl_certificate a.crt; ssl_certificate_key b.key;", "a.crt\": key values mismatch"),
        ("ssl_certificate a.key; ssl_certificate_key a.key;", "a.key\": no certificate found"),
        ("ssl_certificate a.crt; ssl_certificate_key a.crt;", "a.crt\": no supported private key found"),
        ("", "no \"ssl_certificate\" is defined for the \"listen ... ssl\" directive"),
        ("ssl_certificate a.crt; ssl_certificate_key a.key; ssl_protocols TLSv1;", "leaves neither"),
        (
            "ssl_certificate a.crt; ssl_certificate_key a.key; ssl_verify_client on;",
            "no ssl_client_certificate",
        ),
    ] {
        let conf = format!("events {{}} http {{ server {{ listen 127.0.0.1:1 ssl; {directives} }} }}");
        let dir =
            folder(&conf, &[("conf/a.crt", &a.certificate), ("conf/a.key", &a.key), ("conf/b.key", &b.key)]);
        let (status, said) = run(dir.path(), &["-t"]);
        assert!(!status.success() && said.contains("[emerg]") && said.contains(want), "{directives}: {said}");
    }
}
