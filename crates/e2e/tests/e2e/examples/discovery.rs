//! The Redis Cluster whose nodes stand in Consul.
//!
//! Consul itself takes minutes to build, so it answers only where the launcher has built it before. Elsewhere a server
//! block stands in for it that keeps keys and answers in Consul's JSON.

use std::net::SocketAddr;

use e2e::http::{Client, Response};
use e2e::server::Server;
use e2e::stack::resp::Reply;
use e2e::stack::{Consul, Home, Redis, RedisCluster};
use e2e::wait_for;

/// What knows the nodes.
enum Registry {
    Consul(Consul),
    StandIn(Server),
}

impl Registry {
    fn start() -> Registry {
        if Consul::is_built() { Registry::Consul(Consul::start()) } else { Registry::stand_in() }
    }

    fn stand_in() -> Registry {
        Registry::StandIn(Server::start(
            "error_log logs/error.log info;
             events {}
             http {
                 lua_shared_dict kv 1m;
                 server { listen 127.0.0.1:PORT; location /v1/kv/ { content_by_lua_file kv.lua; } }
             }",
            &[("kv.lua", STAND_IN)],
        ))
    }

    fn port(&self) -> u16 {
        match self {
            Registry::Consul(consul) => consul.port,
            Registry::StandIn(server) => server.port,
        }
    }

    fn put(&self, key: &str, value: &str) {
        assert_eq!(
            ask(self.port(), "PUT", &format!("/v1/kv/redis-cluster/{key}"), value).text().trim(),
            "true"
        );
    }

    fn delete(&self, key: &str) {
        assert_eq!(
            ask(self.port(), "DELETE", &format!("/v1/kv/redis-cluster/{key}"), "").text().trim(),
            "true"
        );
    }
}

/// The part of Consul's key-value interface that the example and this test use.
const STAND_IN: &str = r#"
local cjson = require "cjson"

local kv = ngx.shared.kv
local key, method = ngx.var.uri:sub(#"/v1/kv/" + 1), ngx.req.get_method()
if method ~= "GET" then
    ngx.req.read_body()
    kv:set(key, method == "PUT" and (ngx.req.get_body_data() or "") or nil)
    return ngx.say("true")
end
local names, entries = kv:get_keys(0), {}
table.sort(names)
for _, name in ipairs(names) do
    if name == key or ngx.var.arg_recurse and name:sub(1, #key) == key then
        entries[#entries + 1] = {
            LockIndex = 0, Key = name, Flags = 0, Value = ngx.encode_base64(kv:get(name)), CreateIndex = 1, ModifyIndex = 1,
        }
    end
end
if #entries == 0 then
    return ngx.exit(404)
end
ngx.header["Content-Type"] = "application/json"
ngx.header["X-Consul-Index"] = "1"
ngx.print(cjson.encode(entries))
"#;

fn ask(port: u16, method: &str, path: &str, body: &str) -> Response {
    let mut client = Client::connect(port).expect("it accepts");
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    client.send(&[head.as_bytes(), body.as_bytes()].concat()).expect("sent");
    client.read_response(false).unwrap_or_else(|e| panic!("{method} {path}: {e}"))
}

fn start(registry: &Registry) -> Server {
    super::start("redis-discovery", [8080], &[(8500, registry.port())]).0
}

fn value(server: &Server, key: &str) -> serde_json::Value {
    let response = server.get(&format!("/values/{key}"));
    serde_json::from_slice(&response.body).unwrap_or_else(|e| panic!("{e}: {}", response.text()))
}

fn nodes(server: &Server) -> Vec<u16> {
    let json: serde_json::Value = serde_json::from_slice(&server.get("/nodes").body).expect("JSON");
    let list = json["nodes"].as_array().expect("a list");
    list.iter().map(|n| n["port"].as_u64().expect("a port") as u16).collect()
}

/// A cluster of one node, which has all slots.
fn single() -> Redis {
    let mut home = Home::temporary("redis-single");
    let bus = home.port().to_string();
    let redis = Redis::start_with(home, &["--cluster-enabled", "yes", "--cluster-port", &bus]);
    redis.call(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    wait_for("the cluster is up", || {
        let reply = redis.connect().call(&["SET", "who", "single"]).ok()?;
        (reply == Reply::Status("OK".into())).then_some(())
    });
    redis
}

#[test]
fn requests_follow_the_nodes_that_the_registry_names() {
    follow(&Registry::start());
}

#[test]
fn the_stand_in_is_taken_for_consul() {
    // Where there is Consul, the stand-in must not be forgotten.
    if Consul::is_built() {
        follow(&Registry::stand_in());
    }
}

fn follow(registry: &Registry) {
    let cluster = RedisCluster::shared();
    let [first, second]: [SocketAddr; 2] = [cluster.addresses()[0], cluster.addresses()[1]];
    registry.put("1", &first.to_string());
    registry.put("2", &second.to_string());
    registry.put("3", "no address");
    let server = start(registry);
    wait_for("the nodes are known", || (nodes(&server) == [first.port(), second.port()]).then_some(()));
    server.wait_for_log("and 1 values that are not taken");

    for key in ["a", "b", "c", "d", "e"] {
        let stored = ask(server.port, "PUT", &format!("/values/{key}"), &format!("value of {key}"));
        assert_eq!(stored.status, 200, "{}\n{}", stored.text(), server.error_log());
        assert_eq!(value(&server, key)["value"], format!("value of {key}"));
        let at = &cluster.nodes[cluster.master_of(key)];
        assert_eq!(at.call(&["GET", key]).text(), format!("value of {key}"), "the node of its slot has it");
    }
    assert_eq!(server.get("/values/none").status, 404);
    assert_eq!(server.get(&format!("/values/{}", "k".repeat(129))).status, 400);
    assert_eq!(ask(server.port, "DELETE", "/values/a", "").status, 405);
    ask(server.port, "PUT", "/values/who", "three masters");
    assert_eq!(value(&server, "who")["value"], "three masters");

    // Another cluster takes over.
    let other = single();
    registry.put("1", &other.address().to_string());
    registry.delete("2");
    wait_for("requests go to the new node", || (value(&server, "who")["value"] == "single").then_some(()));
    assert_eq!(nodes(&server), [other.port]);
    assert_eq!(server.get("/values/a").status, 404, "the old nodes are not asked");
    other.process.kill();
    assert_eq!(server.get("/values/who").status, 502);
}

#[test]
fn the_last_nodes_stay_when_the_registry_is_gone() {
    let registry = Registry::stand_in();
    let redis = single();
    let server = start(&registry);
    assert_eq!(server.get("/values/who").status, 502, "nobody knows a node yet");
    server.wait_for_log("there is no key in redis-cluster/");
    registry.put("1", &redis.address().to_string());
    wait_for("the node is known", || (nodes(&server) == [redis.port]).then_some(()));
    registry.put("1", "nonsense");
    server.wait_for_log("no address among 1 values");
    assert_eq!(value(&server, "who")["value"], "single");
    drop(registry);
    server.wait_for_log("consul: connection refused");
    assert_eq!(value(&server, "who")["value"], "single", "{}", server.error_log());
}
