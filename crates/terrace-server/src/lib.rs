//! Composes the server: the command line, the processes, generations, workers, reload, drain, signals.
//!
//! The first process checks the configuration; it then serves itself, or becomes the master that starts the serving
//! process, or puts one of these in the background. There is no `fork` without `exec`: each process is the program
//! started anew, told by its own name which part it plays.
#![forbid(unsafe_code)]

mod channel;
mod cli;
mod load;
mod main_conf;
mod message;
mod modules;
mod process;
mod signals;
mod sockets;
mod version;
mod worker_thread;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;

use terrace_http::persistent::Persistent;

pub use modules::{modules, registry};

/// Runs the program. `args` are the process's, with its name; `rustc` is what it was built by.
pub fn run(args: impl IntoIterator<Item = OsString>, rustc: &str) -> ExitCode {
    let mut args = args.into_iter();
    let _name = args.next();
    let cli = match cli::Cli::parse(args) {
        Ok(cli) => cli,
        Err(e) => {
            eprintln!("terrace: {e}");
            return ExitCode::FAILURE;
        }
    };
    if cli.version {
        eprint!("{}", if cli.build { version::build(rustc) } else { version::line() });
        if cli.help {
            eprint!("{}", cli::USAGE);
        }
        return ExitCode::SUCCESS;
    }
    let source = match load::Source::new(&cli) {
        Ok(s) => s,
        Err(e) => {
            eprintln!("terrace: [emerg] getcwd() failed {}", terrace_base::OsError(&e));
            return ExitCode::FAILURE;
        }
    };
    let _ = Arc::new(Persistent::default());
    let start = process::Start {
        source,
        master: None,
        on_bound: Box::new(|_| Ok(())),
        on_ready: Box::new(|_| Ok(())),
    };
    match process::serve(start) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("terrace: [emerg] {e}");
            ExitCode::FAILURE
        }
    }
}
