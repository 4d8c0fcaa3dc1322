//! The Lua clients for stores, against real servers: the scripts of `terrace-ngx/tests/stores` run as content and print what
//! their first comments say.

use e2e::server::Server;
use e2e::stack::{Kafka, MariaDb, Memcached, Redis, RedisCluster};

use crate::lua_scripts::{differences, expected};

/// Runs a script with the port of its store.
fn run(name: &str, port: u16) {
    let path = e2e::root().join("crates/terrace-ngx/tests/stores").join(format!("{name}.lua"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let text = text.replace("PORT_OF_STORE", &port.to_string());
    let server = Server::start(
        "error_log logs/error.log info;
         events {}
         http {
             lua_shared_dict redis_cluster_slot_locks 100k;
             lua_socket_log_errors off;
             server { listen 127.0.0.1:PORT; location / { content_by_lua_file script.lua; } }
         }",
        &[("script.lua", text.as_str())],
    );
    let response = server.get("/");
    let wanted = expected(&text);
    assert!(!wanted.is_empty(), "{name} does not say what it prints");
    let body = response.text();
    let differences = differences(&wanted, &body.lines().collect::<Vec<_>>());
    assert!(
        response.status == 200 && differences.is_empty(),
        "{name}: {}\n{}\n{}",
        response.line,
        differences.join("\n"),
        server.error_log()
    );
}

#[test]
fn resty_redis() {
    let redis = Redis::start();
    run("redis", redis.port);
}

#[test]
fn rediscluster_follows_the_slots() {
    let cluster = RedisCluster::start();
    run("rediscluster", cluster.nodes[0].port);
}

#[test]
fn resty_memcached() {
    let memcached = Memcached::start();
    run("memcached", memcached.port);
}

#[test]
fn resty_mysql() {
    run("mysql", MariaDb::shared().port);
}

#[test]
fn resty_kafka_in_all_formats() {
    let kafka = Kafka::start();
    kafka.create_topic("lua", 3);
    run("kafka", kafka.port);
    let values: Vec<_> = kafka.records("lua", 2, 0).iter().take(4).map(|r| r.text()).collect();
    assert_eq!(values, ["version 0", "version 1", "version 2", "version 3"]);
    let all: usize = (0..3).map(|p| kafka.records("lua", p, 0).len()).sum();
    assert_eq!(all, 4 + 3 + 25, "each message is there once");
}
