//! Real servers for tests and for `make stack`: each a process of the real program, on ports from the system, in a
//! folder of its own, up when `start` returns.
//!
//! A service is gone when it is dropped: process and folder. When the whole test process ends, however it ends, the
//! system kills what it started and a watchdog removes the folders. Expensive services have `shared()`, one for all
//! tests of a binary.

pub mod consul;
pub mod delay_proxy;
pub mod fleet;
pub mod home;
pub mod installed;
pub mod kafka;
pub mod kafka_client;
pub mod mariadb;
pub mod memcached;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod redis_cluster;
pub mod redis_sentinel;
pub mod resp;
pub mod zookeeper;

pub use consul::Consul;
pub use delay_proxy::DelayProxy;
pub use home::Home;
pub use kafka::Kafka;
pub use mariadb::MariaDb;
pub use memcached::Memcached;
pub use postgres::Postgres;
pub use process::Process;
pub use redis::Redis;
pub use redis_cluster::RedisCluster;
pub use redis_sentinel::RedisSentinel;
pub use zookeeper::ZooKeeper;

/// How Java programs are started: quick to be up rather than fast in the long run.
const JAVA: [&str; 4] = ["java", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"];
