//! The launcher of real servers: each starts, answers, can be killed and started again, and leaves nothing behind.

use e2e::stack::redis_cluster::slot;
use e2e::stack::resp::Reply;
use e2e::stack::{Home, Redis, RedisCluster};
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
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(!folder.exists());
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
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
