//! What the methods do to single files. Statuses and log lines are nginx's.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use terrace_base::OsError;
use terrace_base::log::Level;
use terrace_http::status;

use super::paths::Depth;
use super::tree;

/// How many lines one request adds to the log, however many files of a tree fail.
const NOTES_MAX: usize = 32;

/// Lines for the log.
#[derive(Debug, Default)]
pub(super) struct Notes(Vec<(Level, String)>);

impl Notes {
    /// The lines, in their order.
    pub(super) fn lines(self) -> impl Iterator<Item = (Level, String)> {
        self.0.into_iter()
    }

    fn add(&mut self, level: Level, text: String) {
        if self.0.len() < NOTES_MAX {
            self.0.push((level, text));
        }
    }

    /// Notes why a request is refused; the answer is the status.
    fn refuse(&mut self, status: u16, text: String) -> u16 {
        self.add(Level::Error, text);
        status
    }

    /// Notes a call that failed; the answer is the status, which is `missing` where there is no such path.
    pub(super) fn failed(&mut self, error: &io::Error, missing: u16, call: &str, path: &Path) -> u16 {
        let (level, status) = match error.raw_os_error().map(Errno::from_raw) {
            // Without a number: a path that no file can have.
            None | Some(Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG) => (Level::Error, missing),
            Some(Errno::EACCES | Errno::EPERM) => (Level::Error, 403),
            Some(Errno::EEXIST) => (Level::Error, 405),
            Some(Errno::ENOSPC) => (Level::Crit, 507),
            Some(_) => (Level::Crit, status::INTERNAL),
        };
        self.add(level, format!("{call} \"{}\" failed {}", path.display(), OsError(error)));
        status
    }

    /// Notes a call that failed where every failure is the server's.
    fn broken(&mut self, error: &io::Error, call: &str, path: &Path) -> u16 {
        self.add(Level::Crit, format!("{call} \"{}\" failed {}", path.display(), OsError(error)));
        status::INTERNAL
    }
}

/// The mode of directories where files have `access`: who may read may enter.
fn directory_access(access: u32) -> u32 {
    access | ((access & 0o444) >> 2)
}

pub(super) fn make_directory(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().mode(mode).create(path)
}

/// The path without its last slash.
fn without_slash(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b"/").filter(|rest| !rest.is_empty()).unwrap_or(bytes);
    Path::new(std::ffi::OsStr::from_bytes(bytes)).to_owned()
}

/// The body of a PUT.
pub(super) enum Body {
    Bytes(Vec<u8>),
    /// In a file, which is no longer needed there.
    File(PathBuf),
}

/// A PUT.
pub(super) struct Put {
    pub(super) path: PathBuf,
    pub(super) body: Body,
    /// Where a body that is in memory is written first.
    pub(super) temp_path: PathBuf,
    pub(super) access: u32,
    pub(super) creates_path: bool,
    /// The time of the file's last change, where the client says.
    pub(super) modified_secs: Option<u64>,
}

/// Names of temporary files.
static FILES: AtomicU64 = AtomicU64::new(0);

fn temporary_name() -> String {
    format!(".dav{}{:010}", std::process::id(), FILES.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn put(notes: &mut Notes, put: Put) -> Result<u16, u16> {
    let status = match fs::metadata(&put.path) {
        Err(_) => 201,
        Ok(meta) if meta.is_dir() => {
            let error = io::Error::from(Errno::EISDIR);
            let text = format!("\"{}\" could not be created {}", put.path.display(), OsError(&error));
            return Err(notes.refuse(409, text));
        }
        Ok(_) => 204,
    };
    let temp = match &put.body {
        Body::File(path) => path.clone(),
        Body::Bytes(bytes) => {
            let path = put.temp_path.join(temporary_name());
            write_new(&path, bytes, &put.temp_path).map_err(|e| notes.broken(&e, "open()", &path))?;
            path
        }
    };
    let placed = place(notes, &temp, &put);
    if placed.is_err() {
        // What matters has been noted.
        let _ = fs::remove_file(&temp);
    }
    placed.map(|()| status)
}

fn write_new(path: &Path, bytes: &[u8], directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })
}

