//! `ssl_client_hello_by_lua*` and `ssl_certificate_by_lua*`.

use e2e::server::Server;
use e2e::tls::{Authority, curl, s_client};

const CONF: &str = r#"
    error_log logs/error.log info;
    events {}
    http {
        access_log off;
        lua_shared_dict d 1m;
        init_by_lua_block {
            ssl = require "ngx.ssl"
            hello = require "ngx.ssl.clienthello"
            function read(name) local f = io.open(ngx.config.prefix() .. "conf/" .. name) if not f then return end local s = f:read("*a") f:close() return s end
        }
        server { listen 127.0.0.1:PORT1; location / { content_by_lua_block { ngx.print(read(ngx.var.arg_name)) } } }
        server {
            listen 127.0.0.1:PORT ssl;
            ssl_certificate a.crt;
            ssl_certificate_key a.key;
            ssl_certificate_by_lua_block {
                local name = ssl.server_name()
                if not name or name == "a.test" then
                    return
                elseif name == "fails.test" then
                    error("no such host")
                elseif name == "exits.test" then
                    return ngx.exit(ngx.ERROR)
                end
                -- The key comes over the network, after a rest.
                ngx.sleep(0.01)
                local function fetch(what)
                    local s = ngx.socket.tcp()
                    assert(s:connect("127.0.0.1", PORT1))
                    assert(s:send("GET /?name=" .. what .. " HTTP/1.0\r\n\r\n"))
                    s:receiveuntil("\r\n\r\n")()
                    return s:receive("*a")
                end
                assert(ssl.clear_certs())
                assert(ssl.set_cert(assert(ssl.parse_pem_cert(fetch(name .. ".crt")))))
                assert(ssl.set_priv_key(assert(ssl.parse_pem_priv_key(fetch(name .. ".key")))))
            }
            location / { return 200 "$ssl_server_name $ssl_protocol"; }
        }
        server {
            listen 127.0.0.1:PORT2 ssl;
            ssl_client_hello_by_lua_block {
                ngx.ctx.seen = table.concat(hello.get_supported_versions(), ",")
                local name = hello.get_client_hello_server_name()
                if name == "old.test" then
                    assert(hello.set_protocols({ "TLSv1.2" }))
                elseif name == "none.test" then
                    ngx.exit(ngx.ERROR)
                end
                ngx.shared.d:set("hello", table.concat({
                    ngx.get_phase(), tostring(name), #hello.get_client_hello_ciphers() > 0 and "ciphers" or "",
                    hello.get_client_hello_ext(0):sub(6), tostring(hello.get_client_hello_ext(4321)),
                    tostring((pcall(ngx.location.capture, "/"))), tostring((pcall(ngx.say, "x"))), tostring(hello.set_protocols({ "x" })),
                }, " "))
            }
            ssl_certificate_by_lua_block {
                assert(ssl.set_der_cert(ssl.cert_pem_to_der(read("b.test.crt"))))
                assert(ssl.set_der_priv_key(ssl.priv_key_pem_to_der(read("b.test.key"))))
                local address, kind = ssl.raw_client_addr()
                ngx.shared.d:set("certificate", table.concat({
                    ngx.get_phase(), kind, table.concat({ address:byte(1, 4) }, "."),
                    tostring(ssl.server_port() == PORT2), ssl.get_tls1_version_str(), #ssl.get_client_random(),
                    ngx.ctx.seen:match("TLSv1.3"), tostring((pcall(hello.get_client_hello_server_name))),
                    (select(2, ssl.set_cert("x"))),
                }, " "))
            }
            location / { return 200 "$ssl_protocol"; }
            location /told {
                content_by_lua_block {
                    ngx.say(ngx.shared.d:get("hello"))
                    ngx.say(ngx.shared.d:get("certificate"))
                    ngx.say(ssl.server_name(), " ", ssl.get_tls1_version_str(), " ", #ssl.get_client_random(4))
                    ngx.say(#ssl.export_keying_material(16, "label"), " ", (select(2, ssl.clear_certs())))
                }
            }
        }
        server {
            listen 127.0.0.1:PORT3 ssl;
            ssl_certificate a.crt;
            ssl_certificate_key a.key;
            ssl_certificate_by_lua_block {
                assert(ssl.verify_client(ssl.parse_pem_cert(read("ca.crt")), 1))
                assert(require("ngx.ocsp").set_ocsp_status_resp("a proof"))
            }
            location / { return 200 $ssl_client_verify; }
        }
        server {
            listen 127.0.0.1:PORT4 ssl;
            ssl_certificate_by_lua_block { ssl.clear_certs() }
        }
    }
"#;

fn start() -> Server {
    let ca = Authority::new("Test CA");
    let (a, b, client) = (ca.issue("a.test"), ca.issue("b.test"), ca.issue("client"));
    let files = [
        ("conf/ca.crt", ca.pem()),
        ("conf/a.crt", &a.certificate),
        ("conf/a.key", &a.key),
        ("conf/b.test.crt", &b.certificate),
        ("conf/b.test.key", &b.key),
        ("conf/client.crt", &client.certificate),
        ("conf/client.key", &client.key),
    ];
    Server::start(CONF, &files)
}

fn get(server: &Server, host: &str, port: usize, path: &str, args: &[&str]) -> String {
    let args = [&["--cacert", "ca.crt"], args].concat();
    curl(&server.file("conf"), host, server.ports.0[port], path, &args)
}

#[test]
fn scripts_choose_certificates_after_sleeps_and_over_sockets() {
    let server = start();
    assert_eq!(get(&server, "a.test", 0, "/", &[]), "a.test TLSv1.3");
    assert_eq!(get(&server, "b.test", 0, "/", &[]), "b.test TLSv1.3");
    assert_eq!(get(&server, "b.test", 0, "/", &["--tls-max", "1.2"]), "b.test TLSv1.2");
    assert!(get(&server, "fails.test", 0, "/", &[]).contains("alert internal error"));
    let line = server.wait_for_log("no such host");
    assert!(
        line.contains("lua entry thread aborted: runtime error: ssl_certificate_by_lua(nginx.conf:"),
        "{line}"
    );
    server.wait_for_log(", context: ssl_certificate_by_lua*, client: 127.0.0.1, server: 127.0.0.1:");
    assert!(get(&server, "exits.test", 0, "/", &[]).contains("alert internal error"));
    assert!(get(&server, "c.test", 0, "/", &[]).contains("alert internal error"));
    server.wait_for_log("no certificate found");
    server.wait_for_log("SSL_do_handshake() failed (SSL: cert cb error) while SSL handshaking");
    assert!(get(&server, "a.test", 4, "/", &[]).contains("handshake failure"));
    server.wait_for_log("no \"ssl_certificate\" is defined in server listening on SSL port");
}

#[test]
fn scripts_see_the_first_message() {
    let server = start();
    let told = get(&server, "b.test", 2, "/told", &[]);
    let want = [
        "ssl_client_hello b.test ciphers b.test nil false false nil",
        "ssl_cert inet 127.0.0.1 true TLSv1.3 32 TLSv1.3 false invalid certificate chain",
        "b.test TLSv1.3 4",
        "16 bad request",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), want, "{}", server.error_log());
    assert_eq!(get(&server, "old.test", 2, "/", &["-k"]), "TLSv1.2");
    assert!(get(&server, "none.test", 2, "/", &["-k"]).contains("alert internal error"));
}

#[test]
fn scripts_ask_for_clients_certificates_and_send_proofs() {
    let server = start();
    let shows = ["--cert", "client.crt", "--key", "client.key"];
    assert_eq!(get(&server, "a.test", 3, "/", &shows), "SUCCESS");
    assert_eq!(get(&server, "a.test", 3, "/", &[]), "NONE");
    let said = s_client(&server.file("conf"), server.ports.0[3], &["-status", "-CAfile", "ca.crt"]);
    assert!(said.contains("CN = Test CA"), "the authority is told: {said}");
    assert!(said.contains("OCSP response"), "{said}");
}
