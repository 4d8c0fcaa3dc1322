//! `make stack` and `make stack-down`: the whole fleet of the example `eshop-fleet` on this machine, with real servers
//! around it, in the background. `target/stack.json` lists every process, from the moment it runs.
#![forbid(unsafe_code)]

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use e2e::root;
use e2e::stack::fleet::{Fleet, NODES};
use e2e::stack::{Home, Kafka, MariaDb, Memcached, Process, RedisCluster, ZooKeeper};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// Products in MariaDB.
const PRODUCTS: u32 = 1_000_000;

/// Partitions of the topic for changes.
const PARTITIONS: i32 = 4;

/// How long processes may take to end before they are killed.
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// The ports that the example's files have, by name.
const PORTS: [(&str, u16); 15] = [
    ("dispatch", 8080),
    ("application-1", 8081),
    ("application-2", 8082),
    ("cache", 8090),
    ("redis-1", 7001),
    ("redis-2", 7002),
    ("redis-3", 7003),
    ("redis-4", 7004),
    ("redis-5", 7005),
    ("redis-6", 7006),
    ("mariadb", 3306),
    ("zookeeper", 2181),
    ("memcached", 11211),
    ("kafka", 9092),
    ("kafka-controller", 9093),
];

fn main() {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.split_first().map(|(verb, rest)| (verb.as_str(), rest)) {
        Some(("up", ports)) => Stack::new(ports).up(),
        Some(("down", [])) => down(),
        _ => {
            eprintln!("usage: stack up [NAME=PORT...] | stack down");
            std::process::exit(2);
        }
    }
}

/// What is being started.
struct Stack {
    wanted: Vec<(&'static str, u16)>,
    /// The example's numbers and those in use.
    taken: Mutex<Vec<(u16, u16)>>,
    entries: Mutex<Vec<Value>>,
    processes: Mutex<Vec<Process>>,
}

impl Stack {
    fn new(overrides: &[String]) -> Stack {
        let mut wanted = PORTS.to_vec();
        for text in overrides {
            let parsed = text.split_once('=').and_then(|(name, port)| Some((name, port.parse().ok()?)));
            let slot = parsed.and_then(|(name, port)| Some((wanted.iter_mut().find(|w| w.0 == name)?, port)));
            let Some((slot, port)) = slot else {
                let names: Vec<_> = PORTS.iter().map(|(name, _)| *name).collect();
                eprintln!("{text}: not NAME=PORT with a NAME of {}", names.join(", "));
                std::process::exit(2);
            };
            slot.1 = port;
        }
        Stack {
            wanted,
            taken: Mutex::new(Vec::new()),
            entries: Mutex::new(Vec::new()),
            processes: Mutex::new(Vec::new()),
        }
    }

    fn up(self) {
        if listed().iter().any(is_running) {
            eprintln!("a stack runs already ({}); `make stack-down` ends it", list_path().display());
            std::process::exit(1);
        }
        let _ = fs::remove_dir_all(folder());
        fs::create_dir_all(folder()).expect("a folder in target");
        std::thread::scope(|scope| {
            scope.spawn(|| self.kafka());
            scope.spawn(|| self.mariadb());
            scope.spawn(|| self.redis());
            scope.spawn(|| self.zookeeper_and_memcached());
        });
        self.nodes();
        let mut processes = self.processes.into_inner().unwrap_or_else(PoisonError::into_inner);
        processes.iter_mut().for_each(Process::release);
        say_where_to_look(&listed());
    }

    fn kafka(&self) {
        let kafka = Kafka::start_in(self.home("kafka", &["kafka", "kafka-controller"]));
        kafka.create_topic("cache-message", PARTITIONS);
        self.started("kafka", "kafka", "kafka", kafka.port, kafka.process);
    }

    fn mariadb(&self) {
        let db = MariaDb::start_with_shop(self.home("mariadb", &["mariadb"]), PRODUCTS);
        self.started("mariadb", "mariadb", "mariadb", db.port, db.process);
    }

    fn redis(&self) {
        // The buses have no number of their own: any port does.
        let name = |n: usize| format!("redis-{}", n + 1);
        let cluster = RedisCluster::start_in(|n| self.home(&name(n), &[&name(n)]));
        for (n, node) in cluster.nodes.into_iter().enumerate() {
            self.started(&name(n), "redis", &name(n), node.port, node.process);
        }
    }

    fn zookeeper_and_memcached(&self) {
        let memcached = Memcached::start_in(self.home("memcached", &["memcached"]));
        self.started("memcached", "memcached", "memcached", memcached.port, memcached.process);
        let zookeeper = ZooKeeper::start_in(self.home("zookeeper", &["zookeeper"]));
        self.started("zookeeper", "zookeeper", "zookeeper", zookeeper.port, zookeeper.process);
    }

