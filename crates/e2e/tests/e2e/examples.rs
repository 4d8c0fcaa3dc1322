//! The examples other than the shop: copies of their folders on ports from the system, with real servers behind them.

mod access_log;
mod discovery;
mod gateway;
mod memcached;

use std::fs;

use e2e::server::Server;
use e2e::stack::fleet::renumber_files;
use e2e::stack::installed::copy_folder;
use e2e::{free_ports, root};

/// A running example. `own` are the ports that its files name, the first of which is the one to wait for; `servers` are the
/// ports of the servers behind it, as its files name them and as they are. The ports of `own` follow in their order.
fn start<const N: usize>(name: &str, own: [u16; N], servers: &[(u16, u16)]) -> (Server, [u16; N]) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    copy_folder(&root().join("examples").join(name), dir.path());
    // What a run by hand left behind is not part of the example.
    let _ = fs::remove_dir_all(dir.path().join("logs"));
    fs::create_dir_all(dir.path().join("logs")).expect("a folder");
    let ports = free_ports::<N>();
    let all: Vec<_> = own.into_iter().zip(ports).chain(servers.iter().copied()).collect();
    renumber_files(dir.path(), &all);
    (Server::start_in(dir, "nginx.conf", ports[0], "daemon off; master_process off;"), ports)
}
