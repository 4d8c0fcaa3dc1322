//! The directives of the main level and of `events`: how many threads, as whom, and how the process behaves.

use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, geteuid};
use terrace_base::OsError;
use terrace_conf::{Arity, ConfError, Contexts, Directive, Node};
use terrace_http::conf::table::{block, simple};
use terrace_http::worker::{AgentWanted, WorkerCount};
use terrace_http::{Builder, Module};

/// The most workers a configuration may ask for.
pub const WORKERS_MAX: usize = 512;
/// nginx's `worker_connections` where the configuration says nothing.
const WORKER_CONNECTIONS: usize = 512;

/// Which user and groups the serving process takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: Uid,
    /// The group's number; unless named, that of the group with the user's name.
    pub group_id: Gid,
}

/// The main level's settings.
#[derive(Debug, Default)]
pub struct MainConf {
    worker_processes: Option<usize>,
    worker_connections: Option<usize>,
    daemon: Option<bool>,
    master_process: Option<bool>,
    pid: Option<PathBuf>,
    /// `worker_shutdown_timeout`: how long a drain may take; none is no limit.
    pub shutdown_timeout_ms: Option<u64>,
    /// `worker_rlimit_nofile`.
    pub open_files_max: Option<u64>,
    /// `working_directory`.
    pub working_directory: Option<PathBuf>,
    /// `user`.
    pub user: Option<User>,
    /// `env`: names to keep, or to set to a value.
    pub env: Vec<(OsString, Option<OsString>)>,
    prefix: PathBuf,
}

impl MainConf {
    /// `worker_processes`: the number of worker threads.
    pub fn workers(&self) -> usize {
        self.worker_processes.unwrap_or(1)
    }

    /// `worker_connections`: how many connections a worker takes.
    pub fn worker_connections(&self) -> usize {
        self.worker_connections.unwrap_or(WORKER_CONNECTIONS)
    }

    /// `daemon`.
    pub fn daemon(&self) -> bool {
        self.daemon.unwrap_or(true)
    }

    /// `master_process`.
    pub fn master_process(&self) -> bool {
        self.master_process.unwrap_or(true)
    }

    /// `pid`: the file with the number of the process that takes signals.
    pub fn pid_path(&self) -> PathBuf {
        self.pid.clone().unwrap_or_else(|| self.prefix.join("logs/nginx.pid"))
    }
}

/// The module.
pub struct MainModule;

impl Module for MainModule {
    fn directives(&self) -> &'static [Directive<Builder>] {
        DIRECTIVES
    }

    fn finish(&self, b: &mut Builder) -> Result<(), ConfError> {
        let prefix = b.paths.prefix.clone();
        let conf = std::mem::take(b.state::<MainConf>());
        b.share(Arc::new(WorkerCount(conf.workers())));
        b.share(Arc::new(AgentWanted::default()));
        b.share(Arc::new(MainConf { prefix, ..conf }));
        Ok(())
    }
}

#[rustfmt::skip]
static DIRECTIVES: &[Directive<Builder>] = &[
    simple("worker_processes", Contexts::MAIN, Arity::Exactly(1), "1", "How many worker threads serve.", set_workers),
    simple("daemon", Contexts::MAIN, Arity::Flag, "on", "Whether the server goes to the background.", |b, n| { let v = n.flag(0)?; n.set_once(&mut b.state::<MainConf>().daemon, v) }),
    simple("master_process", Contexts::MAIN, Arity::Flag, "on", "Whether a parent keeps the sockets and starts the server again should it die.", |b, n| { let v = n.flag(0)?; n.set_once(&mut b.state::<MainConf>().master_process, v) }),
    simple("pid", Contexts::MAIN, Arity::Exactly(1), "logs/nginx.pid", "The file with the process number.", |b, n| { let v = b.full_path(n.text(0)?); n.set_once(&mut b.state::<MainConf>().pid, v) }),
    simple("user", Contexts::MAIN, Arity::Between(1, 2), "", "As whom the server runs when started by root.", set_user),
    simple("worker_shutdown_timeout", Contexts::MAIN, Arity::Exactly(1), "", "How long running requests may take after a reload or quit.", |b, n| { let v = n.time_ms(0)?; n.set_once(&mut b.state::<MainConf>().shutdown_timeout_ms, v) }),
    simple("worker_rlimit_nofile", Contexts::MAIN, Arity::Exactly(1), "", "How many files the server may open.", |b, n| { let v = n.number(0)?; n.set_once(&mut b.state::<MainConf>().open_files_max, v) }),
    simple("working_directory", Contexts::MAIN, Arity::Exactly(1), "", "The current directory of the server.", |b, n| { let v = b.full_path(n.text(0)?); n.set_once(&mut b.state::<MainConf>().working_directory, v) }),
    simple("env", Contexts::MAIN, Arity::Exactly(1), "TZ", "An environment variable to keep, or to set with name=value.", set_env),
    block("events", Contexts::MAIN, Arity::Exactly(0), "Holds the directives about connections.", set_events),
    simple("worker_connections", Contexts::EVENTS, Arity::Exactly(1), "512", "How many connections a worker takes.", |b, n| { let v = n.number(0)?; n.set_once(&mut b.state::<MainConf>().worker_connections, v) }),
];

fn set_workers(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let number = if node.bytes(0)? == "auto" {
        std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
    } else {
        node.number(0)?
    };
    if !(1..=WORKERS_MAX).contains(&number) {
        return Err(node.error(format!("\"worker_processes\" must be from 1 to {WORKERS_MAX}")));
    }
    node.set_once(&mut b.state::<MainConf>().worker_processes, number)
}

fn set_user(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    if !geteuid().is_root() {
        let why = "makes sense only if the server is started by root, ignored";
        b.warn(&node.at, &format!("the \"user\" directive {why}"));
        return Ok(());
    }
    let name = node.text(0)?.to_owned();
    let group = node.args.get(1).map_or(Ok(name.as_str()), |a| a.text())?;
    let missing = |call: &str, name: &str, e: nix::Error| {
        let error = io::Error::from(e);
        node.error(format!("{call}(\"{name}\") failed {}", OsError(&error)))
    };
    let found = nix::unistd::User::from_name(&name).and_then(|u| u.ok_or(Errno::ENOENT));
    let id = found.map_err(|e| missing("getpwnam", &name, e))?.uid;
    let found = nix::unistd::Group::from_name(group).and_then(|g| g.ok_or(Errno::ENOENT));
    let group_id = found.map_err(|e| missing("getgrnam", group, e))?.gid;
    node.set_once(&mut b.state::<MainConf>().user, User { name, id, group_id })
}

fn set_env(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let word = node.bytes(0)?;
    let pair = match word.iter().position(|c| *c == b'=') {
        Some(at) => (word[..at].to_vec(), Some(OsString::from_vec(word[at + 1..].to_vec()))),
        None => (word.to_vec(), None),
    };
    b.state::<MainConf>().env.push((OsString::from_vec(pair.0), pair.1));
    Ok(())
}

#[derive(Default)]
struct EventsSeen(bool);

fn set_events(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    if std::mem::replace(&mut b.state::<EventsSeen>().0, true) {
        return Err(node.duplicate());
    }
    b.nested(Contexts::EVENTS, node)
}
