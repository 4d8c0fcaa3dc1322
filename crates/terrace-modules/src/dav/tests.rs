//! Paths that must not lead out, trees with links in them, and limits.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::files::{self, Body, Notes, Put, Transfer};
use super::paths::{self, Depth};

#[test]
fn paths_that_are_unsafe_are_none() {
    for (sent, want) in
        [("/a/b", "/a/b"), ("/a//b/./c", "/a/b/c"), ("/a%20b?x=/../y", "/a b"), ("/a/..b/c..", "/a/..b/c..")]
    {
        assert_eq!(paths::normal(sent.as_bytes()).as_deref(), Some(want.as_bytes()), "{sent}");
    }
    let unsafe_ones = [
        "/..",
        "/../a",
        "/a/../b",
        "/a/..",
        "/a/%2e%2e/b",
        "/a/%2E./b",
        "/a%2f..%2fb",
        "/a%00",
        "/%",
        "/%1",
        "/%zz",
        "",
        "a",
        "a/b",
        "http://x/y",
        "/a/\u{7f}\0",
    ];
    for sent in unsafe_ones {
        assert_eq!(paths::normal(sent.as_bytes()), None, "{sent}");
    }
}

#[test]
fn depths_of_paths() {
    for (uri, min, want) in [
        ("/", 0, Ok(())),
        ("/a", 1, Ok(())),
        ("/", 1, Err(1)),
        ("/a/", 2, Err(2)),
        ("/a/b", 2, Ok(())),
        ("/a/b/", 3, Err(3)),
        ("/a", usize::MAX, Err(1)),
    ] {
        assert_eq!(paths::is_deep(uri.as_bytes(), min), want, "{uri} {min}");
    }
}

fn slash(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}/", path.display()))
}

fn copy(from: PathBuf, to: PathBuf) -> (Result<u16, u16>, usize) {
    let mut notes = Notes::default();
    let (uri, destination) = (from.display().to_string(), to.display().to_string());
    let transfer = Transfer { from, to, moves: false, overwrites: true, access: 0o600, uri, destination };
    (files::transfer(&mut notes, transfer), notes.lines().count())
}

#[test]
fn what_is_put_has_the_access_and_the_time_that_are_wanted() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    let put = |body, creates_path| Put {
        path: path("made/for/it"),
        body,
        temp_path: path("temp"),
        access: 0o600,
        creates_path,
        modified_secs: Some(1_000_000_000),
    };
    let mut notes = Notes::default();
    assert_eq!(files::put(&mut notes, put(Body::Bytes(b"x".to_vec()), false)), Err(500));
    assert_eq!(fs::read_dir(path("temp")).expect("read").count(), 0, "nothing is left behind");
    assert_eq!(files::put(&mut notes, put(Body::Bytes(b"x".to_vec()), true)), Ok(201));
    fs::write(path("body"), "another").expect("written");
    assert_eq!(files::put(&mut notes, put(Body::File(path("body")), false)), Ok(204));
    let meta = fs::metadata(path("made/for/it")).expect("there");
    assert_eq!((meta.mode() & 0o777, meta.mtime(), meta.len()), (0o600, 1_000_000_000, 7));
    assert_eq!(fs::metadata(path("made/for")).expect("there").mode() & 0o777, 0o700);
    assert!(!path("body").exists());
}

#[test]
fn links_are_neither_followed_nor_copied() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    fs::create_dir_all(path("tree/sub")).expect("made");
    fs::create_dir(path("outside")).expect("made");
    fs::write(path("outside/file"), "kept").expect("written");
    fs::write(path("tree/sub/file"), "copied").expect("written");
    symlink(path("outside"), path("tree/link")).expect("linked");
    symlink(path("tree"), path("tree/sub/loop")).expect("linked");

    assert_eq!(copy(slash(&path("tree")), slash(&path("copy"))), (Ok(201), 0));
    assert_eq!(fs::read(path("copy/sub/file")).expect("a copy"), b"copied");
    assert!(!path("copy/link").exists() && !path("copy/sub/loop").exists());

    let mut notes = Notes::default();
    assert_eq!(files::delete(&mut notes, slash(&path("tree")), true, Depth::None), Ok(204));
    assert_eq!(notes.lines().count(), 0);
    assert!(!path("tree").exists());
    assert_eq!(fs::read(path("outside/file")).expect("still there"), b"kept");

    // A link itself goes, and not what it leads to, however it is written.
    symlink(path("outside"), path("link")).expect("linked");
    assert_eq!(files::delete(&mut Notes::default(), slash(&path("link")), true, Depth::None), Err(409));
    assert_eq!(files::delete(&mut Notes::default(), path("link"), false, Depth::None), Ok(204));
    assert!(path("outside/file").exists());
}

#[test]
fn nothing_is_copied_into_itself_by_way_of_a_link() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("tree")).expect("made");
    fs::write(path("tree/file"), "x").expect("written");
    symlink(path("tree"), path("link")).expect("linked");
    fs::hard_link(path("tree/file"), path("same")).expect("linked");
    for (from, to) in [
        (slash(&path("tree")), slash(&path("link/inner"))),
        (slash(&path("tree")), slash(&path("tree/inner"))),
        (slash(&path("tree")), slash(&path("link"))),
        (path("tree/file"), path("same")),
        (path("tree/file"), path("link/file")),
        (path("tree/file"), path("tree/file")),
    ] {
        assert_eq!(copy(from.clone(), to.clone()), (Err(403), 1), "{from:?} {to:?}");
        assert_eq!(fs::read(path("tree/file")).expect("still there"), b"x");
    }
}

#[test]
fn failures_without_end_add_few_lines_to_the_log() {
    let mut notes = Notes::default();
    let error = std::io::Error::from(nix::errno::Errno::EACCES);
    for _ in 0..1000 {
        assert_eq!(notes.failed(&error, 404, "unlink()", Path::new("/x")), 403);
    }
    assert_eq!(notes.lines().count(), 32);
}
