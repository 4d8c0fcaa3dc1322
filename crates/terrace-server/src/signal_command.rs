//! `-s`: finds the running server by its pid file and signals it.

use std::process::ExitCode;

use nix::sys::signal::{Signal, kill};
use terrace_base::OsError;

use crate::cli::SignalCommand;
use crate::main_conf::MainConf;
use crate::pid_file;

/// Sends the signal; says why when it cannot.
pub fn send(command: SignalCommand, main: &MainConf) -> ExitCode {
    let signal = match command {
        SignalCommand::Stop => Signal::SIGTERM,
        SignalCommand::Quit => Signal::SIGQUIT,
        SignalCommand::Reopen => Signal::SIGUSR1,
        SignalCommand::Reload => Signal::SIGHUP,
    };
    let pid = match pid_file::read(&main.pid_path()) {
        Ok(pid) => pid,
        Err(e) => {
            eprintln!("terrace: [error] {e}");
            return ExitCode::FAILURE;
        }
    };
    match kill(pid, signal) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let error = std::io::Error::from(e);
            eprintln!("terrace: [alert] kill({pid}, {}) failed {}", signal as i32, OsError(&error));
            ExitCode::FAILURE
        }
    }
}
