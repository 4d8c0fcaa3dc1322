//! `sslhandshake` and what builds on it.

use e2e::free_ports;
use e2e::server::Server;
use e2e::stack::{Home, Redis};
use e2e::tls::Authority;

const CONF: &str = r#"
    error_log logs/error.log info;
    events {}
    http {
        access_log off;
        lua_ssl_trusted_certificate ca.crt;
        ssl_certificate a.crt; ssl_certificate_key a.key; ssl_client_certificate ca.crt;
        server {
            listen 127.0.0.1:PORT1 ssl;
            ssl_verify_client optional;
            keepalive_timeout 60;
            location / {
                return 200 '[$ssl_server_name] $ssl_protocol $ssl_session_reused $ssl_client_verify $ssl_cipher';
            }
            location /large {
                content_by_lua_block { ngx.req.read_body() ngx.print(ngx.req.get_body_data()) }
                client_body_buffer_size 4m; client_max_body_size 0;
            }
        }
        server { listen 127.0.0.1:PORT2; location / { return 200 plain; } }
        init_by_lua_block {
            ssl = require "ngx.ssl"
            function read(name) local f = io.open(ngx.config.prefix() .. "conf/" .. name) local s = f:read("*a") f:close() return s end
            function open() local s = ngx.socket.tcp() s:settimeouts(5000, 5000, 5000) assert(s:connect("127.0.0.1", PORT1)) return s end
            function get(s)
                assert(s:send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
                local len
                for line in function() return s:receive() end do
                    if line == "" then break end
                    len = line:match("^Content%-Length: (%d+)") or len
                end
                return (s:receive(tonumber(len)))
            end
        }
        server {
            listen 127.0.0.1:PORT;
            location /checked {
                content_by_lua_block {
                    local s = open()
                    local session, err = s:sslhandshake(nil, "a.test", true)
                    ngx.say(type(session), " ", err, " ", get(s))
                    ngx.say(s:sslhandshake(false, "a.test", true), " ", s:sslhandshake(session) ~= nil)
                    ngx.say(type(s:getsslsession()), " ", (select(2, s:getsslpointer())))
                    s:close()
                    s = open()
                    ngx.say(s:sslhandshake(false), " ", get(s), " ", select(2, s:getsslsession()))
                    s:close()
                    ngx.say(select(2, s:sslhandshake()))
                }
            }
            location /session {
                content_by_lua_block {
                    local s = open()
                    local session = s:sslhandshake(nil, "a.test", true)
                    ngx.say(get(s))
                    session = s:getsslsession()
                    s:close()
                    for i = 1, 2 do
                        s = open()
                        session = s:sslhandshake(session, "a.test", true)
                        ngx.say(get(s))
                        s:close()
                    end
                }
            }
            location /refused {
                lua_ssl_protocols TLSv1.2;
                content_by_lua_block {
                    local s = open()
                    ngx.say(s:sslhandshake(false, "b.test", true))
                    ngx.say(s:send("x"))
                    s = ngx.socket.tcp()
                    s:connect("127.0.0.1", PORT2)
                    ngx.say(s:sslhandshake(false, "a.test", true))
                    s = ngx.socket.tcp()
                    ngx.say(s:sslhandshake(false, "a.test", true))
                    s = ngx.socket.tcp()
                    s:connect("127.0.0.1", PORT2)
                    ngx.say(s:getsslsession())
                    ngx.say(pcall(s.sslhandshake, s, 1, 2, 3, 4, 5))
                }
            }
            location /stranger {
                lua_ssl_trusted_certificate other.crt;
                lua_socket_log_errors off;
                content_by_lua_block {
                    local s = open()
                    ngx.say(s:sslhandshake(false, "a.test", true))
                    s = open()
                    ngx.say(s:settrustedstore("x"))
                    ngx.say(s:settrustedstore(ssl.parse_pem_cert(read("ca.crt"))))
                    ngx.say(s:sslhandshake(false, "a.test", true))
                    ngx.say(s:settrustedstore(nil))
                }
            }
            location /shows {
                content_by_lua_block {
                    local cert = assert(ssl.parse_pem_cert(read("client.crt")))
                    local key = assert(ssl.parse_pem_priv_key(read("client.key")))
                    local s = open()
                    ngx.say(s:setclientcert(cert))
                    ngx.say(s:setclientcert("x", key))
                    ngx.say(s:setclientcert(cert, key))
                    s:sslhandshake(false, "a.test", true)
                    ngx.say(get(s):match("SUCCESS"))
                    s:close()
                    cert = ssl.parse_der_cert(ssl.cert_pem_to_der(read("client.crt")))
                    key = ssl.parse_der_priv_key(ssl.priv_key_pem_to_der(read("client.key")))
                    s = open()
                    s:setclientcert(cert, key)
                    s:sslhandshake(false, "a.test", true)
                    ngx.say(get(s):match("SUCCESS"))
                    s = open()
                    s:setclientcert(cert, key)
                    s:setclientcert(nil, nil)
                    s:sslhandshake(false, "a.test", true)
                    ngx.say(get(s):match("NONE"))
                    ngx.say(ssl.parse_pem_cert("x"))
                    ngx.say(ssl.parse_der_priv_key("x"))
                }
            }
            location /own {
                lua_ssl_certificate client.crt;
                lua_ssl_certificate_key client.key;
                lua_ssl_protocols TLSv1.2;
                lua_ssl_ciphers ECDHE-ECDSA-CHACHA20-POLY1305;
                content_by_lua_block {
                    local s = open()
                    s:sslhandshake(false, "a.test", true)
                    ngx.say(get(s))
                }
            }
            location /kept {
                content_by_lua_block {
                    for i = 1, 2 do
                        local s = open()
                        ngx.say(s:getreusedtimes(), " ", s:sslhandshake(false, "a.test", true))
                        get(s)
                        ngx.say(s:setkeepalive())
                    end
                }
            }
            location /timer {
                content_by_lua_block {
                    local semaphore = require("ngx.semaphore").new()
                    local said
                    ngx.timer.at(0, function()
                        local s = open()
                        s:sslhandshake(false, "a.test", true)
                        said = get(s)
                        semaphore:post()
                    end)
                    semaphore:wait(10)
                    ngx.say(said:match("^%S+"))
                }
            }
            location /http {
                content_by_lua_block {
                    local http = require "resty.http"
                    local body = string.rep("0123456789", 100000)
                    for i = 1, 2 do
                        local c = http.new()
                        assert(c:connect { scheme = "https", host = "127.0.0.1", port = PORT1, ssl_server_name = "a.test" })
                        local res = assert(c:request { path = "/large", method = "POST", body = body, headers = { Host = "a.test" } })
                        ngx.say(res:read_body() == body, " ", c:get_reused_times())
                        c:set_keepalive()
                    end
                    local res, err = http.new():request_uri("https://127.0.0.1:PORT1/", { ssl_verify = false })
                    ngx.say(res.status)
                    ngx.say(http.new():request_uri("https://127.0.0.1:PORT1/"))
                }
            }
            location /redis {
                content_by_lua_block {
                    local redis = require("resty.redis").new()
                    ngx.say(redis:connect("127.0.0.1", REDIS, { ssl = true, ssl_verify = true, server_name = "a.test" }))
                    ngx.say(redis:set("a", string.rep("x", 100000)))
                    ngx.say(#redis:get("a"))
                    ngx.say(redis:set_keepalive())
                    redis = require("resty.redis").new()
                    ngx.say(redis:connect("127.0.0.1", REDIS, { ssl = true, ssl_verify = true, server_name = "b.test" }))
                    redis:close()
                    ngx.say(redis:connect("127.0.0.1", REDIS, { ssl = true, ssl_verify = true, server_name = "b.test" }))
                }
            }
        }
    }
"#;

fn start(redis: u16) -> Server {
    let ca = Authority::new("Test CA");
    let (a, client) = (ca.issue("a.test"), ca.issue("client"));
    let conf = CONF.replace("REDIS", &redis.to_string());
    let other = Authority::new("Other CA");
    let files = [
        ("conf/ca.crt", ca.pem()),
        ("conf/a.crt", &a.certificate),
        ("conf/a.key", &a.key),
        ("conf/other.crt", other.pem()),
        ("conf/client.crt", &client.certificate),
        ("conf/client.key", &client.key),
    ];
    Server::start(&conf, &files)
}

fn check(server: &Server, path: &str, want: &[&str]) {
    let said = server.get(path).text();
    let said: Vec<_> = said.lines().collect();
    assert_eq!(said, want, "{path}: {}", server.error_log());
}

#[test]
fn handshakes_of_scripts() {
    let server = start(1);
    let suite = "TLS_AES_256_GCM_SHA384";
    let fresh = format!("[a.test] TLSv1.3 . NONE {suite}");
    let again = format!("[a.test] TLSv1.3 r NONE {suite}");
    check(
        &server,
        "/checked",
        &[
            &format!("cdata nil {fresh}"),
            "true true",
            "cdata not supported: TLS is not OpenSSL's",
            &format!("true [] TLSv1.3 . NONE {suite} no session is kept"),
            "closed",
        ],
    );
    check(&server, "/session", &[&fresh, &again, &again]);
    check(
        &server,
        "/refused",
        &[
            "nilcertificate host mismatch",
            "nilclosed",
            "nilhandshake failed",
            "nilclosed",
            "nilno ssl connection",
            "falsengx.socket sslhandshake: expecting 1 ~ 5 arguments (including the object), but seen 6",
        ],
    );
    server.wait_for_log("lua ssl certificate does not match host \"b.test\"");
    check(
        &server,
        "/stranger",
        &[
            "nil20: unable to get local issuer certificate",
            "nilbad store arg: cdata expected, got string",
            "true",
            "true",
            "nilssl handshake already done; trusted store cannot be set",
        ],
    );
    check(
        &server,
        "/shows",
        &[
            "nilclient certificate must be supplied with corresponding private key",
            "nilbad cert arg: cdata expected, got string",
            "true",
            "SUCCESS",
            "SUCCESS",
            "NONE",
            "nilPEM_read_bio_X509_AUX() failed: no certificate found",
            "nild2i_PrivateKey_bio() failed: no supported private key found",
        ],
    );
    check(&server, "/own", &["[a.test] TLSv1.2 . SUCCESS ECDHE-ECDSA-CHACHA20-POLY1305"]);
    check(&server, "/kept", &["0 true", "1", "1 true", "1"]);
    check(&server, "/timer", &["[a.test]"]);
}

#[test]
fn resty_http_over_https() {
    let server = start(1);
    check(&server, "/http", &["true 0", "true 1", "200", "nilcertificate host mismatch"]);
}

#[test]
fn resty_redis_over_tls() {
    let ca = Authority::new("Redis CA");
    let pair = ca.issue("a.test");
    let dir = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let (certificate, key) = (file("a.crt", &pair.certificate), file("a.key", &pair.key));
    let authority = file("ca.crt", ca.pem());
    let [port] = free_ports();
    let port_text = port.to_string();
    let options = [
        "--tls-port",
        &port_text,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &authority,
        "--tls-auth-clients",
        "no",
    ];
    let _redis = Redis::start_with(Home::temporary("redis"), &options);
    let server = start(port);
    std::fs::write(server.file("conf/ca.crt"), ca.pem()).expect("written");
    server.signal(nix::sys::signal::Signal::SIGHUP);
    let want = "1\nOKnil\n100000\n1\n1\nnilfailed to do ssl handshake: certificate host mismatch\n";
    // Until the new authority is known there is no whole answer.
    let answer = e2e::wait_for("an answer", || e2e::http::get(server.port, "/redis").ok());
    assert_eq!(answer.text(), want, "{}", server.error_log());
}
