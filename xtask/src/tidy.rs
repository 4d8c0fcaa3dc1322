//! `cargo xtask tidy`: file openings and lengths, marks of unfinished work, reasons on allows, unsafe where it is
//! forbidden, and the layers.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::layers;

/// No file is longer.
const LINES_MAX: usize = 1000;

/// Crates that may have unsafe code.
const UNSAFE_CRATES: &[&str] = &["terrace-lua", "terrace-ngx", "terrace-regex"];

/// Words that mark unfinished work; in two parts, so that this file does not hold them.
const UNFINISHED: &[(&str, &str)] = &[("TO", "DO"), ("FIX", "ME"), ("XX", "X:"), ("HA", "CK")];

/// Runs all checks; the error lists what was found.
pub fn run() -> Result<()> {
    let mut found = layers::violations()?;
    for file in tracked_files()? {
        let path = Path::new(&file);
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        let kind = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        match kind {
            "rs" => check_rust(&file, &text, &mut found),
            "lua" if file.starts_with("crates/") && !text.starts_with("--") => {
                found.push(format!("{file}: does not open with a comment that says what it is"));
            }
            _ => {}
        }
        if matches!(kind, "rs" | "lua" | "py" | "sh" | "conf") {
            check_text(&file, &text, &mut found);
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    bail!("tidy:\n  {}", found.join("\n  "))
}

fn tracked_files() -> Result<Vec<String>> {
    let out = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .output()
        .context("git ls-files")?;
    Ok(String::from_utf8_lossy(&out.stdout).lines().map(str::to_string).collect())
}

fn check_rust(file: &str, text: &str, found: &mut Vec<String>) {
    let first = text.lines().next().unwrap_or_default();
    if !first.starts_with("//!") {
        found.push(format!("{file}: does not open with //!"));
    }
    let is_root = file.ends_with("src/lib.rs") || file.ends_with("src/main.rs");
    let may_be_unsafe = UNSAFE_CRATES.iter().any(|c| file.starts_with(&format!("crates/{c}/")));
    if is_root && !may_be_unsafe && !text.contains("#![forbid(unsafe_code)]") {
        found.push(format!("{file}: a crate without unsafe says #![forbid(unsafe_code)]"));
    }
    for (n, line) in text.lines().enumerate() {
        let code = line.trim_start();
        if (code.starts_with("#[allow(") || code.starts_with("#![allow(")) && !code.contains("reason") {
            let next_lines: String = text.lines().skip(n).take(4).collect();
            if !next_lines.contains("reason") {
                found.push(format!("{file}:{}: an allow without a reason", n + 1));
            }
        }
        if code == "#[ignore]" {
            found.push(format!("{file}:{}: an ignore without a reason", n + 1));
        }
    }
}

fn check_text(file: &str, text: &str, found: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push(format!("{file}: {lines} lines, {LINES_MAX} is the most"));
    }
    for (n, line) in text.lines().enumerate() {
        if line.ends_with([' ', '\t']) {
            found.push(format!("{file}:{}: white space at the end of the line", n + 1));
        }
        if UNFINISHED.iter().any(|(a, b)| line.contains(&format!("{a}{b}"))) {
            found.push(format!("{file}:{}: a mark of unfinished work", n + 1));
        }
    }
}
