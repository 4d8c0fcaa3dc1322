//! Development tasks. `cargo xtask tidy` checks the tree for what a program can check of the house style.
#![forbid(unsafe_code)]

mod layers;
mod tidy;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy::run(),
        other => bail!("unknown task {:?}; known: tidy", other.unwrap_or("")),
    }
}
