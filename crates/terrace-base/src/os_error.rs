//! How nginx writes an operating system's error: `(2: No such file or directory)`.
//!
//! One place, so that every message that stems from a failed system call looks as nginx's would and log parsers
//! written for nginx keep working.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// Displays an [`io::Error`] as nginx does: number and text in parentheses, or the error's own text in parentheses
/// when it carries no number.
#[derive(Debug, Clone, Copy)]
pub struct OsError<'a>(pub &'a io::Error);

impl fmt::Display for OsError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.raw_os_error() {
            Some(number) => write!(f, "({number}: {})", Errno::from_raw(number).desc()),
            None => write!(f, "({})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_text() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(OsError(&error).to_string(), "(2: No such file or directory)");
        let error = io::Error::other("odd");
        assert_eq!(OsError(&error).to_string(), "(odd)");
    }
}
