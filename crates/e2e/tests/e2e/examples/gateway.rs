//! The API gateway, called by its own script.

use std::process::Command;

use e2e::http::{Response, get};
use e2e::server::Server;
use e2e::stack::Redis;

/// The gateway, its ports, and a Redis that knows one caller and one address for the canary.
fn start() -> (Server, [u16; 4], Redis) {
    let redis = Redis::start();
    redis.call(&["HSET", "gateway:secrets", "demo", "s3cret"]);
    redis.call(&["SADD", "gateway:canary", "10.0.0.7"]);
    let (server, ports) = super::start("api-gateway", [8080, 8081, 8082, 8088], &[(6379, redis.port)]);
    (server, ports, redis)
}

/// Calls with the example's script: status and body, the body's fields in an order of their own.
fn call(server: &Server, secret: &str, path: &str, body: &str, env: &[(&str, &str)]) -> (u16, String) {
    let url = format!("http://127.0.0.1:{}{path}", server.port);
    let mut command = Command::new(server.file("call.sh"));
    command.args(["demo", secret, &url, body]).envs(env.iter().copied());
    let out = command.output().expect("the script runs");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    let status = said.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status = status.unwrap_or_else(|| panic!("{path}: {said}{}", String::from_utf8_lossy(&out.stderr)));
    (status, said.split_once("\r\n\r\n").map(|(_, body)| body.to_string()).unwrap_or_default())
}

fn message(response: &Response) -> String {
    assert_eq!(response.header("Content-Type"), Some("application/json"), "{}", response.text());
    let json: serde_json::Value = serde_json::from_slice(&response.body).expect("JSON");
    assert_eq!(json["error"]["status"], response.status);
    json["error"]["message"].as_str().unwrap_or_default().to_string()
}

#[test]
fn who_signs_gets_answers() {
    let (server, _, _redis) = start();
    let good = |path: &str| call(&server, "s3cret", path, "", &[]);
    assert_eq!(good("/api/add?a=1&b=2.5"), (200, "{\"result\":3.5}\n".into()), "{}", server.error_log());
    assert_eq!(good("/api/sub?a=1&b=2"), (200, "{\"result\":-1}\n".into()));
    assert_eq!(
        call(&server, "s3cret", "/api/echo", "{\"n\":[1]}", &[]),
        (200, "{\"result\":{\"n\":[1]}}\n".into())
    );
    for (path, status, said) in [
        ("/api/add?a=1", 400, "b is not a number"),
        ("/api/add?a=1&b=nan", 400, "b is not a number"),
        ("/api/echo", 400, "the body is no JSON"),
        ("/api/nothing", 404, "no such address"),
        ("/api/..%2fcheck", 404, "no such address"),
    ] {
        let (got, body) = good(path);
        assert!(got == status && body.contains(said), "{path}: {got} {body}");
    }
}

#[test]
fn who_does_not_sign_gets_an_error_in_json() {
    let (server, ports, redis) = start();
    let none = server.get("/api/add?a=1&b=2");
    assert_eq!((none.status, message(&none).as_str()), (401, "X-Key is missing or malformed"));
    let said = |secret, env: &[(&str, &str)]| call(&server, secret, "/shop/cart", "", env);
    let refused = |(status, body): (u16, String), text: &str| {
        assert!(status == 401 && body.contains(text), "{status} {body}");
    };
    refused(said("wrong", &[]), "X-Key or X-Sign is wrong");
    refused(said("s3cret", &[("TIME", "1000000000")]), "X-Time is not the time");
    refused(said("s3cret", &[("NONCE", "a b")]), "X-Nonce is missing or malformed");
    assert_eq!(said("s3cret", &[("NONCE", "once")]).0, 200);
    refused(said("s3cret", &[("NONCE", "once")]), "X-Nonce was used before");

    let large = "x".repeat(70_000);
    let mut client = server.connect();
    let head =
        format!("POST /api/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", large.len());
    client.send(head.as_bytes()).expect("sent");
    let response = client.read_response(false).expect("an answer ahead of the body");
    assert_eq!((response.status, message(&response).as_str()), (413, ""));

    // The caller is known for a while yet; another is not.
    redis.process.kill();
    assert_eq!(said("s3cret", &[]).0, 200, "{}", server.error_log());
    let url = format!("http://127.0.0.1:{}/api/add?a=1&b=2", ports[0]);
    let out = Command::new(server.file("call.sh")).args(["other", "s", &url]).output().expect("it runs");
    let out = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.starts_with("HTTP/1.1 503") && out.contains("cannot be checked"), "{out}");
    assert!(server.error_log().contains("secret of other: redis: connection refused"));
}

#[test]
fn the_quota_of_a_key_ends() {
    let (server, _, _redis) = start();
    let settings = std::fs::read_to_string(server.file("lua/gateway/settings.lua")).expect("the settings");
    assert!(settings.contains("key_quota = 100,"), "the test counts on it");
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let from = |address| {
            let server = &server;
            let env = [("FROM", address)];
            move || (0..34).map(|_| call(server, "s3cret", "/shop/", "", &env).0).collect::<Vec<_>>()
        };
        let threads = ["10.1.0.1", "10.1.0.2", "10.1.0.3"].map(|a| scope.spawn(from(a)));
        threads.into_iter().flat_map(|t| t.join().expect("no panic")).collect()
    });
    assert_eq!(statuses.iter().filter(|s| **s == 200).count(), 100, "{}", server.error_log());
    assert_eq!(statuses.iter().filter(|s| **s == 429).count(), 2);
}

#[test]
fn an_address_in_the_list_gets_the_canary() {
    let (server, _, _redis) = start();
    let version = |address| call(&server, "s3cret", "/shop/cart?x=1", "", &[("FROM", address)]);
    let wanted = |name, address| {
        (200, format!("{{\"version\":\"{name}\",\"path\":\"/shop/cart\",\"for\":\"{address}\"}}\n"))
    };
    assert_eq!(version("10.0.0.7"), wanted("canary", "10.0.0.7"), "{}", server.error_log());
    // A part of an address that is in the list is not in the list.
    assert_eq!(version("10.0.0.70"), wanted("stable", "10.0.0.70"));
    assert_eq!(version("0.0.0.7"), wanted("stable", "0.0.0.7"));
}

#[test]
fn the_documents_scripts_run_as_they_stand() {
    let (server, ports, redis) = start();
    let at = |path: &str| get(ports[3], path).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(at("/api/add?a=1&b=2").text(), "3\n", "{}", server.error_log());
    assert_eq!(at("/api/add?a=1&b=x").status, 400);
    assert_eq!(at("/api/add").status, 400);
    redis.call(&["SET", "gray", "127.0.0.1"]);
    assert!(at("/gray").text().contains("\"canary\""), "{}", server.error_log());
    redis.call(&["SET", "gray", "1"]);
    assert!(at("/gray").text().contains("\"stable\""), "{}", server.error_log());
    redis.process.kill();
    assert!(at("/gray").text().starts_with("failed to connect redis"), "{}", server.error_log());
}
