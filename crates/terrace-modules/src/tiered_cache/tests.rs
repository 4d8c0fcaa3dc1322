//! Tests of the tiered cache's directives and of the location that answers from it, on a real database.

use std::rc::Rc;

use terrace_base::clock;
use terrace_http::Worker;
use terrace_http::core::Core;

use super::*;
use crate::log::AccessLog;
use crate::testing::{self, Rig, get, run};

static MODULES: &[&dyn Module] = &[&Core, &TieredCache, &AccessLog];

const SCRIPT: &str =
    "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT); INSERT INTO t VALUES (1, 'Mug'), (2, 'Tea');";

const SOURCE: &str = r#"cache_source things {
    driver sqlite; database t.db; init_script t.sql; query "SELECT id, name FROM t WHERE id = :id";
}"#;

const CACHE: &str = "tiered_cache thing { memory 1m; ttl 10m; jitter 0%; negative_ttl 5s; source things; }";

const LOCATION: &str = "location = /thing {
    tiered_cache_pass thing; tiered_cache_key $arg_id; tiered_cache_param id $arg_id;
}
location = /status { tiered_cache_status; }";

fn rig() -> Rig {
    let rig = Rig::new();
    std::fs::write(rig.path("t.sql"), SCRIPT).expect("the script is written");
    rig
}

fn conf(locations: &str) -> String {
    format!("http {{ {SOURCE} {CACHE} server {{ {LOCATION} {locations} }} }}")
}

fn caches(worker: &Worker) -> std::sync::Arc<Caches> {
    worker.generation.shared::<Caches>().expect("the generation shares its caches")
}

/// Asks for a path: status, level, `Cache-Control`, body.
async fn ask(worker: &Rc<Worker>, target: &str) -> (u16, String, String, String) {
    let answer = get(worker, target).await;
    let body = answer.text().to_owned();
    (answer.status, answer.field("X-Cache-Level"), answer.field("Cache-Control"), body)
}

fn told(status: u16, level: &str, control: &str, body: &str) -> (u16, String, String, String) {
    (status, level.to_owned(), control.to_owned(), body.to_owned())
}

const MUG: &str = r#"{"id":1,"name":"Mug"}"#;
const NOT_FOUND: &str = r#"{"error":"not found"}"#;

#[test]
fn a_value_comes_from_the_source_and_then_from_memory() {
    run(async {
        let rig = rig();
        let log = "http { log_format level $tiered_cache_level; access_log level.log level;";
        let worker = rig.start(MODULES, &conf("").replacen("http {", log, 1));
        let source = ask(&worker, "/thing?id=1").await;
        assert_eq!(source, told(200, "source", "max-age=600", MUG));
        let answer = get(&worker, "/thing?id=1").await;
        assert_eq!((answer.status, answer.field("X-Cache-Level").as_str()), (200, "L1"));
        assert_eq!((answer.field("Content-Type").as_str(), answer.text()), ("application/json", MUG));
        assert!(answer.field("X-Cache-Time-Us").parse::<u64>().is_ok());
        assert!(answer.field("Age").parse::<u64>().is_ok());
        assert_eq!(answer.field("Content-Length"), MUG.len().to_string());
        assert_eq!(rig.read("level.log"), "source\nL1\n");
    });
}

#[test]
fn an_absence_is_told_and_remembered() {
    run(async {
        let rig = rig();
        let worker = rig.start(MODULES, &conf(""));
        let first = ask(&worker, "/thing?id=9").await;
        assert_eq!(first, told(404, "source", "max-age=5", NOT_FOUND));
        let (status, level, _, body) = ask(&worker, "/thing?id=9").await;
        assert_eq!((status, level.as_str(), body.as_str()), (404, "negative", NOT_FOUND));
    });
}

