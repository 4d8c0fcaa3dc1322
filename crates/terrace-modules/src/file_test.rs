//! Tests of files by name: for `if (-f …)` and `try_files`.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use std::ffi::OsStr;

use terrace_base::OsError;
use terrace_base::log::Level;
use terrace_http::Request;

/// What is asked about a file. Links are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileTest {
    /// `-f`: a regular file.
    File,
    /// `-d`: a directory.
    Directory,
    /// `-e`: either of them.
    Exists,
    /// `-x`: executable by its owner.
    Executable,
}

/// The owner's permission to execute.
const OWNER_EXECUTES: u32 = 0o100;

impl FileTest {
    /// Whether the file passes. Errors that do not mean "there is none" are logged.
    pub(crate) fn holds(self, r: &Request, path: &[u8]) -> bool {
        let Some(m) = stat_logged(r, path) else { return false };
        match self {
            FileTest::File => m.is_file(),
            FileTest::Directory => m.is_dir(),
            FileTest::Exists => m.is_file() || m.is_dir(),
            FileTest::Executable => m.permissions().mode() & OWNER_EXECUTES != 0,
        }
    }
}

/// What the system says of a path, links followed.
pub(crate) fn stat(path: &[u8]) -> io::Result<Metadata> {
    std::fs::metadata(Path::new(OsStr::from_bytes(path)))
}

fn stat_logged(r: &Request, path: &[u8]) -> Option<Metadata> {
    let error = match stat(path) {
        Ok(m) => return Some(m),
        Err(e) => e,
    };
    let absent = [ErrorKind::NotFound, ErrorKind::NotADirectory, ErrorKind::InvalidFilename];
    if !absent.contains(&error.kind()) {
        log_failed_stat(r, path, &error);
    }
    None
}

/// nginx's line for a `stat` that failed.
pub(crate) fn log_failed_stat(r: &Request, path: &[u8], error: &io::Error) {
    let path = String::from_utf8_lossy(path);
    r.log(Level::Crit, format_args!("stat() \"{path}\" failed {}", OsError(error)));
}