/// Puts a file into its place.
fn place(notes: &mut Notes, temp: &Path, put: &Put) -> Result<(), u16> {
    let mode = fs::Permissions::from_mode(put.access);
    fs::set_permissions(temp, mode).map_err(|e| notes.broken(&e, "chmod()", temp))?;
    if let Some(secs) = put.modified_secs {
        set_modified(temp, at(secs)).map_err(|e| notes.broken(&e, "utimes()", temp))?;
    }
    let path_access = put.creates_path.then_some(directory_access(put.access));
    rename(notes, temp, &put.path, path_access)
}

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(secs)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Sets a file's or directory's time of last change.
pub(super) fn set_modified(path: &Path, time: SystemTime) -> io::Result<()> {
    File::open(path)?.set_modified(time)
}

/// Renames a file, also to another file system; `path_access` is the mode of the directories that are made for it.
fn rename(notes: &mut Notes, from: &Path, to: &Path, path_access: Option<u32>) -> Result<(), u16> {
    let mut renamed = fs::rename(from, to);
    if let (Err(e), Some(mode), Some(parent)) = (&renamed, path_access, to.parent())
        && e.kind() == io::ErrorKind::NotFound
    {
        let made = DirBuilder::new().recursive(true).mode(mode).create(parent);
        made.map_err(|e| notes.broken(&e, "mkdir()", parent))?;
        renamed = fs::rename(from, to);
    }
    match renamed {
        Err(e) if e.kind() == io::ErrorKind::CrossesDevices => {
            copy(notes, from, to)?;
            fs::remove_file(from).map_err(|e| notes.broken(&e, "unlink()", from))
        }
        Err(e) => Err(notes.broken(&e, &format!("rename() \"{}\" to", from.display()), to)),
        Ok(()) => Ok(()),
    }
}

/// Copies a regular file with its mode and time. It shows under its name when it is whole.
pub(super) fn copy(notes: &mut Notes, from: &Path, to: &Path) -> Result<(), u16> {
    let temp = to.with_file_name(temporary_name());
    let copied = copy_bytes(from, &temp).map_err(|e| notes.broken(&e, "copy of", from));
    let placed = copied.and_then(|()| fs::rename(&temp, to).map_err(|e| notes.broken(&e, "rename()", to)));
    if placed.is_err() {
        // It may not have come to be.
        let _ = fs::remove_file(&temp);
    }
    placed
}

fn copy_bytes(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = open_regular(from)?;
    let meta = from.metadata()?;
    let mode = meta.permissions().mode() & 0o777;
    let mut to = OpenOptions::new().write(true).create_new(true).mode(mode).open(to)?;
    io::copy(&mut from, &mut to)?;
    to.set_modified(meta.modified()?)
}

/// Opens a file for reading; anything but a regular one is an error, which opening does not wait for.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::EINVAL.into()) }
}

pub(super) fn make_collection(notes: &mut Notes, path: PathBuf, access: u32) -> Result<u16, u16> {
    let path = without_slash(&path);
    match make_directory(&path, directory_access(access)) {
        Ok(()) => Ok(201),
        Err(e) => Err(notes.failed(&e, 409, "mkdir()", &path)),
    }
}

/// Deletes what is at a path; `is_collection` says that its URI ends with a slash.
pub(super) fn delete(
    notes: &mut Notes,
    path: PathBuf,
    is_collection: bool,
    depth: Depth,
) -> Result<u16, u16> {
    // Of a link, only the link itself is deleted, however it is written.
    let meta = fs::symlink_metadata(without_slash(&path))
        .and_then(|meta| if is_collection && !meta.is_dir() { Err(Errno::ENOTDIR.into()) } else { Ok(meta) });
    let meta = match meta {
        Ok(meta) => meta,
        Err(e) => {
            let missing = if e.raw_os_error() == Some(Errno::ENOTDIR as i32) { 409 } else { 404 };
            return Err(notes.failed(&e, missing, "lstat()", &path));
        }
    };
    if meta.is_dir() && !is_collection {
        let error = io::Error::from(Errno::EISDIR);
        return Err(notes.refuse(409, format!("DELETE \"{}\" failed {}", path.display(), OsError(&error))));
    }
    match depth {
        Depth::None | Depth::Infinity => {}
        Depth::Zero if !meta.is_dir() => {}
        _ if meta.is_dir() => {
            return Err(notes.refuse(400, "\"Depth\" header must be infinity".to_owned()));
        }
        _ => return Err(notes.refuse(400, "\"Depth\" header must be 0 or infinity".to_owned())),
    }
    remove(notes, &without_slash(&path), meta.is_dir())?;
    Ok(204)
}

