//! The error log through its public surface, against files of a temporary directory.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// Held by tests that reopen, since that concerns all files of the process.
static REOPENING: parking_lot::Mutex<()> = parking_lot::Mutex::new(());

/// A directory of this test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("terrace-base-log-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn file(&self, name: &str) -> LogFile {
        LogFile::open(&self.0.join(name)).unwrap()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn levels_have_names_numbers_and_an_order() {
    for (number, level) in Level::ALL.into_iter().enumerate() {
        assert_eq!(level as usize, number);
        assert_eq!(Level::from_number(number as u8), Some(level));
        if level != Level::Stderr {
            assert_eq!(Level::parse(level.name().as_bytes()), Some(level));
        }
    }
    assert_eq!(Level::parse(b"stderr"), None);
    assert_eq!(Level::parse(b"debug_http"), None);
    assert_eq!(Level::from_number(9), None);
    assert!(Level::Emerg < Level::Debug);
}

#[test]
fn a_line_is_nginx_s() {
    let scratch = Scratch::new();
    let log = ErrorLog::new(vec![Sink { file: scratch.file("error.log"), level: Level::Error }]);
    log.write(Level::Error, Some(7), b"it failed");
    log.print(Level::Crit, None, format_args!("{} of {}", 1, 2));
    log.write(Level::Warn, None, b"not for this sink");
    let text = scratch.read("error.log");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    let ids = format!("{}#{}", std::process::id(), nix::unistd::gettid());
    assert_eq!(&lines[0][19..], format!(" [error] {ids}: *7 it failed"));
    assert_eq!(&lines[1][19..], format!(" [crit] {ids}: 1 of 2"));
    let date = lines[0].as_bytes();
    assert_eq!((date[4], date[7], date[10], date[13], date[16]), (b'/', b'/', b' ', b':', b':'));
}

#[test]
fn each_sink_takes_its_levels() {
    let scratch = Scratch::new();
    let log = ErrorLog::new(vec![
        Sink { file: scratch.file("a"), level: Level::Warn },
        Sink { file: scratch.file("b"), level: Level::Debug },
    ]);
    assert!(log.enabled(Level::Debug));
    log.write(Level::Info, None, b"one");
    log.write(Level::Warn, None, b"two");
    assert_eq!(scratch.read("a").lines().count(), 1);
    assert_eq!(scratch.read("b").lines().count(), 2);
    assert!(!ErrorLog::default().enabled(Level::Emerg));
}

#[test]
fn messages_are_cut_at_the_bound() {
    let scratch = Scratch::new();
    let log = ErrorLog::new(vec![Sink { file: scratch.file("error.log"), level: Level::Error }]);
    let long = "x".repeat(MESSAGE_BYTES_MAX + 100);
    log.write(Level::Error, None, long.as_bytes());
    log.print(Level::Error, None, format_args!("{long}{long}"));
    for line in scratch.read("error.log").lines() {
        assert_eq!(line.matches('x').count(), MESSAGE_BYTES_MAX);
    }
}

#[test]
fn reopening_follows_the_path_in_every_thread() {
    let _alone = REOPENING.lock();
    let scratch = Scratch::new();
    let file = scratch.file("access.log");
    file.append(b"before\n").unwrap();
    fs::rename(scratch.0.join("access.log"), scratch.0.join("access.log.1")).unwrap();
    file.append(b"still the old one\n").unwrap();
    assert!(reopen_all().iter().all(|failed| !failed.path.starts_with(&scratch.0)));
    file.append(b"after\n").unwrap();
    let other = file.clone();
    std::thread::spawn(move || other.append(b"elsewhere\n").unwrap()).join().unwrap();
    assert_eq!(scratch.read("access.log.1"), "before\nstill the old one\n");
    assert_eq!(scratch.read("access.log"), "after\nelsewhere\n");
}

#[test]
fn a_file_that_cannot_be_reopened_stays() {
    let _alone = REOPENING.lock();
    let scratch = Scratch::new();
    fs::create_dir(scratch.0.join("logs")).unwrap();
    let file = scratch.file("logs/error.log");
    fs::rename(scratch.0.join("logs"), scratch.0.join("moved")).unwrap();
    let failed = reopen_all();
    assert!(failed.iter().any(|failed| Some(failed.path.as_path()) == file.path()));
    file.append(b"not lost\n").unwrap();
    assert_eq!(scratch.read("moved/error.log"), "not lost\n");
}

#[test]
fn a_dropped_file_s_slot_is_not_mistaken_for_its_successor() {
    let scratch = Scratch::new();
    let first = scratch.file("first");
    first.append(b"1\n").unwrap();
    drop(first);
    let second = scratch.file("second");
    second.append(b"2\n").unwrap();
    assert_eq!(scratch.read("first"), "1\n");
    assert_eq!(scratch.read("second"), "2\n");
}

#[test]
fn a_missing_directory_is_an_error() {
    let scratch = Scratch::new();
    assert!(LogFile::open(&scratch.0.join("no/such/file")).is_err());
}

#[test]
fn a_buffer_writes_when_full_on_request_and_by_age() {
    let scratch = Scratch::new();
    let mut log = BufferedLog::new(scratch.file("access.log"), 10);
    log.append(b"12345\n").unwrap();
    assert_eq!(scratch.read("access.log"), "");
    log.append(b"67890\n").unwrap();
    assert_eq!(scratch.read("access.log"), "12345\n");
    assert_eq!(log.buffered_bytes(), 6);
    log.append(b"a line that is longer than the buffer\n").unwrap();
    assert_eq!(scratch.read("access.log"), "12345\n67890\na line that is longer than the buffer\n");
    log.append(b"x\n").unwrap();
    log.flush_if_older(u64::MAX).unwrap();
    assert_eq!(log.buffered_bytes(), 2);
    log.flush_if_older(0).unwrap();
    assert_eq!(log.buffered_bytes(), 0);
    log.append(b"y\n").unwrap();
    drop(log);
    assert!(scratch.read("access.log").ends_with("buffer\nx\ny\n"));
}
