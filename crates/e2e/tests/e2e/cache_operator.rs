//! What an operator has: purges over HTTP, metrics and `terrace cache`, on two nodes over one Redis.

use std::io::Write;
use std::process::{Command, Stdio};

use e2e::http::Response;
use e2e::server::Server;
use e2e::stack::Redis;
use e2e::wait_for;

const SCRIPT: &str = "CREATE TABLE item (id INTEGER, name TEXT, v INTEGER);
INSERT INTO item VALUES (1, 'Mug', 1), (2, 'Tea', 1), (3, 'Jam', 1);";

fn node(redis: &Redis) -> Server {
    let conf = format!(
        "error_log logs/error.log info;
         events {{}}
         http {{
             cache_source items {{
                 driver sqlite; database logs/items.db; init_script conf/items.sql;
                 query 'SELECT id, name FROM item WHERE id = :id';
             }}
             cache_store fleet {{ driver redis; server 127.0.0.1:{}; }}
             tiered_cache items {{ memory 1m; ttl 10m; source items; l2 fleet; l2_timeout 10s; }}
             server {{
                 listen 127.0.0.1:PORT;
                 location /item {{
                     tiered_cache_pass items; tiered_cache_key item:$arg_id; tiered_cache_param id $arg_id;
                     tiered_cache_purge_method on;
                 }}
                 location /purge {{ tiered_cache_purge items; }}
                 location /metrics {{ tiered_cache_metrics; }}
                 location /cache {{ tiered_cache_api; }}
             }}
         }}",
        redis.port
    );
    Server::start(&conf, &[("conf/items.sql", SCRIPT)])
}

fn level(server: &Server, id: u32) -> String {
    let response = server.get(&format!("/item?id={id}"));
    assert_eq!(response.status, 200, "{}\n{}", response.text(), server.error_log());
    response.header("X-Cache-Level").expect("the level is told").to_owned()
}

fn send(server: &Server, method: &str, target: &str) -> Response {
    let mut client = server.connect();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.send(head.as_bytes()).expect("sent");
    client.read_response(false).expect("an answer")
}

