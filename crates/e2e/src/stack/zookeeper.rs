//! A ZooKeeper server, stand-alone, of Debian's package.

use std::fs;
use std::net::SocketAddr;
use std::sync::OnceLock;

use super::memcached::ask;
use super::{Home, Process};

/// Debian's jar; its manifest names the others.
const JAR: &str = "/usr/share/java/zookeeper.jar";

/// A running ZooKeeper. What it holds survives a kill.
pub struct ZooKeeper {
    /// Its process.
    pub process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl ZooKeeper {
    /// One for all tests of this process.
    pub fn shared() -> &'static ZooKeeper {
        static SHARED: OnceLock<ZooKeeper> = OnceLock::new();
        SHARED.get_or_init(ZooKeeper::start)
    }

    /// Starts one.
    pub fn start() -> ZooKeeper {
        ZooKeeper::start_in(Home::temporary("zookeeper"))
    }

    /// Starts one in a home.
    pub fn start_in(mut home: Home) -> ZooKeeper {
        let port = home.port();
        // A session may be as short as two ticks.
        let conf = format!(
            "tickTime=500\ndataDir={}\nclientPort={port}\nclientPortAddress=127.0.0.1\nmaxClientCnxns=0\n\
             admin.enableServer=false\n4lw.commands.whitelist=srvr,ruok,cons,dump\n",
            home.file("data")
        );
        fs::write(home.path().join("zoo.cfg"), conf).expect("its configuration is written");
        let mut argv = super::JAVA.map(String::from).to_vec();
        argv.extend(["-Xmx128m", "-Dzookeeper.fsync.warningthresholdms=60000", "-cp", JAR].map(String::from));
        argv.extend(["org.apache.zookeeper.server.quorum.QuorumPeerMain", "zoo.cfg"].map(String::from));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let process = Process::start(&format!("zookeeper {port}"), home, argv, move || {
            ask(address, "srvr").is_some_and(|a| a.contains("Zookeeper version"))
        });
        ZooKeeper { process, port }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}
