//! Whole directories: emptied and copied, without following links. What fails in the middle is noted, and the rest goes
//! on.

use std::fs::{self, DirEntry, FileType};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use terrace_http::status;

use super::files::{self, Notes};

/// A directory on the way through a tree: before what is in it, or after.
enum Visit<T> {
    Enter(PathBuf, T),
    Leave(PathBuf, T),
}

/// Calls `each` with what is in a directory. That it cannot be read ends only a walk that begins there.
fn for_each(
    notes: &mut Notes,
    path: &Path,
    is_top: bool,
    mut each: impl FnMut(&mut Notes, &DirEntry, FileType),
) -> Result<(), u16> {
    let listing = match fs::read_dir(path) {
        Ok(listing) => listing,
        Err(e) => {
            notes.failed(&e, 404, "opendir()", path);
            return if is_top { Err(status::INTERNAL) } else { Ok(()) };
        }
    };
    for entry in listing {
        match entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind))) {
            Ok((entry, kind)) => each(notes, &entry, kind),
            Err(e) => _ = notes.failed(&e, 404, "readdir()", path),
        }
    }
    Ok(())
}

/// Removes everything in a directory.
pub(super) fn empty(notes: &mut Notes, top: &Path) -> Result<(), u16> {
    let mut visits = vec![Visit::Enter(top.to_owned(), ())];
    while let Some(visit) = visits.pop() {
        match visit {
            Visit::Leave(path, ()) => {
                if let Err(e) = fs::remove_dir(&path) {
                    notes.failed(&e, 404, "rmdir()", &path);
                }
            }
            Visit::Enter(path, ()) => {
                let is_top = path == top;
                if !is_top {
                    visits.push(Visit::Leave(path.clone(), ()));
                }
                for_each(notes, &path, is_top, |notes, entry, kind| {
                    let path = entry.path();
                    if kind.is_dir() {
                        visits.push(Visit::Enter(path, ()));
                    } else if let Err(e) = fs::remove_file(&path) {
                        notes.failed(&e, 404, "unlink()", &path);
                    }
                })?;
            }
        }
    }
    Ok(())
}

/// Where a directory is copied to, and when it was changed last.
type Copied = (PathBuf, Option<SystemTime>);

/// Copies what is in a directory, as far as it is directories and regular files, to one that is there.
pub(super) fn copy(notes: &mut Notes, top: &Path, to: &Path) -> Result<(), u16> {
    let mut visits: Vec<Visit<Copied>> = vec![Visit::Enter(top.to_owned(), (to.to_owned(), None))];
    while let Some(visit) = visits.pop() {
        match visit {
            Visit::Leave(path, (to, modified)) => {
                if let Some(Err(e)) = modified.map(|time| files::set_modified(&to, time)) {
                    notes.failed(&e, 404, "utimes()", &path);
                }
            }
            Visit::Enter(path, (to, modified)) => {
                visits.push(Visit::Leave(path.clone(), (to.clone(), modified)));
                for_each(notes, &path, path == top, |notes, entry, kind| {
                    copy_entry(notes, entry, kind, &to, &mut visits);
                })?;
            }
        }
    }
    Ok(())
}

fn copy_entry(
    notes: &mut Notes,
    entry: &DirEntry,
    kind: FileType,
    to: &Path,
    visits: &mut Vec<Visit<Copied>>,
) {
    let (path, to) = (entry.path(), to.join(entry.file_name()));
    if kind.is_file() {
        // What failed is noted.
        let _ = files::copy(notes, &path, &to);
    } else if kind.is_dir() {
        let meta = entry.metadata().ok();
        let mode = meta.as_ref().map_or(0o700, |meta| meta.permissions().mode() & 0o777);
        match files::make_directory(&to, mode) {
            Ok(()) => visits.push(Visit::Enter(path, (to, meta.and_then(|meta| meta.modified().ok())))),
            Err(e) => _ = notes.failed(&e, 404, "mkdir()", &to),
        }
    }
}