/// Removes a file, or a directory with everything in it.
fn remove(notes: &mut Notes, path: &Path, is_directory: bool) -> Result<(), u16> {
    if !is_directory {
        return fs::remove_file(path).map_err(|e| notes.failed(&e, 404, "unlink()", path));
    }
    tree::empty(notes, path)?;
    fs::remove_dir(path).map_err(|e| notes.failed(&e, 404, "rmdir()", path))
}

/// A COPY or MOVE.
pub(super) struct Transfer {
    pub(super) from: PathBuf,
    pub(super) to: PathBuf,
    pub(super) moves: bool,
    pub(super) overwrites: bool,
    /// Of the directories that are made.
    pub(super) access: u32,
    /// The URI: with a slash at its end, that of a collection.
    pub(super) uri: String,
    /// That of the destination, which is one where the other is, as sent.
    pub(super) destination: String,
}

impl Transfer {
    fn verb(&self) -> &'static str {
        if self.moves { "MOVEed" } else { "COPYed" }
    }

    fn refuse_collection(&self, notes: &mut Notes, status: u16) -> u16 {
        let text =
            format!("\"{}\" could not be {} to collection \"{}\"", self.uri, self.verb(), self.destination);
        notes.refuse(status, text)
    }
}

pub(super) fn transfer(notes: &mut Notes, t: Transfer) -> Result<u16, u16> {
    let to = without_slash(&t.to);
    let from = without_slash(&t.from);
    if from == to {
        let text = format!(
            "both URI \"{}\" and \"Destination\" URI \"{}\" point to the same location",
            t.uri, t.destination
        );
        return Err(notes.refuse(403, text));
    }
    let is_collection = t.uri.ends_with('/');
    if is_collection && (to.starts_with(&from) || from.starts_with(&to)) {
        return Err(t.refuse_collection(notes, 403));
    }
    let present = match fs::symlink_metadata(&to) {
        Ok(meta) => Some(meta),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(notes.failed(&e, 404, "lstat()", &to)),
    };
    if let Some(meta) = &present {
        if meta.is_dir() && !is_collection {
            return Err(t.refuse_collection(notes, 409));
        }
        if !t.overwrites {
            let error = io::Error::from(Errno::EEXIST);
            let text = format!("\"{}\" could not be created {}", to.display(), OsError(&error));
            return Err(notes.refuse(412, text));
        }
    }
    let meta = fs::symlink_metadata(&t.from).map_err(|e| notes.failed(&e, 404, "lstat()", &t.from))?;
    if !meta.is_dir() {
        return transfer_file(notes, &t);
    }
    if !is_collection {
        return Err(notes.refuse(400, format!("\"{}\" is collection", t.uri)));
    }
    if is_within(&to, &from) {
        return Err(t.refuse_collection(notes, 403));
    }
    if let Some(present) = present {
        remove(notes, &to, present.is_dir())?;
    }
    transfer_collection(notes, &t, &meta, &from, &to)
}

/// Whether one of two paths leads into the other, whatever links there are on the way.
fn is_within(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?));
    let followed = |path: &Path| path.canonicalize().ok().or_else(|| real(path));
    match (followed(a), followed(b)) {
        (Some(a), Some(b)) => a.starts_with(&b) || b.starts_with(&a),
        _ => false,
    }
}

fn transfer_collection(
    notes: &mut Notes,
    t: &Transfer,
    meta: &Metadata,
    from: &Path,
    to: &Path,
) -> Result<u16, u16> {
    if t.moves && fs::rename(from, to).is_ok() {
        return Ok(201);
    }
    let mode = meta.permissions().mode() & 0o777;
    make_directory(to, mode).map_err(|e| notes.failed(&e, 404, "mkdir()", to))?;
    tree::copy(notes, from, to)?;
    if t.moves {
        remove(notes, from, true)?;
    }
    Ok(201)
}

fn transfer_file(notes: &mut Notes, t: &Transfer) -> Result<u16, u16> {
    if t.moves {
        rename(notes, &t.from, &t.to, Some(directory_access(t.access)))?;
        return Ok(204);
    }
    let is_same = match (fs::metadata(&t.from), fs::metadata(&t.to)) {
        (Ok(a), Ok(b)) => a.dev() == b.dev() && a.ino() == b.ino(),
        _ => false,
    };
    if is_same {
        return Err(t.refuse_collection(notes, 403));
    }
    copy(notes, &t.from, &t.to)?;
    Ok(204)
}
