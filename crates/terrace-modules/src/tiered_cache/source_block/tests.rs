//! Tests of `cache_source`: what each driver takes, and what is said about the rest.

use terrace_http::Module;
use terrace_http::core::Core;

use crate::testing::{Rig, get, run};
use crate::tiered_cache::{Caches, TieredCache};

static MODULES: &[&dyn Module] = &[&Core, &TieredCache];

const MYSQL: &str = r#"driver mysql; server 127.0.0.1; database shop; user shop; query "SELECT :id";"#;
const HTTP: &str = r#"driver http; url "http://127.0.0.1/:id";"#;

fn conf(source: &str) -> String {
    format!("http {{ cache_source things {{ {source} }} }}")
}

#[test]
fn every_driver_takes_its_directives() {
    let rig = Rig::new();
    std::fs::write(rig.path("password"), "secret\n").expect("the file is written");
    for source in [
        MYSQL.to_owned(),
        MYSQL.replace("mysql", "postgres").replace("127.0.0.1", "unix:/run/postgresql"),
        MYSQL.replace("127.0.0.1", "[::1]:3307"),
        format!("{MYSQL} password_file password; integer_params id; result rows;"),
        format!("{MYSQL} password x; version_column a; ttl_column b; tags_column c; hide_columns b c;"),
        format!("{MYSQL} json_columns a; breaker off; max_connections 1; connection_timeout 1s;"),
        format!("{MYSQL} breaker failures=3 open=1s share=50% window=5s loads=10;"),
        HTTP.to_owned(),
        format!("{HTTP} header A b; header C d; honor_cache_control on; version_header ETag; max_body 1m;"),
        r#"driver sqlite; database a.db; query "SELECT 1"; version_column a; breaker failures=1;"#.to_owned(),
    ] {
        drop(rig.load(MODULES, &conf(&source), true).unwrap_or_else(|error| panic!("{source}: {error}")));
    }
}

#[test]
fn what_is_wrong_is_said() {
    let rig = Rig::new();
    let with = |from: &str, to: &str| {
        assert!(MYSQL.contains(from), "{from}");
        rig.refusal(MODULES, &conf(&MYSQL.replacen(from, to, 1)))
    };
    let more = |base: &str, text: &str| rig.refusal(MODULES, &conf(&format!("{base} {text}")));
    let missing =
        |what: &str| format!("no \"{what}\" in cache source \"things\", which \"driver mysql\" needs");
    let cases = [
        (with("driver mysql;", ""), "no \"driver\" in cache source \"things\"".to_owned()),
        (with("server 127.0.0.1;", ""), missing("server")),
        (with("database shop;", ""), missing("database")),
        (with("user shop;", ""), missing("user")),
        (with("query \"SELECT :id\";", ""), missing("query")),
        (with("127.0.0.1", "a:b"), "invalid server \"a:b\"".to_owned()),
        (with("127.0.0.1", "unix:"), "invalid server \"unix:\"".to_owned()),
        (with("SELECT :id", "SELECT ?"), "parameters are written :name".to_owned()),
        (more(MYSQL, "init_script a.sql;"), "\"init_script\" is not for \"driver mysql\"".to_owned()),
        (more(MYSQL, "url http://a/;"), "\"url\" is not for \"driver mysql\"".to_owned()),
        (more(MYSQL, "integer_params no;"), "the query has no parameter :no".to_owned()),
        (more(MYSQL, "user again;"), "\"user\" directive is duplicate".to_owned()),
        (more(MYSQL, "password_file absent;"), "the password file ".to_owned()),
        (more(MYSQL, "breaker failures=0;"), "\"breaker\" needs failures".to_owned()),
        (more(MYSQL, "breaker share=0%;"), "invalid".to_owned()),
        (more(MYSQL, "breaker fails=1;"), "invalid parameter \"fails=1\"".to_owned()),
        (more(HTTP, "query x;"), "\"query\" is not for \"driver http\"".to_owned()),
        (more(HTTP, "integer_params no;"), "the URL has no parameter :no".to_owned()),
        (more(HTTP, "header Connection close;"), "the header \"Connection\" cannot be sent".to_owned()),
        (more("driver http;", "url https://a/;"), "https is not supported".to_owned()),
        (more("driver http;", ""), "no \"url\" in cache source \"things\"".to_owned()),
    ];
    for (said, expected) in cases {
        assert!(said.contains(&expected), "expected {expected} in {said}");
    }
    std::fs::write(rig.path("password"), "secret").expect("the file is written");
    for both in ["password x; password_file password;", "password_file password; password x;"] {
        assert!(more(MYSQL, both).contains("exclude each other"), "{both}");
    }
}

#[test]
fn a_server_that_is_away_opens_the_breaker() {
    run(async {
        let rig = Rig::new();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let source = MYSQL.replacen("127.0.0.1", &address, 1);
        let worker = rig.start(
            MODULES,
            &format!(
                "http {{ cache_source things {{ {source} breaker failures=2 open=1h; }}
            tiered_cache thing {{ source things; }}
            server {{ location = /thing {{
                tiered_cache_pass thing; tiered_cache_key $arg_id; tiered_cache_param id $arg_id;
            }} }} }}"
            ),
        );
        for id in 0..3 {
            assert_eq!(get(&worker, &format!("/thing?id={id}")).await.status, 503);
        }
        let errors = rig.errors();
        assert!(errors.contains("MySQL at 127.0.0.1:") && errors.contains("circuit open"), "{errors}");
        let caches = worker.generation.shared::<Caches>().expect("the generation shares its caches");
        let breakers: Vec<_> = caches.breakers().map(|(_, stats)| (stats.opened, stats.rejected)).collect();
        assert_eq!(breakers, [(1, 1)]);
    });
}
