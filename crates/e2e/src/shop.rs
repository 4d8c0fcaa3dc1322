//! The example shop on ports from the system: a copy of `examples/eshop` with its addresses replaced.

use std::path::Path;

use tempfile::TempDir;

use crate::server::Server;
use crate::{free_ports, root};

/// The shop's ports as its files name them, in the order of the tiers.
const PORTS: [&str; 4] = ["8080", "8081", "8082", "8090"];

/// Files in which ports stand.
const FILES: [&str; 5] =
    ["nginx.conf", "application.conf", "seed/product.lua", "lua/product.lua", "lua/index.lua"];

/// A copy of the shop, not started, with its ports.
pub fn copy() -> (TempDir, [u16; 4]) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    copy_folder(&root().join("examples/eshop"), dir.path());
    let ports = free_ports::<4>();
    let lua = std::fs::read_dir(dir.path().join("lua")).into_iter().flatten().flatten();
    let files = FILES.iter().map(|f| dir.path().join(f)).chain(lua.map(|f| f.path()));
    for path in files {
        let Ok(mut text) = std::fs::read_to_string(&path) else { continue };
        for (old, new) in PORTS.iter().zip(ports) {
            text = text.replace(old, &format!("\u{1}{new}"));
        }
        std::fs::write(&path, text.replace('\u{1}', "")).expect("the copy is ours");
    }
    (dir, ports)
}

/// The shop, running; its port is the dispatch tier's.
pub fn start() -> (Server, [u16; 4]) {
    let (dir, ports) = copy();
    (Server::start_in(dir, "nginx.conf", ports[0], "daemon off; master_process off;"), ports)
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a folder");
    for entry in std::fs::read_dir(from).expect("the example is there").flatten() {
        let target = to.join(entry.file_name());
        let name = entry.file_name();
        // What a run by hand left behind is not part of the example.
        if ["logs", "eshop.db"].iter().any(|n| name == *n) {
            continue;
        }
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file is copied");
        }
    }
    std::fs::create_dir_all(to.join("logs")).expect("a folder");
}
