//! The first process: answers what needs no server, checks the configuration, and decides what to become.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::sync::Arc;

use terrace_base::log::Level;
use terrace_conf::ConfError;
use terrace_http::persistent::Persistent;

use crate::cli::{Cli, USAGE};
use crate::load::{Loaded, Source};
use crate::pid_file::PidFile;
use crate::process::{self, StartError};
use crate::stage::Stage;
use crate::{background, master, rights, signal_command, version};

/// Runs the program. `args` are the process's, with its name; `rustc` is what it was built by.
pub fn run(args: impl IntoIterator<Item = OsString>, rustc: &str) -> ExitCode {
    let mut args = args.into_iter();
    let stage = Stage::of(&args.next().unwrap_or_default());
    if stage != Stage::Front {
        // What runs is `/proc/self/exe`; a name that cannot be set is only less nice to see in lists.
        let _ = nix::sys::prctl::set_name(c"terrace");
    }
    let args: Vec<OsString> = args.collect();
    let cli = match Cli::parse(args.iter().cloned()) {
        Ok(cli) => cli,
        Err(e) => {
            eprintln!("terrace: {e}");
            return ExitCode::FAILURE;
        }
    };
    if cli.version {
        eprint!("{}", if cli.build { version::build(rustc) } else { version::line() });
        if cli.help {
            eprint!("{USAGE}");
        }
        return ExitCode::SUCCESS;
    }
    let source = match Source::new(&cli) {
        Ok(source) => source,
        Err(e) => {
            eprintln!("terrace: [emerg] getcwd() failed {}", terrace_base::OsError(&e));
            return ExitCode::FAILURE;
        }
    };
    let log = source.clone();
    let result = match stage {
        Stage::Front => front(&cli, source, &args),
        Stage::BackgroundMaster => background::enter().and_then(|()| become_master(&source, args, true)),
        Stage::BackgroundSingle => background::enter().and_then(|()| serve_alone(source, true)),
        Stage::ForegroundSingle => serve_alone(source, false),
        Stage::Worker => serve_for_master(source),
    };
    result.unwrap_or_else(|e| {
        log.emerg(&e.to_string());
        ExitCode::FAILURE
    })
}

fn front(cli: &Cli, source: Source, args: &[OsString]) -> Result<ExitCode, StartError> {
    let checked = check(&source);
    if cli.test {
        return Ok(report_test(cli, &source, checked));
    }
    let loaded = checked?;
    let main = &loaded.main;
    if let Some(signal) = cli.signal {
        return Ok(signal_command::send(signal, main));
    }
    warn(&loaded);
    match (main.daemon(), main.master_process()) {
        (true, true) => background::start(Stage::BackgroundMaster, args, main),
        (true, false) => background::start(Stage::BackgroundSingle, args, main),
        (false, true) => start_master(loaded, args.to_vec(), false),
        (false, false) if main.env.is_empty() => {
            drop(loaded);
            serve_alone(source, false)
        }
        (false, false) => {
            let error = Stage::ForegroundSingle.exec(args, main);
            Err(StartError::system("starting the program anew")(error))
        }
    }
}

fn check(source: &Source) -> Result<Loaded, ConfError> {
    source.load(&Arc::new(Persistent::default()), 1, true)
}

/// Warnings are for who starts the server, not for those who watch its log.
fn warn(loaded: &Loaded) {
    for (level, warning) in &loaded.warnings {
        eprintln!("terrace: [{}] {warning}", (*level).min(Level::Warn).name());
    }
}

fn report_test(cli: &Cli, source: &Source, checked: Result<Loaded, ConfError>) -> ExitCode {
    let conf = source.conf().display();
    let loaded = match checked {
        Ok(loaded) => loaded,
        Err(e) => {
            source.emerg(&e.to_string());
            eprintln!("terrace: configuration file {conf} test failed");
            return ExitCode::FAILURE;
        }
    };
    warn(&loaded);
    if !cli.quiet {
        eprintln!("terrace: the configuration file {conf} syntax is ok");
        eprintln!("terrace: configuration file {conf} test is successful");
    }
    if cli.dump && io::stdout().write_all(&loaded.tree.dump()).is_err() {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn become_master(source: &Source, args: Vec<OsString>, background: bool) -> Result<ExitCode, StartError> {
    start_master(check(source)?, args, background)
}

fn start_master(loaded: Loaded, args: Vec<OsString>, background: bool) -> Result<ExitCode, StartError> {
    let (main, log) = (Arc::clone(&loaded.main), Arc::clone(&loaded.generation.log));
    drop(loaded);
    master::run(master::Start { args, main, log, background })
}

fn serve_alone(source: Source, background: bool) -> Result<ExitCode, StartError> {
    process::serve(process::Start {
        source,
        master: None,
        on_bound: Box::new(|loaded| rights::apply(&loaded.main)),
        on_ready: Box::new(move |loaded| {
            let pid_file = PidFile::write(&loaded.main.pid_path())?;
            if background {
                background::report_ready();
            }
            Ok(Some(pid_file))
        }),
    })
}

fn serve_for_master(source: Source) -> Result<ExitCode, StartError> {
    let channel: OwnedFd = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(StartError::system("opening the channel to the master"))?;
    background::close_stdin()?;
    process::serve(process::Start {
        source,
        master: Some(channel),
        on_bound: Box::new(|loaded| rights::apply(&loaded.main)),
        on_ready: Box::new(|_| Ok(None)),
    })
}
