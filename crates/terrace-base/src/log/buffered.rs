//! A buffer before a log file, for access logs: many lines, one write.
//!
//! Each worker owns one for each log, so there is no lock. Lines are never torn: a write holds whole lines only.

use std::io;

use super::LogFile;
use crate::clock;

/// A log file with a buffer. Dropping it flushes.
#[derive(Debug)]
pub struct BufferedLog {
    file: LogFile,
    buffer: Vec<u8>,
    size: usize,
    /// When the oldest line in the buffer was added, on the monotonic clock.
    since_ms: u64,
}

impl BufferedLog {
    /// A buffer of `size` bytes before `file`; with a size of 0 each line is written at once.
    #[must_use]
    pub fn new(file: LogFile, size: usize) -> BufferedLog {
        BufferedLog { file, buffer: Vec::with_capacity(size), size, since_ms: 0 }
    }

    /// Adds `line`, which brings its own line feed. What is buffered goes out first when the line does not fit.
    ///
    /// # Errors
    /// The error of a write that became necessary; the bytes concerned are dropped, as the file may be full.
    pub fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if line.len() > self.size - self.buffer.len() {
            self.flush()?;
        }
        if line.len() > self.size {
            return self.file.append(line);
        }
        if self.buffer.is_empty() {
            self.since_ms = clock::monotonic_ms();
        }
        self.buffer.extend_from_slice(line);
        Ok(())
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// The write's error; the bytes are dropped.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let result = self.file.append(&self.buffer);
        self.buffer.clear();
        result
    }

    /// Writes what is buffered when its oldest line has waited for at least `age_ms` milliseconds.
    ///
    /// # Errors
    /// The write's error; the bytes are dropped.
    pub fn flush_if_older(&mut self, age_ms: u64) -> io::Result<()> {
        if !self.buffer.is_empty() && clock::monotonic_ms().saturating_sub(self.since_ms) >= age_ms {
            return self.flush();
        }
        Ok(())
    }

    /// How many bytes wait in the buffer.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The file behind the buffer.
    #[must_use]
    pub fn file(&self) -> &LogFile {
        &self.file
    }
}

impl Drop for BufferedLog {
    fn drop(&mut self) {
        // Counted as a lost write when it fails.
        let _ = self.flush();
    }
}
