//! A PostgreSQL server.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::installed::{copy_folder, prepared, run};
use super::{Home, Process};

/// The superuser, its password and its database are all called this.
pub const USER: &str = "shop";

/// Options of all servers: small, and nothing that only a lasting database needs. A kill loses no commit, since the
/// system keeps what was written.
const OPTIONS: [&str; 6] = [
    "listen_addresses=127.0.0.1",
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=32MB",
    "max_connections=50",
    "timezone=Asia/Shanghai",
];

/// A running `postgres` with the user, password and database `shop`. What it holds survives a stop.
pub struct Postgres {
    /// Its process.
    pub process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl Postgres {
    /// One for all tests of this process.
    pub fn shared() -> &'static Postgres {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Postgres::start)
    }

    /// Starts one with an empty database.
    pub fn start() -> Postgres {
        let mut home = Home::temporary("postgres");
        copy_folder(&empty(), &home.path().join("data"));
        let port = home.port();
        let mut argv = as_somebody();
        // Becoming somebody undoes what the parent asked for.
        argv.extend(["setpriv", "--pdeathsig", "KILL"].map(String::from));
        argv.push(program("postgres"));
        argv.extend(["-D".to_string(), home.file("data"), "-k".to_string(), home.file("")]);
        argv.extend(["-p".to_string(), port.to_string()]);
        for option in OPTIONS {
            argv.extend(["-c".to_string(), option.to_string()]);
        }
        let process =
            Process::start(&format!("postgres {port}"), home, argv, move || client(port, "SELECT 1").is_ok());
        Postgres { process, port }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The folder of its Unix socket.
    pub fn socket_folder(&self) -> &Path {
        self.process.home().path()
    }

    /// Ends it at once, with the connections that it has; a killed one would leave processes behind.
    pub fn stop(&self) {
        self.process.signal(Signal::SIGQUIT);
        while self.process.is_running() {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Starts it again after [`Postgres::stop`].
    pub fn start_again(&self) {
        self.process.launch();
        self.process.wait_until_ready();
    }

    /// Runs statements; returns rows as lines, columns separated by tabs, without a head. Panics on an error.
    pub fn sql(&self, statements: &str) -> String {
        client(self.port, statements).unwrap_or_else(|e| panic!("{statements}: {e}"))
    }
}

fn client(port: u16, statements: &str) -> Result<String, String> {
    let mut command = Command::new(program("psql"));
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\t"]);
    command.args(["--set=ON_ERROR_STOP=1", "--host=127.0.0.1"]).arg(format!("--port={port}"));
    command.args(["--username", USER, "--dbname", USER]).env("PGPASSWORD", USER);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("psql: {e}; `scripts/needs test` installs it"))?;
    let mut stdin = child.stdin.take().expect("a pipe was asked for");
    let text = statements.as_bytes().to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&text));
    let out = child.wait_with_output().map_err(|e| e.to_string())?;
    // A client that failed has not read it all; its own words say why.
    let _ = writer.join();
    match out.status.success() {
        true => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
    }
}

/// A data folder with the user and its database.
fn empty() -> PathBuf {
    prepared("postgres", |path| {
        let home = Home::temporary("postgres-making");
        fs::write(home.path().join("password"), USER).expect("a file is written");
        let mut command = program_as_somebody("initdb");
        command.arg("-D").arg(path).args([
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "-A",
            "scram-sha-256",
            "--no-sync",
        ]);
        run(command.args(["-U", USER]).arg(format!("--pwfile={}", home.file("password"))));
        fs::write(home.path().join("sql"), format!("CREATE DATABASE {USER};\n")).expect("a file is written");
        let sql = fs::File::open(home.path().join("sql")).expect("the file was just written");
        let mut command = program_as_somebody("postgres");
        run(command.args(["--single", "-D"]).arg(path).arg("postgres").stdin(sql));
    })
}

/// The server refuses to be root; in a namespace of its own it is not, and still owns its files.
fn as_somebody() -> Vec<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Vec::new();
    }
    ["unshare", "--user", "--map-user=1000", "--map-group=1000"].map(String::from).to_vec()
}

fn program_as_somebody(name: &str) -> Command {
    let mut argv = as_somebody();
    argv.push(program(name));
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]);
    command
}

/// Debian keeps the programs of each version in a folder of its own, outside of the path.
fn program(name: &str) -> String {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let paths = versions.map(|version| version.path().join("bin").join(name));
    let found = paths.filter(|path| path.exists()).max();
    found.map_or_else(|| name.to_string(), |path| path.to_string_lossy().into_owned())
}
