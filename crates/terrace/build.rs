//! Exports the symbols of the LuaJIT inside, which C modules link against, and notes the compiler for `-V`.

use std::process::Command;

fn main() {
    println!("cargo:rustc-link-arg-bins=-rdynamic");
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("--version").output();
    let version = version.ok().and_then(|o| String::from_utf8(o.stdout).ok()).unwrap_or_default();
    println!("cargo:rustc-env=TERRACE_RUSTC={}", version.trim());
    println!("cargo:rerun-if-changed=build.rs");
}
