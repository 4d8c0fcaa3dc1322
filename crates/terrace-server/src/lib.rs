//! Composes the server: the command line, the processes, generations, workers, reload, drain, signals.
//!
//! The first process checks the configuration; it then serves itself, or becomes the master that starts the serving
//! process, or puts one of these in the background. There is no `fork` without `exec`: each process is the program
//! started anew, told by its own name which part it plays.
#![forbid(unsafe_code)]

mod background;
mod channel;
mod cli;
mod front;
mod load;
mod main_conf;
mod master;
mod message;
mod modules;
mod pid_file;
mod process;
mod rights;
mod signal_command;
mod signals;
mod sockets;
mod stage;
mod version;
mod worker_thread;

pub use front::run;
pub use modules::{modules, registry};
