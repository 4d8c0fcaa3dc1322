//! The fleet example: Terrace nodes from a copy of `examples/eshop` and `examples/eshop-fleet`, with other ports.

use std::fs;
use std::path::{Path, PathBuf};

use super::installed::copy_folder;
use super::{Home, Process};
use crate::{binary, http, root};

/// The nodes of the fleet: name, kind and the port that its file has, in the order to start them.
pub const NODES: [(&str, &str, u16); 4] = [
    ("cache", "cache", 8090),
    ("application-1", "application", 8081),
    ("application-2", "application", 8082),
    ("dispatch", "dispatch", 8080),
];

/// A running node.
pub struct Node {
    /// Its process.
    pub process: Process,
    /// Its port on 127.0.0.1.
    pub port: u16,
}

/// The example's files, with the ports of this run.
pub struct Fleet {
    home: Home,
}

impl Fleet {
    /// Copies the example into a home. `ports` says which number stands for which of the example's.
    pub fn copy(home: Home, ports: &[(u16, u16)]) -> Fleet {
        for part in ["eshop", "eshop-fleet"] {
            let folder = home.path().join(part);
            copy_folder(&root().join("examples").join(part), &folder);
            let _ = fs::remove_file(folder.join("data/eshop.db"));
            renumber_files(&folder, ports);
        }
        fs::create_dir_all(home.path().join("eshop/logs")).expect("a folder");
        Fleet { home }
    }

    /// The prefix of all nodes.
    pub fn prefix(&self) -> PathBuf {
        self.home.path().join("eshop")
    }

    /// A node's configuration file.
    pub fn conf(&self, name: &str) -> PathBuf {
        self.home.path().join(format!("eshop-fleet/{name}.conf"))
    }

    /// Starts a node and waits until it answers. It is a single process: what its pid says is all of it.
    pub fn start(&self, name: &str, home: Home, port: u16) -> Node {
        let argv = [
            binary().to_string_lossy().into_owned(),
            "-p".into(),
            self.prefix().to_string_lossy().into_owned(),
            "-c".into(),
            self.conf(name).to_string_lossy().into_owned(),
            "-g".into(),
            "daemon off; master_process off;".into(),
        ];
        let process = Process::start(name, home, argv, move || http::get(port, "/").is_ok());
        Node { process, port }
    }
}

/// Replaces whole numbers in the configurations and scripts below a folder.
pub fn renumber_files(folder: &Path, ports: &[(u16, u16)]) {
    for entry in fs::read_dir(folder).expect("the copy is there").flatten() {
        let path = entry.path();
        if path.is_dir() {
            renumber_files(&path, ports);
        } else if path.extension().is_some_and(|e| e == "conf" || e == "lua") {
            let text = fs::read_to_string(&path).expect("configurations and scripts are text");
            fs::write(&path, renumber(&text, ports)).expect("the copy is ours");
        }
    }
}

/// Replaces whole numbers.
fn renumber(text: &str, ports: &[(u16, u16)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, digits) = rest.split_at(start);
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let (number, after) = digits.split_at(end);
        let other = ports.iter().find(|(from, _)| from.to_string() == number);
        out.push_str(before);
        out.push_str(&other.map_or(number.to_string(), |(_, to)| to.to_string()));
        rest = after;
    }
    out + rest
}
