//! `error_log file level;`

use std::path::PathBuf;
use std::sync::Arc;

use terrace_base::log::{ErrorLog, Level, LogFile, Sink, Syslog};
use terrace_conf::{ConfError, Node, Position};

use crate::Builder;
use crate::conf::slots::{Merge, MergeContext};

#[derive(Debug, Clone)]
struct Row {
    to: To,
    level: Level,
    at: Position,
}

#[derive(Debug, Clone)]
enum To {
    Stderr,
    File(PathBuf),
    Syslog(Arc<Syslog>),
}

/// The error logs of a block; a block that has any does not inherit.
#[derive(Debug, Default)]
pub struct ErrorLogConf {
    rows: Vec<Row>,
    opened: Option<Arc<ErrorLog>>,
}

/// Where errors go that no directive sends anywhere (nginx's compiled-in path), under the prefix.
pub const DEFAULT_PATH: &str = "logs/error.log";

impl Merge for ErrorLogConf {
    fn merge(&mut self, parent: &Self, _: MergeContext) {
        if self.rows.is_empty() {
            self.rows.clone_from(&parent.rows);
            self.opened.clone_from(&parent.opened);
        }
    }
}

impl ErrorLogConf {
    /// Opens the main log; without any directive nginx's default.
    pub(crate) fn open_main(&mut self, b: &Builder) -> Result<Arc<ErrorLog>, ConfError> {
        if self.rows.is_empty() {
            let path = b.error_log_override().unwrap_or_else(|| b.full_path(DEFAULT_PATH));
            let to = if path.as_os_str() == "stderr" { To::Stderr } else { To::File(path) };
            let at = Position { file: "default".into(), line: 0 };
            self.rows.push(Row { to, level: Level::Error, at });
        }
        self.open(b)
    }

    /// Opens what is not open yet.
    pub(crate) fn open(&mut self, _b: &Builder) -> Result<Arc<ErrorLog>, ConfError> {
        if let Some(log) = &self.opened {
            return Ok(Arc::clone(log));
        }
        let mut sinks = Vec::new();
        for row in &self.rows {
            let file = match &row.to {
                To::Stderr => LogFile::stderr(),
                To::Syslog(server) => LogFile::syslog(Arc::clone(server)),
                To::File(path) => LogFile::open(path).map_err(|e| {
                    let os = terrace_base::OsError(&e);
                    ConfError::at(&row.at, format!("open() \"{}\" failed {os}", path.display()))
                })?,
            };
            sinks.push(Sink { file, level: row.level });
        }
        let log = Arc::new(ErrorLog::new(sinks));
        self.opened = Some(Arc::clone(&log));
        Ok(log)
    }
}

/// Reads the directive.
pub fn set(b: &mut Builder, node: &Node) -> Result<(), ConfError> {
    let level = match node.args.get(1) {
        None => Level::Error,
        Some(arg) => {
            Level::parse(&arg.value).ok_or_else(|| arg.error(format!("invalid log level \"{arg}\"")))?
        }
    };
    let to = match node.text(0)? {
        "stderr" => To::Stderr,
        other if other.starts_with("syslog:") => {
            To::Syslog(Arc::new(Syslog::parse(other).map_err(|e| node.error(e))?))
        }
        other if other.starts_with("memory:") => {
            return Err(node.error(format!("error_log to \"{other}\" is known but not carried out yet")));
        }
        other => To::File(b.full_path(other)),
    };
    b.conf::<ErrorLogConf>().rows.push(Row { to, level, at: node.at.clone() });
    Ok(())
}
