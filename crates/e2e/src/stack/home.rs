//! Where a service lives: its folder and its ports.
//!
//! A port is held by a socket that is bound and does not listen, so that nobody else gets it, not even as the near end
//! of a connection, while the service may listen on it, be killed, and listen on it again.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Socket, Type};

/// A folder and ports.
#[derive(Debug)]
pub struct Home {
    path: PathBuf,
    lasting: bool,
    wanted: Vec<u16>,
    held: Vec<Socket>,
}

impl Home {
    /// A new folder that goes when this is dropped, or when this process ends in any way.
    pub fn temporary(name: &str) -> Home {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = base().join(format!("{name}-{number}"));
        fs::create_dir(&path).expect("a new folder");
        Home { path, lasting: false, wanted: Vec::new(), held: Vec::new() }
    }

    /// A folder that stays, emptied; `wanted` are the ports to take, in order, where they are free.
    pub fn lasting(path: &Path, wanted: &[u16]) -> Home {
        let _ = fs::remove_dir_all(path);
        fs::create_dir_all(path).expect("a folder");
        let path = path.canonicalize().expect("the folder was just made");
        Home { path, lasting: true, wanted: wanted.iter().rev().copied().collect(), held: Vec::new() }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A file or folder in it, as an argument of a command.
    pub fn file(&self, name: &str) -> String {
        self.path.join(name).to_string_lossy().into_owned()
    }

    /// Whether the folder, and the process in it, outlive this process.
    pub fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// Another port of 127.0.0.1, held as long as this home is: the next wanted one if it is free, else any.
    pub fn port(&mut self) -> u16 {
        let wanted = self.wanted.pop().unwrap_or(0);
        let socket = hold(wanted).or_else(|_| hold(0)).expect("a free port");
        let port = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("a bound socket").port();
        self.held.push(socket);
        port
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !self.lasting {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Binds a port (0: any) without listening.
pub(crate) fn hold(port: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // A port that is asked for may still have connections that are ending.
    socket.set_reuse_address(port != 0)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    // Only now: a port that is to be free must not be shared with another holder.
    socket.set_reuse_address(true)?;
    Ok(socket)
}

/// The folder of all temporary homes of this process. Its watchdog sees this process end by the end of a pipe.
fn base() -> &'static Path {
    static BASE: OnceLock<(PathBuf, std::process::Child)> = OnceLock::new();
    let (path, _) = BASE.get_or_init(|| {
        let dir = tempfile::Builder::new().prefix("terrace-").tempdir().expect("a temporary folder");
        // Processes that were just told to end may still write: more than one try.
        let script = "cat >/dev/null; for i in 1 2 3 4 5 6 7 8 9; do rm -rf \"$0\" && break; sleep 1; done";
        let mut watchdog = Command::new("sh");
        watchdog.args(["-c", script]).arg(dir.path()).current_dir("/");
        watchdog.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A group of its own: what interrupts this process must not reach it.
        std::os::unix::process::CommandExt::process_group(&mut watchdog, 0);
        let child = watchdog.spawn().expect("a shell");
        (dir.keep(), child)
    });
    path
}
