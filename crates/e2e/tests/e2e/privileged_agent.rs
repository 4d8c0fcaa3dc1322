//! `ngx.process`: the privileged agent, which works and serves nobody; the kinds of processes; workers that leave.

use e2e::server::Server;
use e2e::wait_for;
use nix::sys::signal::Signal;

const MASTER: &str = "daemon off;";

/// Two workers; each that starts or ends, and what the agent does, is counted in `notes`.
fn conf(init: &str) -> String {
    format!(
        "worker_processes 2;
        error_log logs/error.log notice;
        events {{}}
        http {{
            access_log off;
            lua_shared_dict notes 1m;
            init_by_lua_block {{
                process = require 'ngx.process'
                notes = ngx.shared.notes
                in_init = process.type()
                {init}
            }}
            init_worker_by_lua_block {{
                local kind = process.type()
                notes:incr('started ' .. kind .. ' ' .. tostring(ngx.worker.id()) .. ' ' .. in_init, 1, 0)
                if kind ~= 'privileged agent' then return end
                assert(ngx.timer.every(0.001, function(premature)
                    notes:incr(premature and 'premature' or 'ticks', 1, 0)
                    if notes:get('send_away') then
                        notes:delete('send_away')
                        process.signal_graceful_exit()
                    end
                end))
                assert(ngx.timer.at(0, function()
                    local sock = assert(ngx.socket.connect('127.0.0.1', PORT))
                    sock:send('GET /note?key=reached HTTP/1.0\\r\\n\\r\\n')
                    sock:receive('*a')
                end))
            }}
            exit_worker_by_lua_block {{
                notes:incr('ended ' .. process.type(), 1, 0)
            }}
            server {{
                listen 127.0.0.1:PORT;
                location /note {{ content_by_lua_block {{ notes:incr(ngx.var.arg_key, 1, 0) }} }}
                location /get {{ content_by_lua_block {{
                    ngx.print(notes:get(ngx.unescape_uri(ngx.var.arg_key)) or 0)
                }} }}
                location /kind {{ content_by_lua_block {{ ngx.print(process.type()) }} }}
                location /pid {{ content_by_lua_block {{ ngx.print(process.get_master_pid()) }} }}
                location /late {{ content_by_lua_block {{ ngx.print((select(2, process.enable_privileged_agent()))) }} }}
                location /leave {{ content_by_lua_block {{
                    process.signal_graceful_exit()
                    repeat ngx.sleep(0.001) until ngx.worker.exiting()
                    ngx.print('left ', ngx.worker.id())
                }} }}
            }}
        }}"
    )
}

fn count(server: &Server, key: &str) -> usize {
    let text = server.get(&format!("/get?key={}", key.replace(' ', "%20"))).text();
    text.parse().unwrap_or_else(|_| panic!("{key}: {text}"))
}

fn wait_for_count(server: &Server, key: &str, at_least: usize) {
    wait_for(&format!("{at_least} times {key:?}"), || (count(server, key) >= at_least).then_some(()));
}

const AGENT: &str = "started privileged agent nil master";

#[test]
fn an_agent_works_beside_the_workers_and_ends_with_its_generation() {
    let mut server =
        Server::start_with(&conf("assert(process.enable_privileged_agent(8) == true)"), &[], MASTER);
    server.wait_for_log("start privileged agent thread");
    wait_for_count(&server, "ticks", 3);
    wait_for_count(&server, "reached", 1);
    assert_eq!(count(&server, AGENT), 1);
    assert_eq!(
        (count(&server, "started worker 0 master"), count(&server, "started worker 1 master")),
        (1, 1)
    );
    // It serves no connections.
    for _ in 0..30 {
        assert_eq!(server.get("/kind").text(), "worker");
    }
    assert_eq!(server.get("/pid").text(), server.pid().to_string());
    assert_eq!(server.get("/late").text(), "API disabled in the current context");

    server.signal(Signal::SIGHUP);
    wait_for_count(&server, "premature", 1);
    wait_for_count(&server, "ended privileged agent", 1);
    wait_for_count(&server, "ended worker", 2);
    assert_eq!(count(&server, AGENT), 2);

    // A script may end it; another one comes.
    server.get("/note?key=send_away");
    wait_for_count(&server, "ended privileged agent", 2);
    wait_for_count(&server, AGENT, 3);

    server.signal(Signal::SIGQUIT);
    assert!(server.wait().success());
    assert!(!server.error_log().contains("[alert]"), "{}", server.error_log());
}

#[test]
fn without_being_asked_for_and_without_a_master_there_is_none() {
    let server = Server::start_with(&conf(""), &[], MASTER);
    wait_for_count(&server, "started worker 1 master", 1);
    assert!(!server.error_log().contains("privileged"));
    let server = Server::start(&conf("assert(process.enable_privileged_agent())"), &[]);
    assert_eq!(server.get("/kind").text(), "single");
    assert_eq!(server.get("/pid").text(), server.pid().to_string());
    assert_eq!(
        (count(&server, "started single 0 single"), count(&server, "started single 1 single")),
        (1, 1)
    );
    assert!(!server.error_log().contains("privileged"));
}

#[test]
fn a_connections_argument_must_be_a_number() {
    let init = "for _, bad in ipairs { 'x', -1, true } do
            local ok, err = process.enable_privileged_agent(bad)
            assert(ok == nil and err == \"bad 'connections' argument: number expected and greater than 0\", err)
        end";
    let server = Server::start_with(&conf(init), &[], MASTER);
    assert_eq!(server.get("/kind").text(), "worker");
}

#[test]
fn a_worker_that_leaves_is_replaced_and_finishes_its_requests() {
    let server = Server::start_with(&conf(""), &[], MASTER);
    let pid = server.pid();
    for round in 1..=3 {
        // The connection is kept by another worker.
        let mut client = server.connect();
        let response = client.get("/leave").expect("the request is finished");
        assert!(response.text().starts_with("left "), "{}", response.text());
        wait_for_count(&server, "ended worker", round);
        assert_eq!(client.get("/kind").expect("another worker answers").text(), "worker");
    }
    let started = count(&server, "started worker 0 master") + count(&server, "started worker 1 master");
    assert_eq!(started, 5);
    for _ in 0..30 {
        assert_eq!(server.get("/kind").text(), "worker");
    }
    assert_eq!(server.pid(), pid);
    assert!(!server.error_log().contains("[alert]"), "{}", server.error_log());
}

#[test]
fn a_single_process_that_leaves_quits() {
    let mut server = Server::start(&conf(""), &[]);
    assert!(server.get("/leave").text().starts_with("left "));
    assert!(server.wait().success());
}

#[test]
fn scripts_that_leave_at_each_start_are_served_all_the_same() {
    let conf = conf("").replace("local kind =", "process.signal_graceful_exit() local kind =");
    let server = Server::start_with(&conf, &[], MASTER);
    wait_for_count(&server, "ended worker", 3);
    for _ in 0..50 {
        assert_eq!(server.get("/kind").text(), "worker");
    }
    assert!(!server.error_log().contains("[alert]"), "{}", server.error_log());
}
