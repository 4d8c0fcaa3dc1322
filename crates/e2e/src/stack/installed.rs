//! What services need that no package of the system brings: made once, kept in `target/services` between runs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::root;

/// The folder `target/services/<name>`. If it is not there, `make` fills a folder that then takes this name, so that
/// it is whole or not there at all; other processes that want it wait.
pub fn prepared(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let services = services();
    let path = services.join(name);
    if path.exists() {
        return path;
    }
    fs::create_dir_all(&services).expect("a folder in target");
    let lock = File::create(services.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("a lock");
    if !path.exists() {
        let unfinished = services.join(format!("{name}.unfinished"));
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir(&unfinished).expect("a folder in target");
        make(&unfinished);
        fs::rename(&unfinished, &path).expect("renaming within a folder");
    }
    path
}

/// Whether [`prepared`] has made this folder before.
pub fn is_prepared(name: &str) -> bool {
    services().join(name).exists()
}

fn services() -> PathBuf {
    root().join("target/services")
}

/// Runs a command to its end. Panics with all it printed if it fails.
pub fn run(command: &mut Command) -> String {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.output().unwrap_or_else(|e| panic!("{program}: {e}; `scripts/needs test` installs it"));
    let said = [&out.stdout[..], &out.stderr[..]].map(String::from_utf8_lossy).concat();
    assert!(out.status.success(), "{program} ended with {}:\n{said}", out.status);
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Copies a folder's content into another, which is made.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(from.join(".")).arg(to));
}
