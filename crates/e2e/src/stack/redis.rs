//! A Redis server.

use std::net::SocketAddr;

use super::resp::{Reply, RespClient};
use super::{Home, Process};

/// A running `redis-server`. It keeps nothing on disk: after a kill it starts empty.
pub struct Redis {
    /// Its process.
    pub process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Redis {
    /// Starts one.
    pub fn start() -> Redis {
        Redis::start_with(Home::temporary("redis"), &[])
    }

    /// Starts one with further options, such as `--maxmemory`, `1mb`.
    pub fn start_with(mut home: Home, options: &[&str]) -> Redis {
        Redis::start_on(home.port(), home, options)
    }

    /// Starts one on a port of its home.
    pub(super) fn start_on(port: u16, home: Home, options: &[&str]) -> Redis {
        let name = format!("redis {port}");
        let mut argv = vec!["redis-server".to_string(), "--port".into(), port.to_string()];
        argv.extend(["--bind", "127.0.0.1", "--dir"].map(String::from));
        argv.push(home.file(""));
        argv.extend(["--save", "", "--appendonly", "no", "--daemonize", "no"].map(String::from));
        argv.extend(["--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0"].map(String::from));
        argv.extend(options.iter().map(|o| o.to_string()));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let process = Process::start(&name, home, argv, move || answers(address));
        Redis { process, port }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// A connection.
    pub fn connect(&self) -> RespClient {
        RespClient::connect(self.address()).unwrap_or_else(|e| panic!("{}: {e}", self.process.name()))
    }

    /// One command on a connection of its own. Panics if the server reports an error.
    pub fn call<A: AsRef<[u8]>>(&self, args: &[A]) -> Reply {
        match self.connect().call(args) {
            Ok(Reply::Error(e)) => panic!("{}: {e}", self.process.name()),
            Ok(reply) => reply,
            Err(e) => panic!("{}: {e}", self.process.name()),
        }
    }

    /// The value of a line `name:value` in the answer to a command such as `INFO replication`.
    pub fn info(&self, args: &[&str], name: &str) -> String {
        field(&self.call(args).text(), name)
    }
}

/// Whether a server there answers PING: also one that wants a password first, not one that still loads.
fn answers(address: SocketAddr) -> bool {
    match RespClient::connect(address).and_then(|mut c| c.call(&["PING"])) {
        Ok(Reply::Error(e)) => e.starts_with("NOAUTH"),
        Ok(_) => true,
        Err(_) => false,
    }
}

/// The value of the line `name:value`; empty if there is none.
pub(super) fn field(text: &str, name: &str) -> String {
    let value = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_string()
}
