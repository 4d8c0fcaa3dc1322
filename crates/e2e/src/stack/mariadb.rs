//! A MariaDB server.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::installed::{copy_folder, prepared, run};
use super::{DelayProxy, Home, Process};

/// The user, its password and its database are all called this.
pub const USER: &str = "shop";

/// Makes the user and its database on every start; runs before the server accepts anybody.
const INIT: &str = "CREATE DATABASE IF NOT EXISTS shop CHARACTER SET utf8mb4;\n\
                    CREATE USER IF NOT EXISTS 'shop'@'%' IDENTIFIED BY 'shop';\n\
                    GRANT ALL ON *.* TO 'shop'@'%';\n";

/// Options of all servers: small files, nothing that only a lasting database needs. A kill loses no commit, since
/// the system keeps what was written.
const OPTIONS: [&str; 10] = [
    "--no-defaults",
    "--skip-name-resolve",
    "--skip-log-bin",
    "--innodb-log-file-size=32M",
    "--innodb-buffer-pool-size=256M",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-flush-method=nosync",
    "--innodb-doublewrite=0",
    "--performance-schema=off",
    "--character-set-server=utf8mb4",
];

/// The shop's tables and rows; takes the number of products from `@products`.
const SHOP: &str = include_str!("../../../../examples/eshop-fleet/data/shop.sql");

/// A running `mariadbd` with the user, password and database `shop`. What it holds survives a kill.
pub struct MariaDb {
    /// Its process.
    pub process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

impl MariaDb {
    /// One for all tests of this process.
    pub fn shared() -> &'static MariaDb {
        static SHARED: OnceLock<MariaDb> = OnceLock::new();
        SHARED.get_or_init(MariaDb::start)
    }

    /// Starts one with an empty database.
    pub fn start() -> MariaDb {
        MariaDb::start_from(Home::temporary("mariadb"), &empty())
    }

    /// Starts one with the fleet example's tables and this many products.
    pub fn start_with_shop(home: Home, products: u32) -> MariaDb {
        MariaDb::start_from(home, &with_shop(products))
    }

    fn start_from(home: Home, template: &Path) -> MariaDb {
        copy_folder(template, &home.path().join("data"));
        start(home)
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// `mysql://user:password@address/database`.
    pub fn url(&self) -> String {
        url(self.address())
    }

    /// A proxy in front of it that can be slow, for [`url`].
    pub fn behind_proxy(&self) -> DelayProxy {
        DelayProxy::start(self.address())
    }

    /// Runs statements; returns rows as lines, columns separated by tabs, without a head. Panics on an error.
    pub fn sql(&self, statements: &str) -> String {
        self.try_sql(statements).unwrap_or_else(|e| panic!("{statements}: {e}"))
    }

    /// As [`MariaDb::sql`] with the client's words as an error.
    pub fn try_sql(&self, statements: &str) -> Result<String, String> {
        client(self.port, statements)
    }
}

/// The URL of a server, or of a proxy in front of it.
pub fn url(address: SocketAddr) -> String {
    format!("mysql://{USER}:{USER}@{address}/{USER}")
}

fn start(mut home: Home) -> MariaDb {
    let port = home.port();
    fs::write(home.path().join("init.sql"), INIT).expect("a file is written");
    let mut argv = vec!["mariadbd".to_string()];
    argv.extend(OPTIONS.map(String::from));
    for (option, value) in [
        ("datadir", home.file("data")),
        ("init-file", home.file("init.sql")),
        ("socket", home.file("socket")),
        ("pid-file", home.file("pid")),
        ("port", port.to_string()),
        ("bind-address", "127.0.0.1".to_string()),
    ] {
        argv.push(format!("--{option}={value}"));
    }
    if nix::unistd::Uid::effective().is_root() {
        argv.push("--user=root".to_string());
    }
    let process =
        Process::start(&format!("mariadb {port}"), home, argv, move || client(port, "SELECT 1").is_ok());
    MariaDb { process, port }
}

fn client(port: u16, statements: &str) -> Result<String, String> {
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--batch", "--skip-column-names"]);
    command.args(["--default-character-set=utf8mb4", "--connect-timeout=10", "--raw"]);
    command
        .args([format!("--port={port}"), format!("--user={USER}"), format!("--password={USER}")])
        .arg(USER);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| format!("mariadb: {e}; `scripts/needs test` installs it"))?;
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

/// A data folder as the server's own script makes it.
fn empty() -> PathBuf {
    prepared("mariadb", |path| {
        let mut command = Command::new("mariadb-install-db");
        command.args(OPTIONS).arg(format!("--datadir={}", path.display()));
        command.args(["--auth-root-authentication-method=normal", "--skip-test-db"]);
        if nix::unistd::Uid::effective().is_root() {
            command.arg("--user=root");
        }
        run(&mut command);
    })
}

/// A data folder with the shop in it.
fn with_shop(products: u32) -> PathBuf {
    let name = format!("mariadb-shop-{products}-{:08x}", crc32fast::hash(SHOP.as_bytes()));
    prepared(&name, |path| {
        let home = Home::temporary("mariadb-filling");
        copy_folder(&empty(), &home.path().join("data"));
        let server = start(home);
        server.sql(&format!("SET @products = {products};\n{SHOP}"));
        server.process.terminate();
        copy_folder(&server.process.home().path().join("data"), path);
    })
}