#[test]
fn what_cannot_be_looked_up_is_refused() {
    run(async {
        let rig = rig();
        let worker = rig.start(MODULES, &conf(""));
        let empty = ask(&worker, "/thing?id=").await;
        assert_eq!(empty, told(400, "", "", r#"{"error":"the key is empty"}"#));
        let post = testing::ask(&worker, "POST /thing?id=1", &[]).await;
        assert_eq!((post.status, post.text()), (405, r#"{"error":"method not allowed"}"#));
        assert_eq!(post.field("Allow"), "GET, HEAD");
        let head = testing::ask(&worker, "HEAD /thing?id=1", &[]).await;
        assert_eq!((head.status, head.field("Content-Length")), (200, MUG.len().to_string()));
    });
}

#[test]
fn error_pages_apply() {
    run(async {
        let rig = rig();
        let worker =
            rig.start(MODULES, &conf("error_page 404 =200 /thing?id=1; error_page 400 =410 /thing?id=8;"));
        let (status, _, _, body) = ask(&worker, "/thing?id=9").await;
        assert_eq!((status, body.as_str()), (200, MUG));
        // An error of the page does not lead to a page of its own; the status is the one that error_page names.
        let (status, _, _, body) = ask(&worker, "/thing").await;
        assert_eq!((status, body.as_str()), (410, NOT_FOUND));
    });
}

#[test]
fn a_source_that_is_away_is_503_or_stale() {
    run(async {
        let rig = rig();
        let worker = rig.start(MODULES, &conf(""));
        std::fs::remove_file(rig.path("t.db")).expect("the database was made");
        let away = ask(&worker, "/thing?id=1").await;
        assert_eq!(away, told(503, "", "no-store", r#"{"error":"unavailable"}"#));
        let log = rig.errors();
        assert!(log.contains("tiered cache \"thing\": the source is unavailable: "), "{log}");
        // A value whose life ended at the clock's first millisecond.
        while clock::monotonic_ms() < 2 {
            clock::update();
        }
        let caches = caches(&worker);
        let cache = caches.find(b"thing").expect("the cache");
        drop(cache.set(b"2", Some("old".into()), Some(1), 0));
        assert_eq!(ask(&worker, "/thing?id=2").await, told(200, "stale", "no-store", "old"));
    });
}

#[test]
fn many_that_ask_for_one_key_cause_one_load() {
    run(async {
        let rig = rig();
        let worker = rig.start(MODULES, &conf(""));
        // The background's one thread waits, so that the load cannot end before all have asked.
        let (go, held) = std::sync::mpsc::channel::<()>();
        tokio::spawn(async move { held.recv() });
        let (statuses, mut answered) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..100 {
            let (worker, statuses) = (worker.clone(), statuses.clone());
            terrace_event::spawn(async move {
                let status = ask(&worker, "/thing?id=1").await.0;
                statuses.send(status).expect("the test waits");
            });
        }
        let asked = || caches(&worker).find(b"thing").expect("the cache").stats().misses;
        while asked() < 100 {
            terrace_event::yield_now().await;
        }
        drop(go);
        for _ in 0..100 {
            assert_eq!(answered.recv().await, Some(200));
        }
        let stats = caches(&worker).find(b"thing").expect("the cache").stats();
        assert_eq!((stats.loads, stats.misses, stats.waits), (1, 100, 99));
        let (status, _, _, body) = ask(&worker, "/status").await;
        assert_eq!(status, 200);
        let l1 = r#"{"thing":{"L1":{"hits":0,"negative_hits":0,"filter_negatives":0,"stale_serves":0,"misses":100,"#;
        assert!(body.starts_with(l1), "{body}");
        assert!(body.contains(r#""source":{"name":"things","loads":1,"#), "{body}");
    });
}

#[test]
fn a_reload_keeps_values_and_changes_settings_when_its_workers_start() {
    run(async {
        let rig = rig();
        let old = rig.start(MODULES, &conf(""));
        ask(&old, "/thing?id=1").await;
        let changed =
            conf("").replace("negative_ttl 5s", "negative_ttl 0").replace("SELECT id,", "SELECT id AS no,");
        drop(rig.load(MODULES, &changed, false).expect("the configuration is right"));
        let unchanged = ask(&old, "/thing?id=9").await;
        assert_eq!(unchanged.2, "max-age=5", "only loading changes nothing");
        let new = rig.start(MODULES, &changed);
        assert_eq!(ask(&new, "/thing?id=1").await.1, "L1");
        assert_eq!(ask(&new, "/thing?id=7").await, told(404, "source", "no-store", NOT_FOUND));
        assert_eq!(ask(&new, "/thing?id=2").await.3, r#"{"no":2,"name":"Tea"}"#);
        let without = rig.start(MODULES, "http { server { } }");
        assert!(caches(&without).find(b"thing").is_none());
        let again = rig.start(MODULES, &changed);
        assert_eq!(ask(&again, "/thing?id=1").await.1, "source", "what a generation lacks is let go");
    });
}

#[test]
fn a_test_of_the_configuration_makes_nothing() {
    run(async {
        let rig = rig();
        rig.load(MODULES, &conf(""), true).expect("the configuration is right");
        assert!(!rig.path("t.db").exists());
        std::fs::remove_file(rig.path("t.sql")).expect("the script is there");
        let refused = rig.refusal(MODULES, &conf(""));
        assert!(refused.contains("cache source \"things\": the script "), "{refused}");
    });
}

#[test]
fn what_is_wrong_with_a_configuration_is_said() {
    let rig = rig();
    let with = |from: &str, to: &str| {
        let text = conf("");
        assert!(text.contains(from), "{from}");
        rig.refusal(MODULES, &text.replacen(from, to, 1))
    };
    let cases = [
        (with("source things;", "source nothing;"), "unknown cache source \"nothing\""),
        (with("tiered_cache_pass thing", "tiered_cache_pass nothing"), "unknown tiered cache \"nothing\""),
        (with("source things;", ""), "tiered cache \"thing\" has no \"source\""),
        (with("tiered_cache_key $arg_id;", ""), "no \"tiered_cache_key\" for \"tiered_cache_pass\""),
        (
            with("tiered_cache_param id", "tiered_cache_param no"),
            "for the parameter :id of cache source \"things\"",
        ),
        (with("driver sqlite;", ""), "no \"driver\" in cache source \"things\""),
        (with("driver sqlite", "driver oracle"), "invalid value \"oracle\""),
        (with("database t.db;", ""), "no \"database\" in cache source \"things\""),
        (with("WHERE id = :id", "WHERE id = ?"), "parameters are written :name"),
        (with("driver sqlite;", "driver sqlite; driver sqlite;"), "\"driver\" directive is duplicate"),
        (with("ttl 10m", "ttl 0"), "\"ttl\" must be above zero"),
        (with("jitter 0%", "jitter 101%"), "invalid value \"101%\""),
        (with("memory 1m", "memory 1k"), "\"memory\" must be at least 64k"),
        (with("memory 1m", "query x"), "\"query\" directive is not allowed here"),
        (with(CACHE, &format!("{CACHE} {CACHE}")), "duplicate tiered cache \"thing\""),
        (with(SOURCE, &format!("{SOURCE} {SOURCE}")), "duplicate cache source \"things\""),
        (
            with(
                SOURCE,
                &format!("{SOURCE} {}", SOURCE.replace("things", "b").replace("init_script t.sql;", "")),
            ),
            "cache source \"b\" has another \"init_script\" than \"things\"",
        ),
    ];
    for (said, expected) in cases {
        assert!(said.contains(expected), "expected {expected} in {said}");
    }
}
