//! `include`: names, patterns, bounds, and the dump of all files.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{brief, is_raw};
use crate::{Tree, parse_file};

/// A directory with files, removed at the end of the test.
struct Files(PathBuf);

impl Files {
    fn new(files: &[(&str, &str)]) -> Files {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("terrace-conf-{number}-{}", std::process::id()));
        for (name, content) in files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        Files(dir)
    }

    fn parse(&self) -> Result<Tree, String> {
        parse_file(&self.0.join("main.conf"), &is_raw)
            .map_err(|error| error.to_string().replace(self.0.to_str().unwrap(), "DIR"))
    }

    fn brief(&self) -> Result<String, String> {
        self.parse().map(|tree| brief(&tree.nodes))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn names_start_at_the_main_file_s_directory() {
    let files = Files::new(&[
        ("main.conf", "a; http { include sub/one.conf; z; }"),
        ("sub/one.conf", "b; include sub/two.conf;"),
        ("sub/two.conf", "c_by_lua_block { d }"),
    ]);
    assert_eq!(files.brief().unwrap(), "<a>;<http>{<b>;<c_by_lua_block>[ d ]<z>;}");
    let tree = files.parse().unwrap();
    let inner = &tree.nodes[1].children()[1];
    assert_eq!(Path::new(&*inner.at.file), files.0.join("sub/two.conf"));
}

#[test]
fn patterns_are_sorted_and_may_match_nothing() {
    let files = Files::new(&[
        ("main.conf", "include none/*.conf; include d/*.conf; include d/[ab].con?;"),
        ("d/b.conf", "b;"),
        ("d/a.conf", "a;"),
        ("d/10.conf", "n;"),
        ("d/.hidden.conf", "h;"),
        ("d/c.txt", "t;"),
    ]);
    assert_eq!(files.brief().unwrap(), "<n>;<a>;<b>;<a>;<b>;");
}

#[test]
fn the_directory_is_no_pattern() {
    let files = Files::new(&[("[x]*/main.conf", "include *.d/*;"), ("[x]*/a.d/b", "b;"), ("x/a.d/c", "c;")]);
    let tree = parse_file(&files.0.join("[x]*/main.conf"), &is_raw).unwrap();
    assert_eq!(brief(&tree.nodes), "<b>;");
}

#[test]
fn absolute_names() {
    let other = Files::new(&[("x.conf", "x;")]);
    let files = Files::new(&[("main.conf", &format!("include {};", other.0.join("x.conf").display()))]);
    assert_eq!(files.brief().unwrap(), "<x>;");
}

#[test]
fn errors_name_the_file_and_the_line() {
    let files = Files::new(&[("main.conf", "a;\ninclude missing.conf;\n")]);
    assert_eq!(
        files.brief().unwrap_err(),
        "open() \"DIR/missing.conf\" failed (2: No such file or directory) in DIR/main.conf:2"
    );
    let files = Files::new(&[("main.conf", "include x;\n"), ("x", "\n\n}")]);
    assert_eq!(files.brief().unwrap_err(), "unexpected \"}\" in DIR/x:3");
    let files = Files::new(&[("main.conf", "include d;\n"), ("d/x", "")]);
    assert_eq!(files.brief().unwrap_err(), "read() \"DIR/d\" failed (21: Is a directory) in DIR/main.conf:1");
    let files = Files::new(&[("other.conf", "")]);
    assert_eq!(files.brief().unwrap_err(), "open() \"DIR/main.conf\" failed (2: No such file or directory)");
}

#[test]
fn cycles_end() {
    let files = Files::new(&[("main.conf", "a { include main.conf; }")]);
    let error = files.brief().unwrap_err();
    assert!(error.contains("nested includes"), "{error}");
    assert!(error.ends_with("\ndoes a file include itself?"), "{error}");
}

#[test]
fn the_dump_has_each_file_once() {
    let files = Files::new(&[("main.conf", "include x; include x;\n"), ("x", "# note\na;\n")]);
    let dump = String::from_utf8(files.parse().unwrap().dump()).unwrap();
    let expected = "# configuration file DIR/main.conf:\ninclude x; include x;\n\n\
                    # configuration file DIR/x:\n# note\na;\n\n";
    assert_eq!(dump.replace(files.0.to_str().unwrap(), "DIR"), expected);
}
