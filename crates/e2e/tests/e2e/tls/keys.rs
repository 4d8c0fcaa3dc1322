//! `ssl_password_file`, `ssl_session_ticket_key`, `ssl_key_log`: keys under passphrases, keys of a fleet, and keys told.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use e2e::server::{Server, folder, run};
use e2e::tls::{Authority, curl, openssl, s_client, s_client_sends};

#[test]
fn keys_under_passphrases_are_read() {
    let ca = Authority::new("Test CA");
    let (a, other) = (ca.issue("a.test"), ca.issue("b.test"));
    let dir = folder(
        "",
        &[
            ("conf/a.crt", &a.certificate),
            ("conf/a.key", &a.key),
            ("conf/b.key", &other.key),
            ("conf/words", "wrong\r\nsecret\r\n\r\nanother"),
            ("conf/wrong", "wrong"),
            ("conf/empty", "\n"),
        ],
    );
    let conf = dir.path().join("conf");
    openssl(&conf, "req -x509 -newkey rsa:2048 -nodes -keyout r.key -out r.crt -subj /CN=r.test -days 30");
    let pkcs8 = "pkcs8 -topk8 -passout pass:secret -in";
    for (name, command) in [
        ("aes", format!("{pkcs8} a.key -v2 aes-256-cbc")),
        ("sha1", format!("{pkcs8} a.key -v2 aes-128-cbc -v2prf hmacWithSHA1")),
        ("sha512", format!("{pkcs8} a.key -v2 aes-192-cbc -v2prf hmacWithSHA512")),
        ("des3", format!("{pkcs8} a.key -v2 des3")),
        ("scrypt", format!("{pkcs8} a.key -scrypt -scrypt_N 1024 -scrypt_r 8 -scrypt_p 1")),
        ("ec", "ec -in a.key -aes256 -passout pass:secret".to_owned()),
        ("ec-des3", "ec -in a.key -des3 -passout pass:secret".to_owned()),
        ("rsa", "rsa -in r.key -aes128 -traditional -passout pass:secret".to_owned()),
        ("rsa192", "rsa -in r.key -aes192 -traditional -passout pass:secret".to_owned()),
    ] {
        openssl(&conf, &format!("{command} -out {name}.key"));
        let certificate = if name.starts_with("rsa") { "r.crt" } else { "a.crt" };
        let test = |words: &str| {
            let server = format!(
                "listen 127.0.0.1:1 ssl; ssl_certificate {certificate}; ssl_certificate_key {name}.key; {words}"
            );
            let location = format!(
                "proxy_pass https://127.0.0.1:1; proxy_ssl_certificate {certificate}; proxy_ssl_certificate_key {name}.key; {}",
                words.replace("ssl_", "proxy_ssl_")
            );
            let mut said = Vec::new();
            for server in [server, format!("location / {{ {location} }}")] {
                let text = format!("events {{}} http {{ server {{ {server} }} }}");
                std::fs::write(conf.join("nginx.conf"), text).expect("written");
                said.push(run(dir.path(), &["-t"]));
            }
            said
        };
        for (words, want) in [
            ("ssl_password_file words;", None),
            ("ssl_password_file wrong;", Some("no passphrase decrypts the private key")),
            ("ssl_password_file empty;", Some("no passphrase decrypts the private key")),
            ("", Some("private key is encrypted, and there is no passphrase for it")),
            ("ssl_password_file nowhere;", Some("nowhere\": open() failed (2: No such file or directory)")),
        ] {
            for (status, said) in test(words) {
                assert_eq!(status.success(), want.is_none(), "{name} {words}: {said}");
                assert!(said.contains(want.unwrap_or("")), "{name} {words}: {said}");
            }
        }
    }
}

