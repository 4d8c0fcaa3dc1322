//! The `terrace` binary: `terrace cache …` asks a running server; everything else is nginx's command line, which
//! [`terrace_server`] takes.
#![forbid(unsafe_code)]

mod cache_command;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<_> = std::env::args_os().collect();
    if args.get(1).is_some_and(|it| it == "cache") {
        return cache_command::run(args.into_iter().skip(2).map(|it| it.to_string_lossy().into_owned()));
    }
    terrace_server::run(args, env!("TERRACE_RUSTC"))
}
