//! Runs the scripts of `terrace-ngx/tests` as content on the real binary: those of `lualib/` say in their first comment
//! what they print, those of `cjson/` hold assertions.

use std::path::{Path, PathBuf};

use e2e::http::Response;
use e2e::server::Server;

/// How a script is asked for, and what it needs in the configuration.
#[derive(Default)]
struct Needs {
    http: &'static str,
    server: &'static str,
    /// The request, but for `Host`; a GET of the script's location unless something is said.
    request: &'static str,
    body: &'static str,
}

fn needs(script: &str) -> Needs {
    let none = Needs::default();
    match script {
        "body" => {
            Needs { request: "POST /script HTTP/1.1\r\nContent-Length: 11\r\n", body: "a=1&b=x+y&c", ..none }
        }
        "cache" => Needs {
            http: "tiered_cache plain { }
                   tiered_cache brief { ttl 10ms; jitter 0%; stale_while_revalidate 1h; }
                   tiered_cache failing { ttl 10ms; jitter 0%; stale_if_error 1h; error_retry 0; }",
            ..none
        },
        "limit" => Needs { http: "lua_shared_dict limits 100k;", ..none },
        "location" => Needs { server: "location = /other { set $saved ''; return 204; }", ..none },
        "lock" => Needs { http: "lua_shared_dict locks 100k;", ..none },
        "mlcache" => Needs {
            http: "lua_shared_dict values 1m; lua_shared_dict misses 100k;
                   tiered_cache configured { memory 1m; }
                   init_by_lua_block { made = require('resty.mlcache').new('early', 'values') }",
            ..none
        },
        "req" => Needs {
            server: "location /req { set $saved ''; content_by_lua_file req.lua; }",
            request: "GET /req?a=1&a=2&b&c=&d=x+y%21&e=5 HTTP/1.1\r\nX-One: 1\r\nX-Two: a\r\nX-Two: b\r\n",
            ..none
        },
        "shared" => Needs { http: "lua_shared_dict dogs 1m; lua_shared_dict small 12k;", ..none },
        _ => none,
    }
}

fn scripts(folder: &str) -> Vec<PathBuf> {
    let folder = e2e::root().join("crates/terrace-ngx/tests").join(folder);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = files.flatten().map(|f| f.path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "lua"));
    files.sort();
    assert!(!files.is_empty(), "{} has no script", folder.display());
    files
}

