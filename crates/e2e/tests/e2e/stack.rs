//! The launcher of real servers: each starts, answers, can be killed and started again, and leaves nothing behind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use e2e::http;
use e2e::stack::redis_cluster::slot;
use e2e::stack::resp::Reply;
use e2e::stack::{
    Consul, DelayProxy, Home, Kafka, MariaDb, Memcached, Redis, RedisCluster, RedisSentinel, ZooKeeper,
    mariadb,
};
use e2e::wait_for;

#[test]
fn redis_comes_back_on_its_port_and_leaves_nothing_behind() {
    let redis = Redis::start_with(Home::temporary("redis"), &["--maxmemory", "10mb"]);
    let mut client = redis.connect();
    assert_eq!(client.call(&["SET", "a", "1"]).expect("an answer"), Reply::Status("OK".into()));
    assert_eq!(redis.call(&["GET", "a"]), Reply::Bulk(b"1".to_vec()));
    let (port, folder) = (redis.port, redis.process.home().path().to_path_buf());
    redis.process.kill();
    assert!(!redis.process.is_running());
    assert!(client.call(&["PING"]).is_err());
    redis.process.restart();
    assert_eq!(redis.call(&["GET", "a"]), Reply::Nil, "it kept nothing");
    let pid = redis.process.pid().expect("it runs");
    drop(redis);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!folder.exists());
    assert!(!Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn a_redis_cluster_survives_the_loss_of_a_master() {
    let cluster = RedisCluster::start();
    assert_eq!(slot(b"123456789"), 12739, "the check value of the specification");
    assert_eq!(slot(b"{user}.name"), slot(b"user"));
    let first = cluster.master_of("key");
    cluster.nodes[first].call(&["SET", "key", "value"]);
    cluster.nodes[first].call(&["WAIT", "1", "10000"]);
    let replicas = cluster.replicas_of(first);
    assert_eq!(replicas.len(), 1);
    assert_eq!(cluster.kill_master_of("key"), first);
    cluster.wait_for_failover(first);
    let second = cluster.master_of("key");
    assert_eq!(second, replicas[0]);
    assert_eq!(cluster.nodes[second].call(&["GET", "key"]), Reply::Bulk(b"value".to_vec()));
    cluster.restart(first);
    assert_eq!(cluster.replicas_of(second), [first], "the old master follows the new one");

    let other = (cluster.master_of("other{1}")..6)
        .chain(0..6)
        .find(|n| *n != second && !cluster.replicas_of(*n).is_empty());
    let other = other.expect("there are three masters");
    cluster.begin_move("key", other);
    let asked = cluster.nodes[second].connect().call(&["GET", "{key}2"]).expect("an answer");
    assert!(matches!(&asked, Reply::Error(e) if e.starts_with("ASK ")), "{asked:?}");
    cluster.finish_move("key", other);
    assert_eq!(cluster.master_of("key"), other);
    let moved = cluster.nodes[second].connect().call(&["GET", "key"]).expect("an answer");
    assert!(matches!(&moved, Reply::Error(e) if e.starts_with("MOVED ")), "{moved:?}");

    cluster.kill_all();
    assert!(cluster.nodes.iter().all(|n| !n.process.is_running()));
    cluster.start_all();
    wait_for("it takes values again", || {
        let node = &cluster.nodes[cluster.master_of("key")];
        (node.connect().call(&["SET", "key", "2"]).ok()? == Reply::Status("OK".into())).then_some(())
    });
}

#[test]
fn sentinels_choose_another_master() {
    let group = RedisSentinel::start(2);
    assert_eq!(group.master(), Some(0));
    group.nodes[0].call(&["SET", "key", "value"]);
    group.nodes[0].call(&["WAIT", "2", "10000"]);
    group.nodes[0].process.kill();
    let master = group.wait_for_failover(0);
    assert_eq!(group.nodes[master].call(&["GET", "key"]), Reply::Bulk(b"value".to_vec()));
}

#[test]
fn memcached_answers_and_comes_back() {
    let memcached = Memcached::start();
    let ask = |line: &str| {
        let mut stream = TcpStream::connect(memcached.address()).expect("it accepts");
        stream.write_all(format!("{line}\r\nquit\r\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    assert_eq!(ask("set a 7 0 1\r\n1"), "STORED\r\n");
    assert_eq!(ask("get a"), "VALUE a 7 1\r\n1\r\nEND\r\n");
    memcached.process.restart();
    assert_eq!(ask("get a"), "END\r\n");
}

#[test]
fn mariadb_keeps_what_it_was_told_through_a_kill_and_can_be_slow() {
    let db = MariaDb::start_with_shop(Home::temporary("mariadb"), 1000);
    assert_eq!(
        db.sql("SELECT COUNT(*), COUNT(DISTINCT name), SUM(version) FROM product"),
        "1000\t1000\t1000\n"
    );
    assert_eq!(db.sql("SELECT name, city FROM shop WHERE id = 7"), "Sørensen & Daughters\tAarhus\n");
    db.sql("UPDATE product SET price = 5 WHERE id = 1");
    assert_eq!(db.sql("SELECT price, version FROM product WHERE id = 1"), "5\t2\n");
    assert!(db.try_sql("SELECT nothing").is_err_and(|e| e.contains("nothing")));
    db.process.kill();
    assert!(db.try_sql("SELECT 1").is_err());
    db.process.restart();
    assert_eq!(db.sql("SELECT price, version FROM product WHERE id = 1"), "5\t2\n");

    let proxy = db.behind_proxy();
    assert_eq!(mariadb::url(proxy.address()), format!("mysql://shop:shop@127.0.0.1:{}/shop", proxy.port));
    let greeting =
        |address: SocketAddr| -> std::io::Result<usize> { TcpStream::connect(address)?.read(&mut [0; 512]) };
    assert!(greeting(proxy.address()).expect("through the proxy") > 20);
}

#[test]
fn a_proxy_delays_stalls_cuts_and_refuses() {
    let redis = Redis::start();
    let proxy = DelayProxy::start(redis.address());
    let connect = || e2e::stack::resp::RespClient::connect(proxy.address());
    let mut client = connect().expect("it accepts");
    let pong = Reply::Status("PONG".into());
    assert_eq!(client.call(&["PING"]).expect("an answer"), pong);
    let delay = Duration::from_millis(300);
    proxy.delay(delay);
    let start = Instant::now();
    assert_eq!(client.call(&["PING"]).expect("an answer"), pong);
    assert!(start.elapsed() >= delay, "no answer comes sooner");
    proxy.stall();
    let asker = std::thread::spawn(move || client.call(&["PING"]).map(|reply| (client, reply)));
    let mut other = TcpStream::connect(proxy.address()).expect("it accepts while it stalls");
    other.set_read_timeout(Some(delay)).expect("an option");
    other.write_all(b"PING\r\n").expect("sent");
    assert!(other.read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
    assert!(!asker.is_finished());
    proxy.pass();
    let (mut client, reply) = asker.join().expect("no panic").expect("an answer");
    assert_eq!(reply, pong);
    proxy.cut();
    assert!(client.call(&["PING"]).is_err());
    assert_eq!(connect().expect("it accepts").call(&["PING"]).expect("an answer"), pong);
    proxy.refuse();
    assert!(connect().is_err());
    proxy.accept();
    assert_eq!(connect().expect("it accepts").call(&["PING"]).expect("an answer"), pong);
}

#[test]
fn zookeeper_starts_and_comes_back() {
    let zookeeper = ZooKeeper::start();
    let ask = |word: &str| {
        let mut stream = TcpStream::connect(zookeeper.address()).expect("it accepts");
        stream.write_all(word.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    };
    assert_eq!(ask("ruok"), "imok");
    assert!(ask("srvr").contains("Mode: standalone"));
    zookeeper.process.restart();
    assert_eq!(ask("ruok"), "imok");
}

#[test]
fn kafka_keeps_records_in_order_through_a_kill() {
    let kafka = Kafka::start();
    kafka.create_topic("cache-message", 2);
    let message = |n: u32| format!("{{\"serviceId\":\"productInfoService\",\"productId\":{n},\"shopId\":1}}");
    for n in 0..5 {
        assert_eq!(kafka.produce("cache-message", 1, &n.to_string(), &message(n)), i64::from(n));
    }
    let texts = || kafka.records("cache-message", 1, 0).iter().map(|r| r.text()).collect::<Vec<_>>();
    assert_eq!(texts(), (0..5).map(message).collect::<Vec<_>>());
    assert_eq!(kafka.records("cache-message", 1, 3)[0].key.as_deref(), Some(b"3".as_slice()));
    assert!(kafka.records("cache-message", 0, 0).is_empty());
    assert_eq!(kafka.committed("nobody", "cache-message", 1), None);
    kafka.process.kill();
    assert!(TcpStream::connect(kafka.address()).is_err());
    kafka.process.restart();
    assert_eq!(kafka.produce("cache-message", 1, "5", &message(5)), 5);
    assert_eq!(texts().len(), 6);
}

#[test]
#[ignore = "builds Consul on the first run, which takes minutes and needs Go"]
fn consul_starts_and_keeps_values() {
    let consul = Consul::start();
    let mut client = http::Client::connect(consul.port).expect("it accepts");
    let put = "PUT /v1/kv/redis HTTP/1.1\r\nHost: localhost\r\nContent-Length: 14\r\n\r\n127.0.0.1:7001";
    client.send(put.as_bytes()).expect("sent");
    assert_eq!(client.read_response(false).expect("an answer").text().trim_end(), "true");
    assert_eq!(client.get("/v1/kv/redis?raw").expect("an answer").text(), "127.0.0.1:7001");
}

/// Runs in a process of its own, which [`nothing_outlives_a_process_that_is_killed`] starts.
#[test]
#[ignore = "a part of another test, which starts it"]
fn a_process_that_waits_to_be_killed() {
    let redis = Redis::start();
    println!("{} {}", redis.process.pid().expect("it runs"), redis.process.home().path().display());
    // The shared server's thread ends here; the server must not.
    let memcached = std::thread::spawn(Memcached::start).join().expect("no panic");
    wait_for("the parent reads", || memcached.process.is_running().then_some(()));
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn nothing_outlives_a_process_that_is_killed() {
    let me = std::env::current_exe().expect("the test knows its own path");
    let mut child = Command::new(me)
        .args(["--ignored", "--exact", "--nocapture", "stack::a_process_that_waits_to_be_killed"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .expect("it starts");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("a pipe")));
    let mut line = |wanted: &str| loop {
        let line = lines.next().expect("it says more").expect("text");
        if line.contains(wanted) {
            return line;
        }
    };
    let said = line("/redis-");
    line("ready");
    let (pid, folder) = said.rsplit_once(' ').expect("two words");
    let pid = pid.rsplit(' ').next().expect("a word");
    assert!(Path::new(folder).exists());
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    wait_for("its server is gone", || (!Path::new("/proc").join(pid).exists()).then_some(()));
    wait_for("its folder is gone", || (!Path::new(folder).exists()).then_some(()));
}
