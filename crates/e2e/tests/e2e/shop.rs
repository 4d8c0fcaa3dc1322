//! The example shop: a product page through every tier.

use std::process::Command;

use e2e::http::get;
use e2e::{shop, wait_for};

const PAGE: &str = "/product?productId=1&shopId=1";

#[test]
fn a_page_through_all_three_tiers() {
    let (server, ports) = shop::start();
    let first = server.get(PAGE);
    assert_eq!(first.status, 200, "{}\n{}", first.text(), server.error_log());
    assert_eq!(first.header("X-Cache-Level"), Some("source"));
    let served_by = first.header("X-Served-By").expect("the server names itself").to_string();
    let name = "Halden Table Lamp";
    assert!(first.text().contains(name), "{}", first.text());
    let second = server.get(PAGE);
    assert_eq!(second.header("X-Cache-Level"), Some("L1-dictionary"));
    assert_eq!(second.header("X-Served-By"), Some(served_by.as_str()), "a product stays with its server");
    // What the cache service has but no page was made of yet comes from its memory.
    for path in ["/getProductInfo?productId=2", "/getShopInfo?shopId=2"] {
        assert_eq!(get(ports[3], path).expect("an answer").status, 200);
    }
    let warm = server.get("/product?productId=2&shopId=2");
    assert_eq!(warm.header("X-Cache-Level"), Some("L1-memory"));
    let products: Vec<_> = (1..40).map(|n| server.get(&format!("/product?productId={n}&shopId=1"))).collect();
    assert!(products.iter().all(|r| r.status == 200));
    let seen: std::collections::BTreeSet<_> =
        products.iter().filter_map(|r| r.header("X-Served-By")).collect();
    assert_eq!(seen.len(), 2, "products are spread over both servers");
}

#[test]
fn what_is_not_a_page() {
    let (server, ports) = shop::start();
    for (path, status) in [
        ("/product", 400),
        ("/product?productId=1", 400),
        ("/product?productId=x&shopId=1", 400),
        ("/product?productId=1&shopId=-1", 400),
        ("/product?productId=999999&shopId=1", 404),
        ("/product?productId=1&shopId=999999", 404),
        ("/", 200),
        ("/nothing-here", 404),
    ] {
        let response = server.get(path);
        assert_eq!(response.status, status, "{path}: {}", server.error_log());
    }
    let json = get(ports[3], "/getProductInfo?productId=1").expect("an answer");
    assert_eq!(json.header("Content-Type"), Some("application/json"));
    assert!(json.text().contains("Halden Table Lamp"), "{}", json.text());
    assert_eq!(get(ports[3], "/getProductInfo?productId=1%20OR%201=1").expect("an answer").status, 404);
    assert_eq!(get(ports[3], "/getProductInfo").expect("an answer").status, 400);
}

#[test]
fn stale_pages_when_the_source_is_gone() {
    let (dir, ports) = shop::copy();
    // Short times, so that what is warm grows stale at once.
    let conf_path = dir.path().join("nginx.conf");
    let conf = std::fs::read_to_string(&conf_path).expect("the configuration");
    let is = |line: &str, name: &str| line.split_whitespace().next() == Some(name);
    let short: Vec<_> = conf.lines().filter(|l| !is(l, "jitter")).collect();
    let short = short.into_iter().map(|l| if is(l, "ttl") { "ttl 50ms;" } else { l });
    let short = short.collect::<Vec<_>>().join("\n");
    assert!(short.contains("ttl 50ms;"), "the test shortens the example's ttl");
    std::fs::write(&conf_path, short).expect("written");
    let server =
        e2e::server::Server::start_in(dir, "nginx.conf", ports[0], "daemon off; master_process off;");
    // The addresses are opened one after the other.
    wait_for("the cache service listens", || get(ports[3], "/getShopInfo?shopId=1").ok());
    let direct = |path: &str| get(ports[3], path).expect("an answer");
    assert_eq!(direct("/getProductInfo?productId=7").status, 200);
    std::fs::remove_file(server.file("data/eshop.db")).expect("the source is removed");
    let stale = wait_for("a stale answer", || {
        let r = direct("/getProductInfo?productId=7");
        assert_eq!(r.status, 200, "what was warm stays: {}", r.text());
        (r.header("X-Cache-Level") == Some("stale")).then_some(r)
    });
    assert!(stale.text().contains("\"id\":7"), "{}", stale.text());
    let cold = server.get("/product?productId=8&shopId=1");
    assert_eq!(cold.status, 503, "what was never loaded is a 503 page: {}", cold.text());
}

#[test]
fn the_seeds_own_script_runs_as_it_stands() {
    let (server, _) = shop::start();
    let page = server.get("/seed/product?productId=1&shopId=1");
    assert_eq!(page.status, 200, "{}\n{}", page.text(), server.error_log());
    assert!(page.text().contains("product name: Halden Table Lamp"), "{}", page.text());
}

#[test]
fn a_browser_finds_the_product() {
    let (server, _) = shop::start();
    let profile = tempfile::tempdir().expect("a temporary folder");
    let out = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--timeout=20000", "--dump-dom"])
        .arg(format!("http://127.0.0.1:{}{PAGE}", server.port))
        .output()
        .expect("chromium is installed (make test installs it)");
    let dom = String::from_utf8_lossy(&out.stdout);
    assert!(dom.contains("Halden Table Lamp"), "{dom}\n{}", String::from_utf8_lossy(&out.stderr));
}
