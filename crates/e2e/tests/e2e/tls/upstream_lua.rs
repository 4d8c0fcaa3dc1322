//! `proxy_ssl_certificate_by_lua*` and `proxy_ssl_verify_by_lua*`.

use e2e::server::Server;
use e2e::tls::Authority;

const CONF: &str = r#"
    error_log logs/error.log info;
    events {}
    http {
        access_log off;
        lua_shared_dict d 1m;
        ssl_certificate up.crt; ssl_certificate_key up.key; ssl_client_certificate ca.crt;
        proxy_ssl_name up.test;
        proxy_ssl_trusted_certificate ca.crt;
        init_by_lua_block {
            ssl, shows, judges, spoken = require "ngx.ssl", require "ngx.ssl.proxysslcert", require "ngx.ssl.proxysslverify", require "ngx.proxyssl"
            function read(name) local f = assert(io.open(ngx.config.prefix() .. "conf/" .. name)) local s = f:read("*a") f:close() return s end
        }
        server {
            listen 127.0.0.1:PORT1 ssl;
            ssl_verify_client optional;
            location / { return 200 '$ssl_client_verify,$ssl_client_s_dn,$ssl_session_reused'; }
        }
        server { listen 127.0.0.1:PORT2; location / { return 200 plain; } }
        server {
            listen 127.0.0.1:PORT;
            location /shows {
                proxy_pass https://127.0.0.1:PORT1;
                proxy_ssl_certificate_by_lua_block {
                    local phase = ngx.get_phase()
                    ngx.sleep(0.001)
                    assert(shows.clear_certs())
                    assert(shows.set_cert(assert(ssl.parse_pem_cert(read(ngx.var.arg_name .. ".crt")))))
                    assert(shows.set_priv_key(assert(ssl.parse_pem_priv_key(read(ngx.var.arg_name .. ".key")))))
                    ngx.shared.d:set("shows", table.concat({
                        phase, spoken.get_tls1_version_str(), tostring((pcall(judges.get_verify_cert))),
                        tostring(select(2, shows.set_cert("x"))), tostring((pcall(ngx.say, "x"))), tostring(select(2, ssl.clear_certs())),
                    }, " "))
                }
                header_filter_by_lua_block { ngx.shared.d:set("spoken", tostring(spoken.get_tls1_version_str())) }
            }
            location /der {
                proxy_pass https://127.0.0.1:PORT1;
                proxy_ssl_certificate_by_lua_block {
                    assert(shows.set_der_cert(ssl.cert_pem_to_der(read("b.crt"))))
                    assert(shows.set_der_priv_key(ssl.priv_key_pem_to_der(read("b.key"))))
                    assert(not shows.set_der_cert("x"))
                }
            }
            location /old { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_protocols TLSv1.2; proxy_ssl_certificate_by_lua_block {
                if spoken.get_tls1_version() == spoken.TLS1_2_VERSION then
                    assert(shows.set_cert(ssl.parse_pem_cert(read("a.crt"))))
                    assert(shows.set_priv_key(ssl.parse_pem_priv_key(read("a.key"))))
                end
            } }
            location /nothing { proxy_pass https://127.0.0.1:PORT2; proxy_ssl_certificate_by_lua_block { ngx.shared.d:set("shows", tostring(select(2, spoken.get_tls1_version()))) } }
            location /keeps { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_certificate a.crt; proxy_ssl_certificate_key a.key; proxy_ssl_certificate_by_lua_block {} }
            location /clears { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_certificate a.crt; proxy_ssl_certificate_key a.key; proxy_ssl_certificate_by_lua_block { shows.clear_certs() } }
            location /plain { proxy_pass https://127.0.0.1:PORT1; }
            location /peer { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_conf_command VerifyMode Peer; }
            location /peer/stranger { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_conf_command VerifyMode Peer; proxy_ssl_trusted_certificate other.crt; }
            location /foreign { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_certificate_by_lua_block { assert(shows.set_cert(ssl.parse_pem_cert(read("a.crt")))) assert(shows.set_priv_key(ssl.parse_pem_priv_key(read("b.key")))) } }
            location /fails { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_certificate_by_lua_block { error("no key today") } }
            location /exits { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_certificate_by_lua_block { ngx.exit(ngx.ERROR) } }
            location /judges {
                proxy_pass https://127.0.0.1:PORT1;
                proxy_ssl_verify_by_lua_file conf/judge.lua;
                location /judges/alone { lua_upstream_skip_openssl_default_verify on; proxy_pass https://127.0.0.1:PORT1; proxy_ssl_trusted_certificate other.crt; }
                location /judges/stranger { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_verify on; proxy_ssl_trusted_certificate other.crt; }
                location /judges/unknown { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_trusted_certificate other.crt; }
                location /judges/name { lua_upstream_skip_openssl_default_verify on; proxy_ssl_verify on; proxy_ssl_name down.test; proxy_pass https://127.0.0.1:PORT1; }
                location /judges/plain { lua_upstream_skip_openssl_default_verify on; proxy_pass https://127.0.0.1:PORT2; }
                location /judges/fails { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_verify_by_lua_block { error("what is this?") } }
                location /judges/exits { proxy_pass https://127.0.0.1:PORT1; proxy_ssl_verify_by_lua_block { ngx.exit(ngx.ERROR) } }
            }
            location /told { content_by_lua_block { ngx.print(ngx.shared.d:get(ngx.var.arg_key)) } }
        }
    }
"#;

const JUDGE: &str = r#"
    local before = judges.get_verify_result()
    ngx.sleep(0.001)
    ngx.shared.d:set("judges", table.concat({
        ngx.get_phase(), before, tostring(judges.get_verify_cert()):match("%w+"), spoken.get_tls1_version_str(),
        tostring((pcall(shows.clear_certs))), tostring((pcall(judges.set_verify_result, "x"))),
    }, " "))
    assert(judges.set_verify_result(tonumber(ngx.var.arg_code) or 0))
    assert(judges.get_verify_result() == (tonumber(ngx.var.arg_code) or 0))
"#;

fn start() -> Server {
    let (ca, other) = (Authority::new("Test CA"), Authority::new("Other CA"));
    let (up, a, b) = (ca.issue("up.test"), ca.issue("a"), ca.issue("b"));
    let files = [
        ("conf/ca.crt", ca.pem()),
        ("conf/other.crt", other.pem()),
        ("conf/up.crt", &up.certificate),
        ("conf/up.key", &up.key),
        ("conf/a.crt", &a.certificate),
        ("conf/a.key", &a.key),
        ("conf/b.crt", &b.certificate),
        ("conf/b.key", &b.key),
        ("conf/judge.lua", JUDGE),
    ];
    Server::start(CONF, &files)
}

#[test]
fn scripts_give_the_certificate_to_show() {
    let server = start();
    let text = |path: &str| server.get(path).text();
    // A session of one certificate is not taken up with another.
    for name in ["a", "b", "a", "b"] {
        assert_eq!(
            text(&format!("/shows?name={name}")),
            format!("SUCCESS,CN={name},."),
            "{}",
            server.error_log()
        );
    }
    assert_eq!(
        text("/told?key=shows"),
        "proxy_ssl_cert TLSv1.3 false invalid certificate chain false bad request"
    );
    assert_eq!(text("/told?key=spoken"), "TLSv1.3");
    assert_eq!(text("/der"), "SUCCESS,CN=b,.");
    assert_eq!(text("/old"), "SUCCESS,CN=a,.");
    assert_eq!(server.get("/nothing").status, 502);
    assert_eq!(text("/told?key=shows"), "bad ssl conn");
    assert_eq!(text("/keeps"), "SUCCESS,CN=a,.");
    assert_eq!(text("/clears"), "NONE,,.");
    assert_eq!(text("/plain"), "NONE,,.");
    assert_eq!(text("/peer"), "NONE,,.");
    for (path, want) in [
        ("/fails", "no key today"),
        ("/exits", "SSL_do_handshake() failed (SSL: callback failed) while SSL handshaking to upstream"),
        ("/foreign", "key values mismatch"),
        (
            "/peer/stranger",
            "upstream SSL certificate verify error: (20:unable to get local issuer certificate)",
        ),
    ] {
        assert_eq!(server.get(path).status, 502, "{path}");
        server.wait_for_log(want);
    }
}

#[test]
fn scripts_judge_what_is_shown_beside_what_is_configured() {
    let server = start();
    assert!(server.get("/judges").text().starts_with("NONE"), "{}", server.error_log());
    assert_eq!(server.get("/told?key=judges").text(), "proxy_ssl_verify 0 cdata TLSv1.3 false false");
    // Whether the session is taken up again or not.
    assert_eq!(server.get("/judges").text(), "NONE,,r");
    assert_eq!(server.get("/judges/alone").status, 200);
    for (path, want) in [
        ("/judges?code=23", "upstream SSL certificate verify error: (23:certificate revoked)"),
        ("/judges/alone?code=50", "verify error: (50:application verification failure)"),
        ("/judges/stranger", "verify error: (20:unable to get local issuer certificate)"),
        ("/judges/unknown", "verify error: (20:unable to get local issuer certificate)"),
        ("/judges/name", "upstream SSL certificate does not match \"down.test\""),
        ("/judges/plain", "SSL_do_handshake() failed"),
        ("/judges/fails", "what is this?"),
        ("/judges/exits", "SSL_do_handshake() failed (SSL: certificate verify failed)"),
    ] {
        assert_eq!(server.get(path).status, 502, "{path}");
        server.wait_for_log(want);
    }
}
