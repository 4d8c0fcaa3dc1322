//! A memcached server.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::{Home, Process};

/// A running `memcached`.
pub struct Memcached {
    /// Its process.
    pub process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Memcached {
    /// Starts one.
    pub fn start() -> Memcached {
        Memcached::start_in(Home::temporary("memcached"))
    }

    /// Starts one in a home.
    pub fn start_in(mut home: Home) -> Memcached {
        let port = home.port();
        let mut argv =
            ["memcached", "-l", "127.0.0.1", "-U", "0", "-m", "64", "-p"].map(String::from).to_vec();
        argv.push(port.to_string());
        if nix::unistd::Uid::effective().is_root() {
            argv.extend(["-u", "root"].map(String::from));
        }
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let process = Process::start(&format!("memcached {port}"), home, argv, move || {
            ask(address, "version\r\n").is_some_and(|a| a.starts_with("VERSION"))
        });
        Memcached { process, port }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}

/// Sends a line and returns what comes first as an answer.
pub(super) fn ask(address: SocketAddr, line: &str) -> Option<String> {
    let timeout = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&address, timeout).ok()?;
    stream.set_read_timeout(Some(timeout)).ok()?;
    stream.write_all(line.as_bytes()).ok()?;
    let mut bytes = [0; 1024];
    let read = stream.read(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes[..read]).into_owned())
}
