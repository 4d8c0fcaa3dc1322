//! From the command line's files to a generation.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use terrace_conf::{ConfError, Tree};
use terrace_http::conf::Paths;
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
    /// What is odd about it.
    pub warnings: Vec<String>,
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
