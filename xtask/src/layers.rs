//! The layers of ARCHITECTURE.md: a crate depends only on crates of layers below its own.

use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

/// Crates by layer, lowest first.
const LAYERS: &[&[&str]] = &[
    &["terrace-base", "terrace-event", "terrace-http1", "terrace-regex", "terrace-shdict"],
    &["terrace-conf", "terrace-net", "terrace-lua", "terrace-upstream", "terrace-cache"],
    &["terrace-http", "terrace-kafka", "terrace-stores"],
    &["terrace-modules", "terrace-proxy"],
    &["terrace-ngx"],
    &["terrace-server"],
    &["terrace"],
];

/// Crates that are tools: they may use nothing of the product but what they test from outside.
const TOOLS: &[&str] = &["xtask", "e2e"];

/// The violations, one line each.
pub fn violations() -> Result<Vec<String>> {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .output()
        .context("cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&out.stdout).context("the output of cargo metadata")?;
    let mut found = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(mine) = layer(name) else {
            if !TOOLS.contains(&name) {
                found.push(format!("{name} has no layer in xtask/src/layers.rs"));
            }
            continue;
        };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = dependency["name"].as_str().unwrap_or_default();
            // Tests may look sideways.
            if dependency["kind"].as_str() == Some("dev") {
                continue;
            }
            if layer(on).is_some_and(|theirs| theirs >= mine) {
                found.push(format!("{name} depends on {on}, which is not below it"));
            }
        }
    }
    Ok(found)
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&name))
}
