//! From the command line's files to a generation.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use terrace_base::log::{ErrorLog, Level, LogFile, Sink};
use terrace_conf::{ConfError, Tree};
use terrace_http::conf::Paths;
use terrace_http::core::error_log;
use terrace_http::persistent::Persistent;
use terrace_http::{Builder, Generation};

use crate::cli::Cli;
use crate::main_conf::MainConf;
use crate::modules::{modules, registry};

/// Where the configuration is and what the command line adds to it.
#[derive(Debug, Clone)]
pub struct Source {
    prefix: PathBuf,
    conf: PathBuf,
    error_log: Option<PathBuf>,
    globals: Vec<u8>,
}

/// A configuration that was read whole.
pub struct Loaded {
    /// What it means.
    pub generation: Arc<Generation>,
    /// The main level's settings.
    pub main: Arc<MainConf>,
    /// What is odd about it, and how grave that is.
    pub warnings: Vec<(Level, String)>,
    /// Its files, for `-T`.
    pub tree: Tree,
}

impl Source {
    /// From the command line. Paths become absolute, since the process may change its directory later.
    ///
    /// # Errors
    /// When the current directory cannot be read.
    pub fn new(cli: &Cli) -> io::Result<Source> {
        let prefix = match &cli.prefix {
            Some(p) => std::path::absolute(p)?,
            None => std::env::current_dir()?,
        };
        let conf = prefix.join(cli.conf.as_deref().unwrap_or(Path::new("conf/nginx.conf")));
        // `stderr` is no file: see `ErrorLogConf`.
        let place = |p: &PathBuf| if p.as_os_str() == "stderr" { p.clone() } else { prefix.join(p) };
        let error_log = cli.error_log.as_ref().map(place);
        let globals = cli.globals.as_ref().map(|g| g.as_bytes().to_vec()).unwrap_or_default();
        Ok(Source { prefix, conf, error_log, globals })
    }

    /// Says why there is no start on standard error and, as nginx does, in the error log that holds until the
    /// configuration names another: that of `-e`, or `logs/error.log` below the prefix where that can be opened.
    pub fn emerg(&self, text: &str) {
        let level = Level::Emerg;
        eprintln!("terrace: [{}] {text}", level.name());
        let path = self.error_log.clone().unwrap_or_else(|| self.prefix.join(error_log::DEFAULT_PATH));
        if path.as_os_str() != "stderr"
            && let Ok(file) = LogFile::open(&path)
        {
            ErrorLog::new(vec![Sink { file, level }]).print(level, None, format_args!("{text}"));
        }
    }

    /// The configuration file.
    pub fn conf(&self) -> &Path {
        &self.conf
    }

    /// Reads it as generation `number`.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn load(
        &self,
        persistent: &Arc<Persistent>,
        number: u64,
        test_only: bool,
    ) -> Result<Loaded, ConfError> {
        let registry = registry();
        let conf_dir = self.conf.parent().unwrap_or(Path::new("/")).to_owned();
        let mut nodes = terrace_conf::parse_parameter(&self.globals, &conf_dir)?;
        let tree = terrace_conf::parse_file(&self.conf, &|name| registry.is_raw(name))?;
        nodes.extend(tree.nodes.iter().cloned());
        let paths =
            Paths { prefix: self.prefix.clone(), conf_dir, error_log: self.error_log.clone(), test_only };
        let builder = Builder::new(registry, modules(), paths, Arc::clone(persistent));
        let (generation, warnings) = builder.build(&nodes, number)?;
        let main = generation.shared::<MainConf>().unwrap_or_default();
        Ok(Loaded { generation: Arc::new(generation), main, warnings, tree })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(conf: &str, globals: &str) -> Result<Loaded, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        std::fs::write(dir.path().join("nginx.conf"), conf).unwrap();
        let words = ["-p", dir.path().to_str().unwrap(), "-c", "nginx.conf", "-g", globals];
        let words = words.iter().filter(|w| !w.is_empty()).map(std::ffi::OsString::from);
        let words: Vec<_> = words.take(if globals.is_empty() { 4 } else { 6 }).collect();
        let source = Source::new(&Cli::parse(words).unwrap()).unwrap();
        let loaded = source.load(&Arc::new(Persistent::default()), 1, true);
        loaded.map_err(|e| e.to_string().replace(&format!("{}/", dir.path().display()), ""))
    }

    #[test]
    fn the_main_level_is_read_and_has_defaults() {
        let loaded = load("", "").unwrap();
        assert_eq!((loaded.main.workers(), loaded.main.worker_connections()), (1, 512));
        assert!(loaded.main.daemon() && loaded.main.master_process());
        assert!(loaded.main.pid_path().ends_with("logs/nginx.pid"));
        let conf = "worker_processes 3; events { worker_connections 9; } pid x.pid; env A; env B=c=d;
            worker_shutdown_timeout 2s; master_process off;";
        let main = load(conf, "daemon off;").unwrap().main;
        assert_eq!((main.workers(), main.worker_connections()), (3, 9));
        assert!(!main.daemon() && !main.master_process());
        assert!(main.pid_path().ends_with("x.pid"));
        assert_eq!(main.shutdown_timeout_ms, Some(2000));
        assert_eq!(main.env, [("A".into(), None), ("B".into(), Some("c=d".into()))]);
    }

    #[test]
    fn errors_name_the_place() {
        let error = |conf: &str, globals: &str| load(conf, globals).err().unwrap();
        assert_eq!(error("daemon off;", "daemon off;"), "\"daemon\" directive is duplicate in nginx.conf:1");
        assert_eq!(
            error("\nworker_proceses 1;", ""),
            "unknown directive \"worker_proceses\" in nginx.conf:2\ndid you mean \"worker_processes\"?"
        );
        assert!(error("worker_processes 0;", "").starts_with("\"worker_processes\" must be from 1 to"));
        assert!(error("events {} events {}", "").starts_with("\"events\" directive is duplicate"));
    }
}
