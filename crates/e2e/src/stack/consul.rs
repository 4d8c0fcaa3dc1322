//! A Consul agent. No package brings it and its build takes minutes, so what needs it is not among the tests that
//! always run.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use super::installed::{is_prepared, prepared, run};
use super::{Home, Process};
use crate::http;

/// The last line whose source builds as a dependency of another module.
const VERSION: &str = "1.10.12";

/// A running agent in development mode: a server of its own, all in memory.
pub struct Consul {
    /// Its process.
    pub process: Process,
    /// Its HTTP port on 127.0.0.1.
    pub port: u16,
}

impl Consul {
    /// Whether one starts without being built first.
    pub fn is_built() -> bool {
        is_prepared(&name())
    }

    /// Starts one; builds it first, with Go, if that was not done before.
    pub fn start() -> Consul {
        Consul::start_in(Home::temporary("consul"))
    }

    /// As [`Consul::start`] in a home.
    pub fn start_in(mut home: Home) -> Consul {
        let port = home.port();
        let mut argv = vec![executable().to_string_lossy().into_owned()];
        argv.extend(
            ["agent", "-dev", "-log-level=warn", "-bind=127.0.0.1", "-grpc-port=-1"].map(String::from),
        );
        argv.push("-dns-port=-1".to_string());
        argv.push(format!("-http-port={port}"));
        for option in ["server-port", "serf-lan-port", "serf-wan-port"] {
            argv.push(format!("-{option}={}", home.port()));
        }
        let process = Process::start(&format!("consul {port}"), home, argv, move || {
            http::get(port, "/v1/status/leader").is_ok_and(|r| r.status == 200 && r.text().contains(':'))
        });
        Consul { process, port }
    }

    /// Its HTTP address.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }
}

fn name() -> String {
    format!("consul-{VERSION}")
}

/// The program, built from its module. What its own source tree replaces is named here, as a dependency's
/// replacements do not hold.
fn executable() -> PathBuf {
    let folder = prepared(&name(), |path| {
        let module = format!(
            "module consul-build\n\ngo 1.18\n\nrequire (\n\tgithub.com/hashicorp/consul v{VERSION}\n\t\
             github.com/hashicorp/consul/api v1.13.1\n\tgolang.org/x/net v0.17.0\n)\n"
        );
        fs::write(path.join("go.mod"), module).expect("a file is written");
        let mut build = Command::new("go");
        build.args(["build", "-mod=mod", "-o", "consul", "github.com/hashicorp/consul"]);
        run(build.current_dir(path));
    });
    folder.join("consul")
}
