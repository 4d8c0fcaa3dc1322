//! Going to the background: the first process starts the one that stays and waits until that serves.
//!
//! What stays has its own session and writes one byte to its standard output, a pipe, when it is ready. Until then
//! its standard error is the terminal's, so that what goes wrong is seen; after that it is the error log.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::{ExitCode, Stdio};

use nix::sys::stat::{Mode, umask};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use terrace_base::log::ErrorLog;

use crate::main_conf::MainConf;
use crate::process::StartError;
use crate::stage::Stage;

/// Starts `stage` in the background and waits until it serves or has failed.
///
/// # Errors
/// When it cannot be started.
pub fn start(stage: Stage, args: &[OsString], main: &MainConf) -> Result<ExitCode, StartError> {
    let mut child = stage
        .spawn(args, Stdio::null(), Stdio::piped(), main)
        .map_err(StartError::system("starting the background process"))?;
    let mut ready = [0; 1];
    let got = child.stdout.take().map_or(Ok(0), |mut pipe| pipe.read(&mut ready));
    // It has said itself what went wrong.
    Ok(if matches!(got, Ok(1)) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The beginning of a process in the background.
///
/// # Errors
/// When it has a session already.
pub fn enter() -> Result<(), StartError> {
    setsid().map_err(|e| StartError::system("setsid()")(e.into()))?;
    umask(Mode::empty());
    Ok(())
}

/// Tells the first process that the server serves.
pub fn report_ready() {
    // The first process may have been ended meanwhile; the server stays.
    let _ = io::stdout().write_all(b"1").and_then(|()| io::stdout().flush());
}

/// Puts nothing in the place of standard input, which children would inherit.
///
/// # Errors
/// When `/dev/null` cannot be opened.
pub fn close_stdin() -> Result<(), StartError> {
    let close = || -> io::Result<()> { Ok(dup2_stdin(File::open("/dev/null")?)?) };
    close().map_err(StartError::system("opening \"/dev/null\""))
}

/// Lets go of the terminal: input and output go nowhere, errors to the error log.
///
/// # Errors
/// When `/dev/null` cannot be opened.
pub fn detach(log: &ErrorLog) -> Result<(), StartError> {
    let detach = || -> io::Result<()> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        dup2_stdin(&null)?;
        dup2_stdout(&null)?;
        redirect_errors(log, &null)
    };
    detach().map_err(StartError::system("opening \"/dev/null\""))
}

/// Panics and what C modules print belong in the error log. A log that is standard error itself keeps it.
fn redirect_errors(log: &ErrorLog, null: &File) -> io::Result<()> {
    let mut paths = log.sinks().iter().map(|sink| sink.file.path());
    match paths.next() {
        Some(None) => Ok(()),
        Some(Some(path)) => match OpenOptions::new().append(true).create(true).open(path) {
            Ok(file) => Ok(dup2_stderr(&file)?),
            Err(_) => Ok(dup2_stderr(null)?),
        },
        None => Ok(dup2_stderr(null)?),
    }
}
