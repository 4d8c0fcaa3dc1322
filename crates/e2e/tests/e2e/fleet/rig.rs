//! Cache nodes on the servers of a test.

use std::sync::OnceLock;

use e2e::stack::{Home, Kafka, MariaDb, Process, RedisCluster};
use e2e::{binary, http, wait_for};
use serde_json::Value;

use super::shop::Shop;

/// Products in the database; each test has a range of its own.
const PRODUCTS: u32 = 1000;

/// The shop's database, for all tests that do not break it.
pub fn database() -> &'static MariaDb {
    static SHARED: OnceLock<MariaDb> = OnceLock::new();
    SHARED.get_or_init(own_database)
}

/// One more.
pub fn own_database() -> MariaDb {
    MariaDb::start_with_shop(Home::temporary("mariadb"), PRODUCTS)
}

/// A Redis Cluster as L2.
pub fn cluster(redis: &RedisCluster) -> String {
    let servers: Vec<_> = redis.addresses().iter().map(ToString::to_string).collect();
    format!("driver redis_cluster; server {};", servers.join(" "))
}

/// A single Redis as L2, or a proxy before it.
pub fn single(port: u16) -> String {
    format!("driver redis; server 127.0.0.1:{port};")
}

/// What the nodes of a test have in common.
pub struct Plan<'a> {
    /// The test's name: of its topic, its group, and its keys in Redis.
    pub name: &'a str,
    /// MariaDB's port, or that of a proxy before it.
    pub mariadb: u16,
    /// The directives of L2's `cache_store`: [`cluster`] or [`single`].
    pub l2: String,
    pub kafka: &'a Kafka,
    /// ZooKeeper's port, or that of a proxy before it.
    pub zookeeper: Option<u16>,
    /// Directives of the cache: how long values live, and what else the test is about.
    pub life: &'a str,
    /// What a message does: `drop` or `refresh`.
    pub action: &'a str,
}

/// A running node. Killed when it is dropped.
pub struct Node {
    pub process: Process,
    pub port: u16,
}

impl Plan<'_> {
    /// Starts a cache node.
    pub fn node(&self) -> Node {
        let lock = self.zookeeper.map(|port| {
            format!(
                "cache_lock rebuilds {{ driver zookeeper; server 127.0.0.1:{port}; path /{}; \
                 session_timeout 2s; timeout 500ms; }}",
                self.name
            )
        });
        let mut life = self.life.to_string();
        if lock.is_some() {
            life.push_str(" lock rebuilds; lock_wait 300ms;");
        }
        Node::start(
            include_str!("cache.conf"),
            &[
                ("LOCK_BLOCK", &lock.unwrap_or_default()),
                ("LIFE", &life),
                ("ACTION", self.action),
                ("MARIADB", &self.mariadb.to_string()),
                ("L2", &self.l2),
                ("KAFKA", &self.kafka.port.to_string()),
                ("TEST", self.name),
            ],
        )
    }

    /// Two nodes that have all products of the shop in memory and have heard of a change of each.
    pub fn pair(&self, shop: &Shop<'_>) -> [Node; 2] {
        let nodes = [self.node(), self.node()];
        nodes.iter().for_each(|node| node.warm(shop));
        shop.products().for_each(|id| shop.write(id));
        shop.tell_all();
        nodes.iter().for_each(|node| node.wait_until_current(shop));
        nodes
    }
}

impl Node {
    /// Starts a node on a configuration in which some words, and `PORT`, are replaced.
    pub fn start(conf: &str, words: &[(&str, &str)]) -> Node {
        let mut home = Home::temporary("node");
        let port = home.port();
        let mut conf = conf.to_string();
        for (word, text) in words {
            conf = conf.replace(word, text);
        }
        conf = conf.replace("PORT", &port.to_string());
        for folder in ["conf", "logs"] {
            std::fs::create_dir(home.path().join(folder)).expect("a new folder");
        }
        std::fs::write(home.path().join("conf/nginx.conf"), conf).expect("a file is written");
        let prefix = home.path().to_string_lossy().into_owned();
        let program = binary().to_string_lossy().into_owned();
        let argv = [&program, "-p", &prefix, "-g", "daemon off; master_process off;"];
        let process = Process::start("node", home, argv, move || http::get(port, "/status").is_ok());
        Node { process, port }
    }

    /// One request.
    pub fn get(&self, path: &str) -> http::Response {
        http::get(self.port, path).unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.error_log()))
    }

    /// The product as JSON.
    pub fn product(&self, id: u32) -> http::Response {
        self.get(&format!("/getProductInfo?productId={id}"))
    }

    /// Asks for all products.
    pub fn warm(&self, shop: &Shop<'_>) {
        for id in shop.products() {
            wait_for("the node has the product", || (self.product(id).status == 200).then_some(()));
        }
    }

    /// Waits until the node gives the newest version of every product. Nothing may change meanwhile.
    pub fn wait_until_current(&self, shop: &Shop<'_>) {
        for id in shop.products() {
            let newest = shop.newest(id);
            wait_for(&format!("version {newest} of product {id}"), || {
                let response = self.product(id);
                let json: Value = serde_json::from_slice(&response.body).ok()?;
                (response.status == 200 && json["version"] == newest).then_some(())
            });
        }
    }

    /// A counter of the node's cache: what and which.
    pub fn counter(&self, level: &str, name: &str) -> u64 {
        let status: Value = serde_json::from_slice(&self.get("/status").body).expect("JSON");
        let counter = &status["product_info"][level][name];
        counter.as_u64().unwrap_or_else(|| panic!("no {level}.{name} in {status}"))
    }

    /// How many loads it has begun.
    pub fn loads(&self) -> u64 {
        self.counter("source", "loads")
    }

    pub fn error_log(&self) -> String {
        let bytes = std::fs::read(self.process.home().path().join("logs/error.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The loads of all nodes.
pub fn loads(nodes: &[Node]) -> u64 {
    nodes.iter().map(Node::loads).sum()
}
