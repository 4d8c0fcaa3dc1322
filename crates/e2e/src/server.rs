//! A running Terrace in a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use crate::http::{self, Client, Response};
use crate::{binary, wait_for};

/// How often a start is tried again with other ports.
const STARTS_MAX: usize = 5;

/// Ports of one server's configuration: its own (`PORT`) and four others (`PORT1` to `PORT4`).
///
/// They are held by sockets that are bound and do not listen, so that the system gives them to nobody else, not even
/// as the near end of a connection, while a server may listen on them all the same.
#[derive(Debug)]
pub struct Ports(pub [u16; 5], #[allow(dead_code, reason = "the sockets are held, not used")] Vec<Socket>);

impl Ports {
    /// Free ones.
    pub fn free() -> Ports {
        let held = [(); 5].map(|()| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
            // Only now: a port that is to be free must not be shared with another holder.
            socket.set_reuse_address(true).expect("an option");
            socket
        });
        let port = |s: &Socket| s.local_addr().ok().and_then(|a| a.as_socket()).map(|a| a.port());
        let ports = held.each_ref().map(|s| port(s).expect("a bound socket has an address"));
        Ports(ports, held.into())
    }

    /// Puts the ports in the place of their names.
    pub fn fill(&self, text: &str) -> String {
        let mut text = text.to_string();
        // The shortest name is a part of the others.
        for (i, port) in self.0.iter().enumerate().skip(1) {
            text = text.replace(&format!("PORT{i}"), &port.to_string());
        }
        text.replace("PORT", &self.0[0].to_string())
    }
}

/// A server. Dropping it kills it and removes its folder.
pub struct Server {
    child: Child,
    dir: TempDir,
    /// The first port it listens on.
    pub port: u16,
    /// All its ports.
    pub ports: Ports,
}

/// Runs the binary to its end: for `-t`, `-v`, `-s` and failing starts. The answer is its status and standard error.
pub fn run(prefix: &Path, args: &[&str]) -> (ExitStatus, String) {
    let out = Command::new(binary()).arg("-p").arg(prefix).args(args).output().expect("the binary runs");
    let text = [out.stdout, out.stderr].concat();
    (out.status, String::from_utf8_lossy(&text).into_owned())
}

/// A folder with a configuration in `conf/nginx.conf`, and other files.
pub fn folder(conf: &str, files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    for sub in ["conf", "logs", "html"] {
        std::fs::create_dir_all(dir.path().join(sub)).expect("a folder");
    }
    std::fs::write(dir.path().join("conf/nginx.conf"), conf).expect("the configuration is written");
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file is written");
    }
    dir
}

impl Server {
    /// Starts on `conf`, in which `PORT` and `PORT1` to `PORT4` stand for ports from the system, without a master process.
    pub fn start(conf: &str, files: &[(&str, &str)]) -> Server {
        Server::start_with(conf, files, "daemon off; master_process off;")
    }

    /// As [`Server::start`], with other `-g` directives.
    pub fn start_with(conf: &str, files: &[(&str, &str)], directives: &str) -> Server {
        // Another program may have taken a port meanwhile.
        for _ in 0..STARTS_MAX {
            let ports = Ports::free();
            let files: Vec<_> = files.iter().map(|(n, t)| (*n, ports.fill(t))).collect();
            let files: Vec<_> = files.iter().map(|(n, t)| (*n, t.as_str())).collect();
            let dir = folder(&ports.fill(conf), &files);
            match Server::spawn(dir, "conf/nginx.conf", ports, directives) {
                Ok(server) => return server,
                Err(said) if said.contains("Address already in use") => {}
                Err(said) => panic!("{said}"),
            }
        }
        panic!("no start found its ports free");
    }

    /// Starts in a folder that is there.
    pub fn start_in(dir: TempDir, conf: &str, port: u16, directives: &str) -> Server {
        Server::spawn(dir, conf, Ports([port; 5], Vec::new()), directives)
            .unwrap_or_else(|said| panic!("{said}"))
    }

    /// Starts and waits until the first port accepts. The error is what a server said that ended instead.
    fn spawn(dir: TempDir, conf: &str, ports: Ports, directives: &str) -> Result<Server, String> {
        let stderr = std::fs::File::create(dir.path().join("stderr.txt")).expect("a file for standard error");
        let child = Command::new(binary())
            .arg("-p")
            .arg(dir.path())
            .args(["-c", conf, "-g", directives])
            .stdin(Stdio::null())
            .stderr(stderr)
            .spawn()
            .expect("the binary starts");
        let port = ports.0[0];
        let mut server = Server { child, dir, port, ports };
        wait_for("the server listens", || {
            if let Some(status) = server.child.try_wait().expect("the child is ours") {
                let said = format!("{}{}", server.stderr(), server.error_log());
                return Some(Err(format!("the server ended with {status}: {said}")));
            }
            Client::connect(port).ok().map(Ok)
        })
        .map(|_| server)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A file in its folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// One GET on a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        http::get(self.port, path).unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.error_log()))
    }

    /// A connection.
    pub fn connect(&self) -> Client {
        Client::connect(self.port).expect("the server accepts")
    }

    /// Sends a signal to the process that was started.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the server is alive");
    }

    /// The process that was started.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the server ends", || self.child.try_wait().expect("the child is ours"))
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child is ours").is_none()
    }

    /// What it wrote to standard error.
    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.file("stderr.txt")).unwrap_or_default()
    }

    /// Its error log.
    pub fn error_log(&self) -> String {
        let bytes = std::fs::read(self.file("logs/error.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until a line of a file in its folder has `text`.
    pub fn wait_for_line(&self, name: &str, text: &str) {
        wait_for(&format!("{text:?} in {name}"), || {
            let bytes = std::fs::read(self.file(name)).unwrap_or_default();
            String::from_utf8_lossy(&bytes).lines().any(|l| l.contains(text)).then_some(())
        });
    }

    /// Waits until a line of the error log has `text`; returns the line.
    pub fn wait_for_log(&self, text: &str) -> String {
        wait_for(&format!("{text:?} in the error log"), || {
            self.error_log().lines().find(|l| l.contains(text)).map(str::to_string)
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = kill(self.pid(), Signal::SIGTERM);
        let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while std::time::Instant::now() < end {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
