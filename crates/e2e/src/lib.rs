//! The harness of the end-to-end tests: starts the real binary on ports from the system, speaks HTTP to it over raw
//! sockets, and runs data-block cases. Waits for conditions, never for a time; cleans up whatever way a test ends.
#![forbid(unsafe_code)]

pub mod case;
pub mod dns;
pub mod http;
pub mod server;
pub mod shop;
pub mod stack;
pub mod tls;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up. Generous: it bounds a hang, it measures nothing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// The binary under test, beside this program's own: `cargo build -p terrace` makes it. `TERRACE_BIN` overrides it.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TERRACE_BIN") {
        return path.into();
    }
    let me = std::env::current_exe().expect("a program knows its own path");
    // A test lies in target/<profile>/deps, a program in target/<profile>.
    let beside = me.ancestors().skip(1).take(2).map(|folder| folder.join("terrace"));
    beside.into_iter().find(|path| path.exists()).unwrap_or_else(|| {
        panic!("terrace is not beside {}: run `cargo build -p terrace` first", me.display())
    })
}

/// Waits until `check` gives a value; panics with `what` when it never does.
pub fn wait_for<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(v) = check() {
            return v;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ports that were free a moment ago. No two calls of a process give the same port.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    // Those that were given before are held as well until the call ends, so that others come.
    let mut held = Vec::new();
    [(); N].map(|()| {
        loop {
            let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let port = socket.local_addr().expect("a bound socket has an address").port();
            held.push(socket);
            if given.insert(port) {
                return port;
            }
        }
    })
}