/// The value of a sample; its labels and their order are part of the name.
fn metric(server: &Server, sample: &str) -> u64 {
    let page = server.get("/metrics").text().to_string();
    let line = page.lines().find_map(|it| it.strip_prefix(sample)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {sample} in\n{page}")).parse().expect("a whole number")
}

/// Runs `terrace cache` against a node: exit status, output.
fn cache(server: &Server, args: &[&str], input: &str) -> (i32, String) {
    let url = format!("http://127.0.0.1:{}/cache", server.port);
    let mut child = Command::new(e2e::binary())
        .args(["cache", "-u", &url])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    child.stdin.take().expect("it is piped").write_all(input.as_bytes()).expect("the input is read");
    let out = child.wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (out.status.code().expect("an exit status"), text + &String::from_utf8_lossy(&out.stderr))
}

#[test]
fn a_purge_on_one_node_reaches_the_memory_of_the_other() {
    let redis = Redis::start();
    let (one, other) = (node(&redis), node(&redis));
    assert_eq!(level(&one, 1), "source");
    assert_eq!(level(&other, 1), "L2");
    assert_eq!((level(&one, 1), level(&other, 1)), ("L1".to_owned(), "L1".to_owned()));
    let hits = r#"terrace_cache_hits_total{cache="items",level="L2"}"#;
    assert_eq!((metric(&one, hits), metric(&other, hits)), (0, 1));
    assert_eq!(metric(&other, r#"terrace_cache_up{cache="items",level="L2"}"#), 1);
    assert_eq!(metric(&one, r#"terrace_cache_fills_total{cache="items",level="L2"}"#), 1);
    assert_eq!(metric(&one, r#"terrace_cache_store_unreadable_total{cache="items",store="fleet"}"#), 0);

    let purged = send(&one, "PURGE", "/item?id=1");
    assert_eq!((purged.status, purged.text().trim_end()), (200, r#"{"purged":1}"#));
    let gone = |response: Response| response.text().contains("\"state\":\"none\"");
    wait_for("the other node hears of it", || gone(other.get("/cache/items/item:1")).then_some(()));
    assert!(metric(&other, r#"terrace_cache_notices_total{cache="items",level="L2"}"#) > 0);
    assert_eq!(level(&other, 1), "source");

    assert_eq!((level(&one, 2), level(&one, 3)), ("source".to_owned(), "source".to_owned()));
    let purged = send(&other, "POST", "/purge?prefix=item:");
    assert_eq!((purged.status, purged.text().trim_end()), (200, r#"{"purged":3}"#));
    wait_for("the first node hears of it", || gone(one.get("/cache/items/item:2")).then_some(()));
}

#[test]
fn a_purge_without_redis_is_told_and_takes_effect_here() {
    let redis = Redis::start();
    let one = node(&redis);
    assert_eq!(level(&one, 1), "source");
    redis.process.kill();
    let answer = send(&one, "POST", "/purge?key=item:1");
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert!(answer.text().contains("\"purged_here\":true"), "{}", answer.text());
    assert_eq!(level(&one, 1), "source", "memory has dropped it");
}

#[test]
fn the_command_reads_purges_and_warms() {
    let redis = Redis::start();
    let (one, other) = (node(&redis), node(&redis));
    let (status, said) = cache(&one, &["get", "items", "item:1"], "");
    assert_eq!((status, said.as_str()), (1, "no level has it\n"));
    let (status, said) = cache(&one, &["get", "items", "item:1", "--load", "id=1"], "");
    assert_eq!(status, 0, "{said}");
    assert!(said.starts_with("{\"id\":1,\"name\":\"Mug\"}\nsource, "), "{said}");
    // The other node has it in L2 only.
    let (status, said) = cache(&other, &["--json", "get", "items", "item:1"], "");
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("\"level\":\"L2\""), "{said}");

    let list = "item:1\t{\"id\": 1}\nitem:2\t{\"id\": \"2\"}\n\nitem:9\t{\"id\": 9}\n";
    let (status, said) = cache(&other, &["warm", "items", "--concurrency", "2"], list);
    assert_eq!(
        (status, said.as_str()),
        (0, "3 keys: 2 values, 1 absent, 0 failed; 2 loaded from the source\n")
    );
    assert_eq!(level(&other, 2), "L1");
    let (status, said) = cache(&other, &["warm", "items"], "item:3\tx\n");
    assert_eq!(status, 2, "{said}");
    assert!(said.contains("line 1"), "{said}");
    let (status, said) = cache(&other, &["warm", "items"], "item:3\n");
    assert_eq!(status, 1, "its parameter is missing: {said}");

    let (status, said) = cache(&one, &["purge", "items", "item:1", "item:7"], "");
    assert_eq!((status, said.as_str()), (0, "1 purged\n"));
    let (status, said) = cache(&one, &["--json", "purge", "items", "--all"], "");
    assert_eq!(status, 0, "{said}");
    assert!(said.starts_with("{\"purged\":"), "{said}");
    let (status, said) = cache(&one, &["stats", "items"], "");
    assert_eq!(status, 0, "{said}");
    assert!(said.starts_with("items\n  L1 ") && said.contains("  L2      name=fleet up=true"), "{said}");
    let (status, said) = cache(&one, &["--json", "stats"], "");
    assert!(status == 0 && said.starts_with("{\"items\":{\"L1\":{\"hits\":"), "{said}");
}

#[test]
fn calls_that_make_no_sense_end_with_2() {
    let redis = Redis::start();
    let one = node(&redis);
    for (args, text) in [
        (&["get", "items"][..], "no KEY"),
        (&["purge", "items"], "one of them"),
        (&["get", "nosuch", "1"], "unknown tiered cache"),
        (&["-u", "ftp://x", "stats"], "-u is given twice"),
        (&["sing"], "unknown command"),
    ] {
        let (status, said) = cache(&one, args, "");
        assert!(status == 2 && said.contains(text), "{args:?}: {status} {said}");
    }
    let (status, said) = cache(&one, &["--help"], "");
    assert!(status == 0 && said.contains("warm NAME [FILE]"), "{said}");
    let port = one.port;
    drop(one);
    let out = Command::new(e2e::binary())
        .args(["cache", "stats", "-u", &format!("http://127.0.0.1:{port}/cache")])
        .output()
        .expect("the binary runs");
    assert_eq!(out.status.code(), Some(2), "nobody listens");
}
