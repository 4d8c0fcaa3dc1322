//! What is done for a cache besides serving it: its snapshot is loaded at the start and written now and then, and the
//! keys that exist are read from their file.

use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use terrace_base::log::Level;
use terrace_cache::{Cache, SnapshotError};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::cache_block::Files;
use super::registry::{Kept, now_ms};

/// How many of the absent keys pass the filter of existing keys.
const FALSE_POSITIVES: f64 = 0.01;

/// The chores of one cache. They end when this is dropped.
pub(super) struct Chores {
    pub(super) files: Files,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Chores {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Chores {
    /// Begins them.
    pub(super) fn begin(cache: Cache, files: Files, kept: Arc<Kept>, runtime: &Handle) -> Chores {
        let mut tasks = Vec::new();
        if let Some(path) = files.existing_keys.clone() {
            let (cache, kept) = (cache.clone(), kept.clone());
            tasks.push(runtime.spawn_blocking(move || read_keys(&cache, &path, &kept)));
        }
        if let Some((path, interval_ms)) = files.snapshot.clone() {
            tasks.push(runtime.spawn(keep_snapshot(cache, path, interval_ms, kept)));
        }
        Chores { files, tasks }
    }
}

async fn keep_snapshot(cache: Cache, path: PathBuf, interval_ms: u64, kept: Arc<Kept>) {
    let first = {
        let (cache, path) = (cache.clone(), path.clone());
        tokio::task::spawn_blocking(move || cache.load_snapshot(&path, now_ms(), unix_ms())).await
    };
    match first {
        Ok(Ok(count)) => {
            kept.log(Level::Notice, &format!("{count} values of the snapshot {} are of use", path.display()));
        }
        Ok(Err(SnapshotError::Io(error))) if error.kind() == std::io::ErrorKind::NotFound => {}
        Ok(Err(error)) => kept.log(Level::Warn, &format!("{}: {error}; it is not used", path.display())),
        Err(_) => {}
    }
    loop {
        tokio::time::sleep(Duration::from_millis(interval_ms)).await;
        let (cache, file) = (cache.clone(), path.clone());
        let written =
            tokio::task::spawn_blocking(move || cache.write_snapshot(&file, now_ms(), unix_ms())).await;
        if let Ok(Err(error)) = written {
            kept.log(Level::Warn, &format!("{}: {error}", path.display()));
        }
    }
}

/// Reads the keys that exist; until that is done, and if it fails, every key may exist.
fn read_keys(cache: &Cache, path: &Path, kept: &Kept) {
    match try_read_keys(cache, path) {
        Ok(count) => kept.log(Level::Notice, &format!("{} has {count} keys that exist", path.display())),
        Err(error) => {
            let line = format!("{} cannot be read: {error}; no key is known to be absent", path.display());
            kept.log(Level::Error, &line);
        }
    }
}

fn try_read_keys(cache: &Cache, path: &Path) -> std::io::Result<u64> {
    let lines = || std::fs::File::open(path).map(|file| std::io::BufReader::new(file).split(b'\n'));
    let mut count = 0;
    for line in lines()? {
        line?;
        count += 1;
    }
    let build = cache.build_filter(count, FALSE_POSITIVES);
    for line in lines()? {
        build.add(line?.trim_ascii_end());
    }
    build.finish();
    Ok(count)
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
