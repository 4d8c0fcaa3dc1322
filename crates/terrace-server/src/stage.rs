//! Which part a process plays. It is told by its own name, `argv[0]`, which `ps` shows too.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::main_conf::MainConf;

/// The parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Started by a user: checks, then decides what to become.
    Front,
    /// In the background: keeps the sockets and the serving process.
    BackgroundMaster,
    /// In the background: serves without a master.
    BackgroundSingle,
    /// Serves without a master, with the environment that the configuration asks for.
    ForegroundSingle,
    /// Serves for a master.
    Worker,
}

const NAMES: [(Stage, &str); 4] = [
    (Stage::BackgroundMaster, "terrace: master process"),
    (Stage::BackgroundSingle, "terrace: single process"),
    (Stage::ForegroundSingle, "terrace: foreground process"),
    (Stage::Worker, "terrace: worker process"),
];

/// What scripts see of the environment whatever the configuration says: nginx keeps `TZ`; the search paths of Lua
/// are read by nginx before it clears the environment.
const ENV_KEPT: [&str; 4] = ["TZ", "LUA_PATH", "LUA_CPATH", "RUST_BACKTRACE"];

impl Stage {
    /// By the process's name.
    pub fn of(name: &OsStr) -> Stage {
        NAMES.iter().find(|(_, n)| name == *n).map_or(Stage::Front, |(stage, _)| *stage)
    }

    /// Starts this program anew as `self`. Its standard error is this process's.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn spawn(self, args: &[OsString], stdin: Stdio, stdout: Stdio, main: &MainConf) -> io::Result<Child> {
        let mut command = self.command(args);
        // The master needs the whole environment to choose from.
        if self != Stage::BackgroundMaster {
            set_environment(&mut command, main);
        }
        command.stdin(stdin).stdout(stdout).spawn()
    }

    /// Becomes `self`; returns only when that fails.
    pub fn exec(self, args: &[OsString], main: &MainConf) -> io::Error {
        let mut command = self.command(args);
        set_environment(&mut command, main);
        command.exec()
    }

    fn command(self, args: &[OsString]) -> Command {
        // The very program that runs, also when its file was replaced meanwhile.
        let mut command = Command::new("/proc/self/exe");
        command.args(args);
        if let Some((_, name)) = NAMES.iter().find(|(stage, _)| *stage == self) {
            command.arg0(name);
        }
        command
    }
}

fn set_environment(command: &mut Command, main: &MainConf) {
    command.env_clear();
    let kept = ENV_KEPT.iter().map(|name| (OsString::from(name), None)).chain(main.env.iter().cloned());
    for (name, value) in kept {
        if let Some(value) = value.or_else(|| std::env::var_os(&name)) {
            command.env(name, value);
        }
    }
}
