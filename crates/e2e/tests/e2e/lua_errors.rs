//! A script that fails, in each phase: the client gets an error, the log a traceback with file and line, and the worker
//! serves on.

use e2e::server::Server;

const CONF: &str = "
    error_log logs/error.log info;
    events {}
    http {
        server {
            listen 127.0.0.1:PORT;
            location /fine { content_by_lua_block { ngx.say('fine') } }
            location /set { set_by_lua_block $x { error('in set') } return 200 $x; }
            location /rewrite { rewrite_by_lua_block { error('in rewrite') } }
            location /access { access_by_lua_block { error('in access') } content_by_lua_block { ngx.say('x') } }
            location /content { content_by_lua_block { local t = nil
                                                       ngx.say(t.field) } }
            location /file { content_by_lua_file lua/fails.lua; }
            location /missing { content_by_lua_file lua/missing.lua; }
            location /syntax { content_by_lua_block { if } }
            location /header { header_filter_by_lua_block { error('in header filter') } content_by_lua_block { ngx.say('x') } }
            location /body { body_filter_by_lua_block { error('in body filter') } content_by_lua_block { ngx.say('x') } }
            location /log { log_by_lua_block { error('in log') } content_by_lua_block { ngx.say('logged') } }
            location /timer { content_by_lua_block { ngx.timer.at(0, function() error('in timer') end) ngx.say('set') } }
            location /thread { content_by_lua_block {
                local t = ngx.thread.spawn(function() error('in thread') end)
                ngx.say(select(2, ngx.thread.wait(t)))
            } }
            location /after { content_by_lua_block { ngx.say('begun') ngx.flush(true) error('too late') } }
            location /object { content_by_lua_block { error({}) } }
            location /deep { content_by_lua_block { local function f() return 1 + f() end f() } }
            location /exit { content_by_lua_block { pcall(function() ngx.exit(403) end) ngx.say('not reached') } }
        }
    }
";

const FAILS: &str = "local function inner()\n    error('from a file')\nend\ninner()\n";

#[test]
fn an_error_in_any_phase_is_a_500_with_a_traceback() {
    let server = Server::start(CONF, &[("lua/fails.lua", FAILS)]);
    let cases = [
        ("/set", 500, "in set"),
        ("/rewrite", 500, "in rewrite"),
        ("/access", 500, "in access"),
        ("/content", 500, "attempt to index local 't' (a nil value)"),
        ("/file", 500, "fails.lua:2: from a file"),
        ("/missing", 404, "failed to load external Lua file"),
        ("/syntax", 500, "failed to load inlined Lua code"),
        ("/header", 500, "in header filter"),
        ("/log", 200, "in log"),
        ("/timer", 200, "in timer"),
        ("/object", 500, "lua entry thread aborted"),
        ("/deep", 500, "stack overflow"),
        ("/exit", 403, ""),
    ];
    for (path, status, logged) in cases {
        let response = server.get(path);
        assert_eq!(response.status, status, "{path}: {}", response.text());
        if !logged.is_empty() {
            server.wait_for_log(logged);
        }
        assert_eq!(server.get("/fine").text(), "fine\n", "after {path}");
    }
    assert!(server.get("/thread").text().contains("in thread"));
    let log = server.error_log();
    assert!(log.contains("stack traceback:"), "{log}");
    assert!(log.contains("content_by_lua(nginx.conf:"), "a traceback names the directive's place: {log}");
    assert!(log.contains("request: \"GET /content HTTP/1.1\""), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_response_that_breaks_off_is_seen_to_be_broken() {
    let server = Server::start(CONF, &[]);
    for path in ["/body", "/after"] {
        let mut client = server.connect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).expect("sent");
        assert!(client.read_response(false).is_err(), "{path}: a truncated response must not look whole");
    }
    assert_eq!(server.get("/fine").text(), "fine\n");
}
