//! The secrets of connections in a file, from which Wireshark and its like decrypt what was recorded (SSLKEYLOGFILE).
//!
//! Whoever reads the file reads the connections: it is made for its owner alone.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustls::KeyLog;

/// A file that secrets are appended to.
#[derive(Debug)]
pub struct KeyLogFile(File);

impl KeyLogFile {
    /// Opens a file, which is made if it is not there.
    ///
    /// # Errors
    /// Those of the system.
    pub fn open(path: &Path) -> io::Result<KeyLogFile> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(KeyLogFile)
    }
}

impl KeyLog for KeyLogFile {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let mut line = format!("{label} ");
        let mut hex = |bytes: &[u8], end| {
            for byte in bytes {
                // Writing to a string does not fail.
                let _ = write!(line, "{byte:02x}");
            }
            line.push(end);
        };
        hex(client_random, ' ');
        hex(secret, '\n');
        // One write is one line, whoever else appends; what is not written only cannot be decrypted.
        let _ = (&self.0).write_all(line.as_bytes());
    }
}