const CONF: &str = r#"
    error_log logs/error.log info;
    events {}
    http {
        access_log off;
        ssl_certificate a.crt;
        ssl_certificate_key a.key;
        ssl_password_file words;
        server { listen 127.0.0.1:PORT; lua_ssl_key_log lua.log; location / {
            content_by_lua_block {
                local ssl = require "ngx.ssl"
                local f = io.open(ngx.config.prefix() .. "conf/a.key")
                local pem = f:read("*a")
                f:close()
                ngx.say(#ssl.priv_key_pem_to_der(pem, "secret") > 50, " ", select(2, ssl.priv_key_pem_to_der(pem, "wrong")))
                ngx.say(select(2, ssl.priv_key_pem_to_der(pem)))
                local s = ngx.socket.tcp()
                s:connect("127.0.0.1", PORT1)
                s:sslhandshake(false)
            }
        } }
        server { listen 127.0.0.1:PORT1 ssl; ssl_session_ticket_key old.key; ssl_key_log keys.log; location / { return 200 $ssl_session_reused; } }
        server { listen 127.0.0.1:PORT2 ssl; ssl_session_ticket_key new.key; ssl_session_ticket_key old.key; location / { return 200 $ssl_session_reused; } }
        server { listen 127.0.0.1:PORT3 ssl; ssl_session_ticket_key new.key; location / { return 200 $ssl_session_reused; } }
        server { listen 127.0.0.1:PORT4 ssl; location / { return 200 $ssl_session_reused; } }
    }
"#;

fn start() -> Server {
    let ca = Authority::new("Test CA");
    let a = ca.issue("a.test");
    let made = folder("", &[("a.key", &a.key)]);
    openssl(made.path(), "pkcs8 -topk8 -in a.key -out encrypted.key -v2 aes-256-cbc -passout pass:secret");
    let key = std::fs::read_to_string(made.path().join("encrypted.key")).expect("a key");
    let (old, new) = ("o".repeat(80), "n".repeat(48));
    let files = [
        ("conf/ca.crt", ca.pem()),
        ("conf/a.crt", &a.certificate),
        ("conf/a.key", &key),
        ("conf/words", "secret"),
        ("conf/old.key", &old),
        ("conf/new.key", &new),
    ];
    Server::start(CONF, &files)
}

fn shake(dir: &Path, server: &Server, port: usize, args: &[&str]) -> String {
    let args = [&["-ign_eof"], args].concat();
    s_client_sends(dir, server.ports.0[port], &args, "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n")
}

#[test]
fn a_fleet_takes_its_tickets() {
    let servers = [start(), start()];
    let dir = tempfile::tempdir().expect("a folder");
    for version in ["-tls1_2", "-tls1_3"] {
        for (from, to, is_known) in [
            ((0, 1), (1, 1), true),
            ((0, 1), (1, 2), true),
            ((0, 2), (1, 3), true),
            ((0, 2), (1, 1), false),
            ((0, 1), (1, 3), false),
            ((0, 1), (0, 4), false),
            ((0, 4), (1, 4), false),
        ] {
            let first = shake(dir.path(), &servers[from.0], from.1, &[version, "-sess_out", "session"]);
            assert!(first.contains("New, TLSv1"), "{first}");
            let second = shake(dir.path(), &servers[to.0], to.1, &[version, "-sess_in", "session"]);
            let want = if is_known { ("Reused, TLSv1", "\r\n\r\nr") } else { ("New, TLSv1", "\r\n\r\n.") };
            assert!(
                second.contains(want.0) && second.contains(want.1),
                "{version} {from:?} {to:?}: {second}"
            );
        }
    }
}

#[test]
fn secrets_are_told_where_it_is_asked_for() {
    let server = start();
    let conf = server.file("conf");
    for (version, label) in [("-tls1_2", "CLIENT_RANDOM "), ("-tls1_3", "SERVER_TRAFFIC_SECRET_0 ")] {
        shake(&conf, &server, 1, &[version, "-keylogfile", "client.log"]);
        let read = |name| std::fs::read_to_string(conf.join(name)).expect("a log");
        let (told, known) = (read("client.log"), read("keys.log"));
        let lines =
            |text: &str| text.lines().filter(|l| l.starts_with(label)).map(str::to_owned).collect::<Vec<_>>();
        assert!(!lines(&told).is_empty(), "{told}");
        assert_eq!(lines(&told).last(), lines(&known).last());
    }
    let mode = std::fs::metadata(conf.join("keys.log")).expect("a log").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let before = std::fs::read_to_string(conf.join("keys.log")).expect("a log");
    assert_eq!(
        server.get("/").text().lines().collect::<Vec<_>>(),
        [
            "true PEM_read_bio_PrivateKey() failed: no passphrase decrypts the private key",
            "PEM_read_bio_PrivateKey() failed: private key is encrypted, and there is no passphrase for it"
        ]
    );
    let lua = std::fs::read_to_string(conf.join("lua.log")).expect("a log");
    let server_side = std::fs::read_to_string(conf.join("keys.log")).expect("a log");
    let last = lua.lines().find(|l| l.starts_with("SERVER_HANDSHAKE_TRAFFIC_SECRET ")).expect("a line");
    assert!(server_side[before.len()..].contains(last), "{lua}");
    let said = s_client(&conf, server.ports.0[4], &[]);
    assert!(said.contains("New, TLSv1.3"), "{said}");
    let grown = std::fs::read_to_string(conf.join("keys.log")).expect("a log");
    assert_eq!(grown.len(), server_side.len(), "other servers tell nothing");
    assert_eq!(curl(&conf, "a.test", server.ports.0[4], "/", &["--cacert", "ca.crt"]), ".");
}

#[test]
fn wrong_files_are_told() {
    let ca = Authority::new("Test CA");
    let a = ca.issue("a.test");
    for (directive, want) in [
        ("ssl_session_ticket_key short.key;", "short.key\" must be 48 or 80 bytes"),
        ("ssl_session_ticket_key no.key;", "no.key\": open() failed (2: No such file or directory)"),
        ("ssl_key_log no/folder;", "no/folder\": open() failed (2: No such file or directory)"),
    ] {
        let server =
            format!("listen 127.0.0.1:1 ssl; ssl_certificate a.crt; ssl_certificate_key a.key; {directive}");
        let conf = format!("events {{}} http {{ server {{ {server} }} }}");
        let short = "x".repeat(79);
        let files = [("conf/a.crt", &a.certificate), ("conf/a.key", &a.key), ("conf/short.key", &short)];
        let files: Vec<_> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
        let dir = folder(&conf, &files);
        let (status, said) = run(dir.path(), &["-t"]);
        assert!(!status.success() && said.contains(want), "{directive}: {said}");
    }
}