    /// The nodes of Terrace; all ports must be known before the first starts, since they name each other.
    fn nodes(&self) {
        let homes = NODES.map(|(name, kind, _)| {
            let mut home = self.home(name, &[name]);
            let port = home.port();
            self.note(name, port);
            (name, kind, home, port)
        });
        let fleet = Fleet::copy(self.home("fleet", &[]), &lock(&self.taken));
        for (name, kind, home, port) in homes {
            let node = fleet.start(name, home, port);
            self.started(name, kind, name, node.port, node.process);
        }
    }

    fn home(&self, name: &str, ports: &[&str]) -> Home {
        let wanted: Vec<_> = self.wanted.iter().filter(|w| ports.contains(&w.0)).map(|w| w.1).collect();
        Home::lasting(&folder().join(name), &wanted)
    }

    fn note(&self, port_name: &str, port: u16) {
        let number = |list: &[(&str, u16)]| list.iter().find(|p| p.0 == port_name).map(|p| p.1);
        let (Some(of_example), Some(wanted)) = (number(&PORTS), number(&self.wanted)) else { return };
        if port != wanted {
            println!("{port_name}: port {wanted} is taken, so it has {port}");
        }
        lock(&self.taken).push((of_example, port));
    }

    /// Notes a process, its place in the list and its port.
    fn started(&self, name: &str, kind: &str, port_name: &str, port: u16, process: Process) {
        if !NODES.iter().any(|node| node.0 == port_name) {
            self.note(port_name, port);
        }
        let pid = process.pid().map(Pid::as_raw);
        let address = SocketAddr::from(([127, 0, 0, 1], port)).to_string();
        println!("{name} runs at {address}");
        let mut entries = lock(&self.entries);
        entries.push(json!({ "name": name, "kind": kind, "address": address, "pid": pid }));
        write_list(&entries);
        lock(&self.processes).push(process);
    }
}

/// Ends what the list has, nodes before the servers that they use, and waits until it is gone.
fn down() {
    let entries = listed();
    let running = || entries.iter().rev().filter(|e| is_running(e)).filter_map(pid_of);
    let ended = running().inspect(|pid| signal(*pid, Signal::SIGTERM)).count();
    let end = Instant::now() + END_TIMEOUT;
    while running().next().is_some() && Instant::now() < end {
        // What was paused does not hear of it otherwise.
        running().for_each(|pid| signal(pid, Signal::SIGCONT));
        std::thread::sleep(Duration::from_millis(50));
    }
    for pid in running() {
        println!("process {pid} does not end and is killed");
        signal(pid, Signal::SIGKILL);
    }
    let _ = fs::remove_file(list_path());
    println!("{ended} of {} processes ran and have ended", entries.len());
}

fn signal(pid: Pid, signal: Signal) {
    // It may have ended in between.
    let _ = kill(pid, signal);
}

fn pid_of(entry: &Value) -> Option<Pid> {
    entry["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 1).map(Pid::from_raw)
}

/// Whether the process of an entry runs, and is ours still: it works in the stack's folder.
fn is_running(entry: &Value) -> bool {
    let link = pid_of(entry).map(|pid| fs::read_link(format!("/proc/{pid}/cwd")));
    matches!(link, Some(Ok(path)) if path.starts_with(folder()))
}

fn folder() -> PathBuf {
    root().join("target/stack")
}

fn list_path() -> PathBuf {
    root().join("target/stack.json")
}

fn listed() -> Vec<Value> {
    let text = fs::read_to_string(list_path()).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// Writes the list as a whole: a reader sees the old or the new one.
fn write_list(entries: &[Value]) {
    let path = list_path();
    let unfinished: &Path = &path.with_extension("unfinished");
    let text = serde_json::to_string_pretty(entries).expect("plain values");
    fs::write(unfinished, text + "\n")
        .and_then(|()| fs::rename(unfinished, &path))
        .expect("a file in target");
}

fn say_where_to_look(entries: &[Value]) {
    let address = |name: &str| {
        let entry = entries.iter().find(|e| e["name"] == name);
        entry.and_then(|e| e["address"].as_str()).unwrap_or("?").to_string()
    };
    let (dispatch, cache) = (address("dispatch"), address("cache"));
    let port = |name: &str| address(name).rsplit(':').next().unwrap_or_default().to_string();
    println!(
        "\n  the shop             http://{dispatch}/\n  \
         a product page       http://{dispatch}/product?productId=1&shopId=1\n  \
         application nodes    http://{}/ and http://{}/\n  \
         cache node           http://{cache}/getProductInfo?productId=1\n  \
         counters             http://{cache}/status and http://{cache}/metrics\n\n  \
         Redis Cluster        redis-cli -c -p {}\n  \
         MariaDB              mariadb -h 127.0.0.1 -P {} -u shop -pshop shop\n  \
         Kafka                {} (topic cache-message)\n  \
         ZooKeeper            {}\n  \
         memcached            {}\n\n  \
         all processes        target/stack.json\n  \
         logs                 target/stack/fleet/eshop/logs, target/stack/*/log\n  \
         end it               make stack-down\n",
        address("application-1"),
        address("application-2"),
        port("redis-1"),
        port("mariadb"),
        address("kafka"),
        address("zookeeper"),
        address("memcached"),
    );
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
