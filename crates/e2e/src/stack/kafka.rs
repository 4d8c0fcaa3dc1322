//! An Apache Kafka broker: one node in KRaft mode, from the project's own jars.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::installed::{copy_folder, prepared, run};
use super::kafka_client::{KafkaClient, Record};
use super::{Home, Process};
use crate::wait_for;

/// The version of the jars: the last line that still speaks the oldest requests, which Lua clients send.
const VERSION: &str = "3.9.1";

/// A running broker. What it holds survives a kill.
pub struct Kafka {
    /// Its process.
    pub process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Kafka {
    /// One for all tests of this process; they keep apart by their topics' names.
    pub fn shared() -> &'static Kafka {
        static SHARED: OnceLock<Kafka> = OnceLock::new();
        SHARED.get_or_init(Kafka::start)
    }

    /// Starts one.
    pub fn start() -> Kafka {
        Kafka::start_in(Home::temporary("kafka"))
    }

    /// Starts one in a home; the ports are the broker's and the controller's.
    pub fn start_in(mut home: Home) -> Kafka {
        let jars = jars();
        let (port, controller) = (home.port(), home.port());
        copy_folder(&jars.join("formatted"), &home.path().join("data"));
        fs::write(home.path().join("server.properties"), properties(port, controller, &home.file("data")))
            .expect("its configuration is written");
        fs::write(home.path().join("log4j.properties"), LOGGING).expect("its configuration is written");
        let mut argv = super::JAVA.map(String::from).to_vec();
        argv.extend(["-Xmx256m", "-Dlog4j.configuration=file:log4j.properties", "-cp"].map(String::from));
        argv.push(class_path(&jars));
        argv.extend(["kafka.Kafka", "server.properties"].map(String::from));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let process = Process::start(&format!("kafka {port}"), home, argv, move || {
            KafkaClient::connect(address).and_then(|mut c| c.is_ready()).unwrap_or(false)
        });
        Kafka { process, port }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Makes a topic and waits until all its partitions take records.
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        self.ask(|client| client.create_topic(topic, partitions));
        for partition in 0..partitions {
            self.records(topic, partition, 0);
        }
    }

    /// Appends a record to a partition; its offset.
    pub fn produce(&self, topic: &str, partition: i32, key: &str, value: &str) -> i64 {
        self.ask(|client| client.produce(topic, partition, key.as_bytes(), value.as_bytes()))
    }

    /// The records of a partition from an offset to its end.
    pub fn records(&self, topic: &str, partition: i32, from: i64) -> Vec<Record> {
        self.ask(|client| client.records(topic, partition, from))
    }

    /// The offset that a consumer group has committed for a partition; `None` if it has none.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        // The coordinator may be loading the group still.
        let answer =
            wait_for("the group's coordinator", || self.connect().committed(group, topic, partition).ok());
        (answer >= 0).then_some(answer)
    }

    /// Asks until the partition has its leader, the group its coordinator.
    fn ask<T>(&self, mut question: impl FnMut(&mut KafkaClient) -> io::Result<T>) -> T {
        let mut client = self.connect();
        wait_for("a leader", || match question(&mut client) {
            Ok(answer) => Some(answer),
            Err(e) if e.kind() == io::ErrorKind::NotConnected => None,
            Err(e) => panic!("{}: {e}", self.process.name()),
        })
    }

    /// A connection.
    pub fn connect(&self) -> KafkaClient {
        KafkaClient::connect(self.address()).unwrap_or_else(|e| panic!("{}: {e}", self.process.name()))
    }
}

const LOGGING: &str = "log4j.rootLogger=WARN, out\n\
    log4j.appender.out=org.apache.log4j.ConsoleAppender\n\
    log4j.appender.out.layout=org.apache.log4j.PatternLayout\n\
    log4j.appender.out.layout.ConversionPattern=%d %p %m (%c)%n\n";

fn properties(port: u16, controller: u16, data: &str) -> String {
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port}\ncontroller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\nlog.dirs={data}\n\
         num.network.threads=1\nnum.io.threads=2\nbackground.threads=2\nlog.cleaner.enable=false\n\
         auto.create.topics.enable=false\noffsets.topic.num.partitions=4\noffsets.topic.replication.factor=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=4\ngroup.initial.rebalance.delay.ms=0\n\
         group.min.session.timeout.ms=1000\nbroker.session.timeout.ms=1500\nbroker.heartbeat.interval.ms=300\n"
    )
}

fn class_path(jars: &Path) -> String {
    format!("{}/jars/*", jars.display())
}

/// The broker's jars, fetched by their coordinates, and a data folder as the broker's own tool formats it.
fn jars() -> PathBuf {
    prepared(&format!("kafka-{VERSION}"), |path| {
        let pom = format!(
            "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\
             <groupId>terrace</groupId><artifactId>kafka-jars</artifactId><version>1</version>\
             <packaging>pom</packaging><dependencies>{}{}</dependencies></project>\n",
            dependency("org.apache.kafka", "kafka_2.13", VERSION),
            // The broker's log goes through it.
            dependency("org.slf4j", "slf4j-reload4j", "1.7.36"),
        );
        fs::write(path.join("pom.xml"), pom).expect("a file is written");
        let mut fetch = Command::new("mvn");
        fetch.args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
        run(fetch.arg(format!("-DoutputDirectory={}/jars", path.display())).current_dir(path));
        let formatted = path.join("formatted").to_string_lossy().into_owned();
        // Ports are no part of what is formatted.
        fs::write(path.join("format.properties"), properties(1, 2, &formatted)).expect("a file is written");
        let mut format = Command::new(super::JAVA[0]);
        format.args(&super::JAVA[1..]).arg("-cp").arg(class_path(path));
        format.args(["kafka.tools.StorageTool", "format", "-t", "VGVycmFjZUluVGVzdHMxMg"]);
        run(format.arg("-c").arg(path.join("format.properties")));
    })
}

fn dependency(group: &str, artifact: &str, version: &str) -> String {
    format!(
        "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version>\
         </dependency>"
    )
}