fn name(script: &Path) -> String {
    script.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The lines after `-- Expected output` in the first comment.
pub(crate) fn expected(text: &str) -> Vec<&str> {
    let comment = text.lines().take_while(|l| l.starts_with("--"));
    comment
        .skip_while(|l| !l.starts_with("-- Expected output"))
        .filter_map(|l| l.strip_prefix("--   "))
        .collect()
}

fn run(name: &str, text: &str, needs: &Needs) -> (Server, Response) {
    let conf = format!(
        "error_log logs/error.log info;\nevents {{}}\nhttp {{\n{}\nserver {{\nlisten 127.0.0.1:PORT;\n{}\n\
         location / {{ content_by_lua_file {name}.lua; }}\n}}\n}}\n",
        needs.http, needs.server
    );
    let server = Server::start(&conf, &[(format!("{name}.lua").as_str(), text)]);
    let line = if needs.request.is_empty() { "GET /script HTTP/1.1\r\n" } else { needs.request };
    let mut client = server.connect();
    client.send(format!("{line}Host: localhost\r\n\r\n{}", needs.body).as_bytes()).expect("sent");
    let response = client.read_response(false).unwrap_or_else(|e| panic!("{e}\n{}", server.error_log()));
    (server, response)
}

/// The lines that differ, each as wanted and as it came.
pub(crate) fn differences(wanted: &[&str], got: &[&str]) -> Vec<String> {
    let count = wanted.len().max(got.len());
    let pairs = (0..count).map(|i| (wanted.get(i), got.get(i))).filter(|(w, g)| w != g);
    pairs
        .map(|(w, g)| format!("  - {}\n  + {}", w.unwrap_or(&"(nothing)"), g.unwrap_or(&"(nothing)")))
        .collect()
}

#[test]
fn scripts_print_what_they_promise() {
    let mut failures = Vec::new();
    for script in scripts("lualib") {
        let name = name(&script);
        if name == "balancer" {
            continue;
        }
        let text = std::fs::read_to_string(&script).expect("a script is text");
        let wanted = expected(&text);
        assert!(!wanted.is_empty(), "{name} does not say what it prints");
        let (server, response) = run(&name, &text, &needs(&name));
        let body = response.text();
        let differences = differences(&wanted, &body.lines().collect::<Vec<_>>());
        if response.status != 200 || !differences.is_empty() {
            let log = server.error_log();
            failures.push(format!("{name}: {}\n{}\n{log}", response.line, differences.join("\n")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn assertions_about_cjson_hold() {
    for script in scripts("cjson") {
        let text = std::fs::read_to_string(&script).expect("a script is text");
        let name = name(&script);
        let (server, response) = run(&name, &text, &Needs::default());
        assert_eq!(response.status, 200, "{name}: {}", server.error_log());
    }
}

#[test]
fn a_balancer_in_lua_tries_again() {
    let script = e2e::root().join("crates/terrace-ngx/tests/lualib/balancer.lua");
    let text = std::fs::read_to_string(script).expect("the script is there");
    let server = Server::start(
        "error_log logs/error.log info;
         events {}
         http {
             upstream chosen { server 0.0.0.1; balancer_by_lua_file script.lua; }
             server {
                 listen 127.0.0.1:PORT;
                 location / { set $live PORT1; proxy_pass http://chosen; proxy_next_upstream error timeout; }
             }
             server { listen 127.0.0.1:PORT1; location / { return 200 answered; } }
         }",
        &[("script.lua", text.as_str())],
    );
    let response = server.get("/");
    assert_eq!((response.status, response.text().as_str()), (200, "answered"), "{}", server.error_log());
    for line in expected(&text) {
        server.wait_for_log(line);
    }
}

const TINY: &str = r#"
typedef struct lua_State lua_State;
void lua_createtable(lua_State *, int, int);
void lua_pushcclosure(lua_State *, int (*)(lua_State *), int);
void lua_pushnumber(lua_State *, double);
double luaL_checknumber(lua_State *, int);
void lua_setfield(lua_State *, int, const char *);

static int twice(lua_State *state)
{
    lua_pushnumber(state, 2 * luaL_checknumber(state, 1));
    return 1;
}

int luaopen_cjson(lua_State *state)
{
    lua_createtable(state, 0, 1);
    lua_pushcclosure(state, twice, 0);
    lua_setfield(state, -2, "twice");
    return 1;
}
"#;

/// The binary exports the C API of Lua, and a module of the user's wins over the built-in one of its name.
#[test]
fn a_c_module_loads_through_the_path() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (source, module) = (dir.path().join("tiny.c"), dir.path().join("cjson.so"));
    std::fs::write(&source, TINY).expect("the source is written");
    let built =
        std::process::Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&module, &source]).status();
    assert!(built.expect("a C compiler runs").success());
    let conf = format!(
        "error_log logs/error.log info;\nevents {{}}\nhttp {{\nlua_package_cpath '{}/?.so;;';\nserver {{\nlisten 127.0.0.1:PORT;\n\
         location / {{ content_by_lua_block {{ ngx.say(require('cjson').twice(21)) }} }}\n\
         location /error {{ content_by_lua_block {{ ngx.say((select(2, pcall(require('cjson').twice, 'x')))) }} }}\n}}\n}}\n",
        dir.path().display()
    );
    let server = Server::start(&conf, &[]);
    assert_eq!(server.get("/").text(), "42\n", "{}", server.error_log());
    assert!(
        server.get("/error").text().contains("number expected, got string"),
        "an error of a C module passes through"
    );
}

#[test]
fn a_server_whose_init_code_fails_does_not_start() {
    for code in ["error('not today')", "local x = = 1", "ngx.sleep(1)"] {
        let conf = format!(
            "error_log logs/error.log info;\nevents {{}}\nhttp {{\ninit_by_lua_block {{ {code} }}\n\
             server {{ listen 127.0.0.1:PORT; }}\n}}\n"
        );
        let dir = e2e::server::folder(&e2e::server::Ports::free().fill(&conf), &[]);
        let (status, said) =
            e2e::server::run(dir.path(), &["-c", "conf/nginx.conf", "-g", "daemon off; master_process off;"]);
        assert!(!status.success(), "{code}: {said}");
        let log = std::fs::read_to_string(dir.path().join("logs/error.log")).unwrap_or_default();
        assert!(format!("{said}{log}").contains("init_by_lua"), "{code}: {said}{log}");
    }
}

#[test]
fn at_a_worker_s_end_timers_run_early_and_exit_code_runs() {
    let mut server = Server::start(
        "error_log logs/error.log info;
         events {}
         http {
             init_worker_by_lua_block {
                 ngx.timer.at(3600, function(premature) ngx.log(ngx.WARN, 'once, premature: ', premature) end)
                 ngx.timer.every(3600, function(premature)
                     ngx.log(ngx.WARN, 'every, premature: ', premature, ', exiting: ', ngx.worker.exiting())
                     ngx.log(ngx.WARN, 'another: ', select(2, ngx.timer.at(1, function() end)))
                 end)
             }
             exit_worker_by_lua_block { ngx.log(ngx.WARN, 'bye from ', ngx.get_phase()) }
             server { listen 127.0.0.1:PORT; location / { return 200 up; } }
         }",
        &[],
    );
    assert_eq!(server.get("/").text(), "up");
    server.signal(nix::sys::signal::Signal::SIGQUIT);
    server.wait();
    let log = server.error_log();
    let lines = [
        "once, premature: true",
        "every, premature: true, exiting: true",
        "another: process exiting",
        "bye from exit_worker",
    ];
    for line in lines {
        assert!(log.contains(line), "{line:?} is missing: {log}");
    }
}
