//! `ssl_session_fetch_by_lua*`, `ssl_session_store_by_lua*`: sessions that servers share.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use e2e::server::{Server, folder};
use e2e::stack::Redis;
use e2e::tls::{Authority, s_client_sends};
use tempfile::TempDir;

const CONF: &str = r#"
    error_log logs/error.log info;
    events {}
    http {
        access_log off;
        ssl_certificate a.crt;
        ssl_certificate_key a.key;
        ssl_session_tickets off;
        ssl_client_certificate ca.crt;
        lua_shared_dict d 1m;
        init_by_lua_block {
            sessions = require "ngx.ssl.session"
            function redis()
                local r = require("resty.redis"):new()
                assert(r:connect("127.0.0.1", REDIS))
                return r
            end
            function count(name) ngx.shared.d:incr(name, 1, 0) end
        }
        ssl_session_fetch_by_lua_block {
            count(ngx.get_phase())
            local id = assert(sessions.get_session_id())
            assert(id:match("^%x+$") and #id == 64, id)
            ngx.shared.d:set("looked for", id)
            ngx.shared.d:set("too early", tostring((select(2, sessions.get_serialized_session()))))
            ngx.sleep(0.001)
            local mode = ngx.shared.d:get("mode")
            if mode == "fails" then
                error("no sessions today")
            elseif mode == "garbage" then
                local said = {}
                for _, garbage in ipairs { "", "x", ("x"):rep(100000), "TLS\1\255\255\255\255\255\255\255\255garbage" } do
                    local ok, err = sessions.set_serialized_session(garbage)
                    said[#said + 1] = tostring(ok) .. " " .. tostring(err)
                end
                ngx.shared.d:set("said", table.concat(said, ", "))
                return
            end
            local session = redis():get(id)
            if session ~= ngx.null then
                assert(sessions.set_serialized_session(session))
            end
        }
        ssl_session_store_by_lua_block {
            count(ngx.get_phase())
            if ngx.shared.d:get("mode") == "fails" then
                error("nothing is kept today")
            end
            local id = assert(sessions.get_session_id())
            local session, err = sessions.get_serialized_session()
            ngx.shared.d:set("made", id)
            ngx.shared.d:set("size", session and #session or err)
            if session then
                assert(redis():set(id, session))
            end
        }
        server { listen 127.0.0.1:PORT; location /set { content_by_lua_block { ngx.shared.d:set(ngx.var.arg_key, ngx.var.arg_value) } }
            location / { content_by_lua_block { ngx.print(ngx.shared.d:get(ngx.unescape_uri(ngx.var.uri:sub(2)))) } } }
        server { listen 127.0.0.1:PORT1 ssl; ssl_protocols TLSv1.2; location / { return 200 $ssl_session_reused; } }
        server { listen 127.0.0.1:PORT2 ssl; location / { return 200 $ssl_session_reused; } }
        server { listen 127.0.0.1:PORT3 ssl; ssl_verify_client optional; ssl_session_timeout 1d; location / { return 200 $ssl_client_verify; } }
        server { listen 127.0.0.1:PORT4 ssl; ssl_session_tickets on; location / { return 200 $ssl_session_reused; } }
    }
"#;

struct Fleet {
    servers: Vec<Server>,
    /// Where clients have their files.
    dir: TempDir,
    _redis: Redis,
}

impl Fleet {
    /// Two servers with one Redis.
    fn start() -> Fleet {
        let redis = Redis::start();
        let conf = CONF.replace("REDIS", &redis.address().port().to_string());
        let ca = Authority::new("Test CA");
        let (a, client) = (ca.issue("a.test"), ca.issue("client"));
        let files = [("conf/ca.crt", ca.pem()), ("conf/a.crt", &a.certificate), ("conf/a.key", &a.key)];
        let servers = (0..2).map(|_| Server::start(&conf, &files)).collect();
        let shown =
            [("client.crt", &client.certificate[..]), ("client.key", &client.key), ("ca.crt", ca.pem())];
        Fleet { servers, dir: folder("", &shown), _redis: redis }
    }

    /// What OpenSSL says of a handshake and a request, and the response's body.
    fn shake(&self, server: usize, port: usize, args: &[&str]) -> String {
        let args = [&["-CAfile", "ca.crt", "-ign_eof"], args].concat();
        let request = "GET / HTTP/1.0\r\nHost: a.test\r\n\r\n";
        s_client_sends(self.dir.path(), self.servers[server].ports.0[port], &args, request)
    }

    fn known(&self, server: usize, key: &str) -> String {
        self.servers[server].get(&format!("/{key}")).text()
    }
}

#[test]
fn sessions_of_one_server_are_taken_up_at_another() {
    let fleet = Fleet::start();
    for (port, version) in [(1, "-tls1_2"), (2, "-tls1_2"), (2, "-tls1_3")] {
        let first = fleet.shake(0, port, &[version, "-sess_out", "session"]);
        assert!(first.contains("New, TLSv1") && first.contains("\r\n\r\n."), "{first}");
        let made = fleet.known(0, "made");
        let second = fleet.shake(1, port, &[version, "-sess_in", "session", "-sess_out", "session"]);
        assert!(second.contains("Reused, TLSv1") && second.contains("\r\n\r\nr"), "{version}: {second}");
        // OpenSSL keeps the last of the sessions that it got.
        assert_eq!(fleet.known(1, "looked%20for"), made, "{version}");
        let third = fleet.shake(0, port, &[version, "-sess_in", "session"]);
        assert!(third.contains("Reused, TLSv1"), "{version}: {third}");
    }
    assert_eq!(fleet.known(1, "too%20early"), "bad session in lua context");
    assert_eq!(fleet.known(1, "ssl_session_fetch"), "3");
    // The first and each of TLS 1.3 made two; those of TLS 1.2 that were taken up made none.
    assert_eq!(
        (fleet.known(0, "ssl_session_store"), fleet.known(1, "ssl_session_store")),
        ("6".into(), "2".into())
    );
}

#[test]
fn what_scripts_find_wrong_costs_only_a_handshake() {
    let fleet = Fleet::start();
    fleet.servers[1].get("/set?key=mode&value=fails");
    assert!(fleet.shake(1, 2, &["-tls1_2"]).contains("\r\n\r\n."));
    fleet.servers[1]
        .wait_for_log("failed to run session_store_by_lua*: ssl_session_store_by_lua(nginx.conf:");
    for version in ["-tls1_2", "-tls1_3"] {
        fleet.servers[1].get("/set?key=mode&value=");
        fleet.shake(0, 2, &[version, "-sess_out", "session"]);
        for (mode, logged) in [("fails", Some("no sessions today")), ("garbage", None)] {
            fleet.servers[1].get(&format!("/set?key=mode&value={mode}"));
            let said = fleet.shake(1, 2, &[version, "-sess_in", "session"]);
            assert!(said.contains("New, TLSv1") && said.contains("\r\n\r\n."), "{mode}: {said}");
            if let Some(logged) = logged {
                fleet.servers[1].wait_for_log(logged);
                fleet.servers[1].wait_for_log(", context: ssl_session_fetch_by_lua*, client: 127.0.0.1");
            }
        }
        let want = "nil invalid session length, nil failed to de-serialize session, nil failed to de-serialize session, true nil";
        assert_eq!(fleet.known(1, "said"), want);
    }
}

#[test]
fn sessions_are_for_their_host_and_keep_their_client() {
    let fleet = Fleet::start();
    let shows = ["-cert", "client.crt", "-key", "client.key"];
    for version in ["-tls1_2", "-tls1_3"] {
        let first = fleet.shake(0, 3, &[&shows[..], &[version, "-sess_out", "session"]].concat());
        assert!(first.contains("\r\n\r\nSUCCESS"), "{first}");
        // It is known by the session alone.
        let second = fleet.shake(1, 3, &[version, "-sess_in", "session"]);
        assert!(second.contains("Reused") && second.contains("\r\n\r\nSUCCESS"), "{second}");
        let other = fleet.shake(1, 3, &[version, "-sess_in", "session", "-servername", "other.test"]);
        assert!(other.contains("New, TLSv1") && other.contains("\r\n\r\nNONE"), "{other}");
    }
}

#[test]
fn broken_hellos_do_no_harm() {
    let fleet = Fleet::start();
    let server = &fleet.servers[0];
    let port = server.ports.0[2];
    // A record of a hello whose session number says to be longer than the rest.
    let body = [&[3, 3][..], &[7; 32], &[200], &[1; 20]].concat();
    let message = [&[1, 0, 0, u8::try_from(body.len()).expect("short")][..], &body].concat();
    let record = [&[22, 3, 1, 0, u8::try_from(message.len()).expect("short")][..], &message].concat();
    for (sent, want) in [
        (&record[..20], "peer closed connection in SSL handshake"),
        (&record[..], "SSL_do_handshake() failed (SSL: "),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
        stream.write_all(sent).expect("sent");
        stream.shutdown(Shutdown::Write).expect("shut down");
        server.wait_for_log(want);
        // An alert, or nothing.
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert!(fleet.shake(0, 2, &[]).contains("\r\n\r\n."));
    assert_eq!(fleet.known(0, "ssl_session_fetch"), "nil");
}

#[test]
fn tickets_need_no_scripts() {
    let fleet = Fleet::start();
    for version in ["-tls1_2", "-tls1_3"] {
        fleet.shake(0, 4, &[version, "-sess_out", "session"]);
        let second = fleet.shake(0, 4, &[version, "-sess_in", "session"]);
        assert!(second.contains("Reused, TLSv1"), "{second}");
    }
    assert_eq!(fleet.known(0, "ssl_session_store"), "nil");
    assert_eq!(fleet.known(0, "ssl_session_fetch"), "nil");
    // One that takes no tickets is served by the scripts.
    fleet.shake(0, 4, &["-tls1_2", "-no_ticket", "-sess_out", "session"]);
    let second = fleet.shake(1, 4, &["-tls1_2", "-no_ticket", "-sess_in", "session"]);
    assert!(second.contains("Reused, TLSv1.2"), "{second}");
}
