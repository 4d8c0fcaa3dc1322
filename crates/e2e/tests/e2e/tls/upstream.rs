//! `proxy_pass https`: nginx as the server behind.

use std::process::{Child, Command, Stdio};

use e2e::http::Response;
use e2e::server::{Ports, Server, folder};
use e2e::tls::Authority;
use tempfile::TempDir;

/// nginx, which is stopped when this goes.
struct Nginx {
    child: Child,
    ports: Ports,
    /// Its folder, which goes with it.
    _dir: TempDir,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // It has no other processes, and is gone either way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const NGINX: &str = "
    daemon off; master_process off; pid nginx.pid; error_log logs/error.log info;
    events {}
    http {
        access_log off;
        client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
        ssl_certificate up.crt; ssl_certificate_key up.key; ssl_client_certificate ca.crt;
        ssl_verify_client optional;
        server {
            listen 127.0.0.1:PORT ssl;
            ssl_session_cache shared:s:1m;
            ssl_protocols TLSv1.2 TLSv1.3;
            location / {
                return 200 '[$ssl_server_name] $ssl_session_reused $ssl_protocol $ssl_client_verify $connection $host';
            }
            location /large { root html; }
            location /post { client_max_body_size 0; proxy_pass http://127.0.0.1:PORT1; }
        }
        server { listen 127.0.0.1:PORT1; client_max_body_size 0; location / { return 200 $content_length; } }
        server { listen 127.0.0.1:PORT2 ssl; ssl_protocols TLSv1.2; return 200 $ssl_protocol,$ssl_cipher; }
        server { listen 127.0.0.1:PORT3; return 200 plain; }
    }
";

const CONF: &str = "
    error_log logs/error.log info;
    events {}
    http {
        access_log off;
        proxy_http_version 1.1;
        proxy_set_header Connection '';
        client_max_body_size 0;
        upstream up.test { server 127.0.0.1:UP0; keepalive 4; }
        upstream no.test { server 127.0.0.1:UP0; keepalive 4; }
        proxy_ssl_trusted_certificate ca.crt;
        server {
            listen 127.0.0.1:PORT;
            location /plain { proxy_pass https://127.0.0.1:UP0; }
            location /fresh { proxy_set_header Connection close; proxy_pass https://127.0.0.1:UP0; }
            location /once {
                proxy_ssl_session_reuse off; proxy_set_header Connection close;
                proxy_pass https://127.0.0.1:UP0;
            }
            location /kept { proxy_ssl_verify on; proxy_ssl_server_name on; proxy_pass https://up.test; }
            location /large { proxy_ssl_verify on; proxy_pass https://up.test; }
            location /post { proxy_ssl_verify on; proxy_pass https://up.test; }
            location /named {
                proxy_ssl_name $arg_name; proxy_ssl_verify on; proxy_ssl_server_name on;
                set $to https://127.0.0.1:UP0; proxy_pass $to;
            }
            location /other { proxy_ssl_verify on; proxy_pass https://no.test; }
            location /stranger {
                proxy_ssl_verify on; proxy_ssl_trusted_certificate other.crt; proxy_pass https://up.test;
            }
            location /shows {
                proxy_ssl_certificate client.crt; proxy_ssl_certificate_key client.key;
                proxy_pass https://127.0.0.1:UP0;
            }
            location /old {
                proxy_ssl_ciphers ECDHE-ECDSA-CHACHA20-POLY1305; proxy_pass https://127.0.0.1:UP2;
            }
            location /new { proxy_ssl_protocols TLSv1.3; proxy_pass https://127.0.0.1:UP2; }
            location /not { proxy_pass https://127.0.0.1:UP3; }
        }
    }
";

fn start() -> (Server, Nginx) {
    let ca = Authority::new("Test CA");
    let (up, client) = (ca.issue("up.test"), ca.issue("client"));
    let ports = Ports::free();
    let large = "0123456789abcdef".repeat(200_000);
    let files = [
        ("conf/up.crt", &up.certificate[..]),
        ("conf/up.key", &up.key),
        ("conf/ca.crt", ca.pem()),
        ("html/large", &large),
    ];
    let dir = folder(&ports.fill(NGINX), &files);
    let child = Command::new("/usr/sbin/nginx")
        .arg("-p")
        .arg(dir.path())
        .args(["-c", "conf/nginx.conf"])
        .stderr(Stdio::null())
        .spawn()
        .expect("nginx starts");
    let nginx = Nginx { child, ports, _dir: dir };
    let mut conf = CONF.to_owned();
    for (i, port) in nginx.ports.0.iter().enumerate() {
        conf = conf.replace(&format!("UP{i}"), &port.to_string());
    }
    e2e::wait_for("nginx listens", || e2e::http::Client::connect(nginx.ports.0[3]).ok());
    let other = Authority::new("Other CA");
    let server = Server::start(
        &conf,
        &[
            ("conf/ca.crt", ca.pem()),
            ("conf/other.crt", other.pem()),
            ("conf/client.crt", &client.certificate),
            ("conf/client.key", &client.key),
        ],
    );
    (server, nginx)
}

fn words(r: &Response) -> Vec<String> {
    r.text().split_whitespace().map(str::to_owned).collect()
}

#[test]
fn names_are_sent_and_checked() {
    let (server, nginx) = start();
    let plain = words(&server.get("/plain"));
    let host = format!("127.0.0.1:{}", nginx.ports.0[0]);
    assert_eq!((&plain[0][..], &plain[2][..], &plain[3][..]), ("[]", "TLSv1.3", "NONE"));
    assert!(host.starts_with(&plain[5]), "{plain:?}");
    assert_eq!(words(&server.get("/kept"))[0], "[up.test]");
    assert_eq!(words(&server.get("/named?name=up.test:99"))[0], "[up.test]");
    assert_eq!(words(&server.get("/shows"))[3], "SUCCESS");
    for (path, want) in [
        ("/named?name=down.test", "upstream SSL certificate does not match \"down.test\""),
        ("/other", "upstream SSL certificate does not match \"no.test\""),
        ("/stranger", "upstream SSL certificate verify error: (20:unable to get local issuer certificate)"),
        ("/new", "SSL_do_handshake() failed"),
        ("/not", "SSL_do_handshake() failed"),
    ] {
        assert_eq!(server.get(path).status, 502, "{path}");
        let line = server.wait_for_log(want);
        assert!(line.contains("while SSL handshaking to upstream"), "{line}");
        assert!(line.contains("upstream: \"https://127.0.0.1:"), "{line}");
    }
    assert_eq!(server.get("/old").text(), "TLSv1.2,ECDHE-ECDSA-CHACHA20-POLY1305");
}

#[test]
fn connections_are_kept_and_sessions_taken_up_again() {
    let (server, _nginx) = start();
    let connection = |path| words(&server.get(path))[4].clone();
    assert_eq!(connection("/kept"), connection("/kept"));
    assert_eq!(words(&server.get("/fresh"))[1], ".");
    assert_eq!(words(&server.get("/fresh"))[1], "r");
    assert_eq!(words(&server.get("/once"))[1], ".");
    assert_eq!(words(&server.get("/once"))[1], ".");
}

#[test]
fn large_bodies_pass_both_ways() {
    let (server, _nginx) = start();
    let body = server.get("/large").body;
    assert_eq!(body.len(), 3_200_000);
    assert!(body.chunks(16).all(|c| c == b"0123456789abcdef"));
    let mut client = server.connect();
    let size = 3_000_000;
    let head = format!("POST /post HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
    client.send(head.as_bytes()).expect("sent");
    client.send(&vec![b'x'; size]).expect("sent");
    // nginx has read all of it before it asks the server that tells the length.
    assert_eq!(client.read_response(false).expect("a response").text(), size.to_string());
}
