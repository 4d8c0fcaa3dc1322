//! The file with the number of the process that takes signals.

use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::Pid;
use terrace_base::OsError;
use thiserror::Error;

use crate::process::StartError;

/// A number is at most this long; what is longer is no pid file.
const BYTES_MAX: usize = 32;

/// The file of this process; removed with the value.
pub struct PidFile(PathBuf);

impl PidFile {
    /// Writes it.
    ///
    /// # Errors
    /// `open() "path" failed (…)`
    pub fn write(path: &Path) -> Result<PidFile, StartError> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(StartError::system(format!("open() \"{}\"", path.display())))?;
        Ok(PidFile(path.to_owned()))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // An operator may have removed it.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Why a pid file names no process, in nginx's words.
#[derive(Debug, Error)]
pub enum PidError {
    /// It is not there.
    #[error("open() \"{path}\" failed {}", OsError(error))]
    Open {
        /// Its path.
        path: String,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// It holds no number.
    #[error("invalid PID number \"{text}\" in \"{path}\"")]
    Invalid {
        /// Its path.
        path: String,
        /// What it holds.
        text: String,
    },
}

/// Reads the process number of a running server.
///
/// # Errors
/// When the file is missing or holds no number.
pub fn read(path: &Path) -> Result<Pid, PidError> {
    let shown = path.display().to_string();
    let content = std::fs::read(path).map_err(|error| PidError::Open { path: shown.clone(), error })?;
    let text = String::from_utf8_lossy(&content[..content.len().min(BYTES_MAX)]);
    match text.trim_end().parse() {
        Ok(number) if number > 0 => Ok(Pid::from_raw(number)),
        _ => Err(PidError::Invalid { path: shown, text: text.trim_end().to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_this_process_and_goes_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nginx.pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Pid::this());
        drop(file);
        let missing = read(&path).unwrap_err().to_string();
        assert_eq!(missing, format!("open() \"{}\" failed (2: No such file or directory)", path.display()));
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nginx.pid");
        for text in ["", "x", "-5", "0", "99999999999999999999"] {
            std::fs::write(&path, text).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert_eq!(error, format!("invalid PID number \"{text}\" in \"{}\"", path.display()));
        }
    }
}
