//! The `terrace` binary: hands its command line to [`terrace_server`] and exits with its status.
#![forbid(unsafe_code)]

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    terrace_server::run(std::env::args_os(), env!("TERRACE_RUSTC"))
}
