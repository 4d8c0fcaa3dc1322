//! One SQL query as a source of the tiered cache.
//!
//! Opening checks the options and the query's parameters, and touches neither file nor network: a server starts although
//! its database is away, and each load fails until it is back.

mod init;
mod json;
mod mysql;
mod named;
mod pg_values;
mod postgres;
mod server;
mod sqlite;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use terrace_cache::{BoxFuture, LoadError, LoadRequest, Loaded, Params, Source};

pub use init::{InitError, SCRIPT_BYTES_MAX, init};
use mysql::MySqlDialect;
use named::{Grammar, NamedQuery};
use postgres::PostgresDialect;
use server::Server;
use sqlite::SqliteFile;

/// How many rows a result of shape [`RowShape::Rows`] may have.
pub const ROWS_MAX: usize = 10_000;

/// How many bytes of JSON one load may make: 16 MiB.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The port of MySQL and MariaDB.
pub const MYSQL_PORT: u16 = 3306;

/// The port of PostgreSQL.
pub const POSTGRES_PORT: u16 = postgres::PORT;

/// What the rows of a result become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowShape {
    /// One row, as an object with a member for each column, in the order of the columns. No row: not found. Further
    /// rows do not count.
    #[default]
    Row,
    /// All rows, as an array of such objects; empty when there are none. More than [`ROWS_MAX`] fail the load.
    Rows,
    /// The text in the only column of the first row is the value, and must be JSON. No row, or NULL: not found. The
    /// columns that [`Columns`] names for something else come on top.
    Column,
}

/// Columns of the result that mean something of their own. They are part of the value unless they are hidden.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// Holds the version of the value: a number or a time, as [`terrace_cache::version::from_text`] reads it; NULL for
    /// none. Of several rows the newest counts.
    pub version: Option<String>,
    /// Holds the life of the value in seconds; NULL for the cache's own, zero or less to keep nothing. Of several rows
    /// the shortest counts.
    pub ttl: Option<String>,
    /// Holds tags of the value: a text with commas or blanks between them, or an array in JSON. Those of all rows
    /// count; more than [`terrace_cache::TAGS_MAX`] fail the load.
    pub tags: Option<String>,
    /// Columns that the value does not have.
    pub hidden: Vec<String>,
    /// Columns whose text is JSON, and becomes a part of the value as it is.
    pub json: Vec<String>,
}

/// A password that does not show in messages.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// This password.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Where a database server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerAddress {
    /// A host's name or address, and a port.
    Tcp {
        /// The host; an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket. For PostgreSQL also the folder that it is in.
    Unix(PathBuf),
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A database on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseServer {
    /// Where it listens.
    pub address: ServerAddress,
    /// The database's name.
    pub database: String,
    /// The user.
    pub user: String,
    /// The user's password; empty for none.
    pub password: Password,
}

/// Which database a source asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// A file of SQLite. It is opened for reading only and never created.
    Sqlite(PathBuf),
    /// MySQL or MariaDB.
    MySql(DatabaseServer),
    /// PostgreSQL.
    Postgres(DatabaseServer),
}

/// How to open a [`SqlSource`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlOptions {
    /// The database.
    pub database: Database,
    /// One SQL statement with named parameters; see the crate's documentation.
    pub query: String,
    /// What the rows become. Default [`RowShape::Row`].
    pub shape: RowShape,
    /// The columns that mean something. Default none.
    pub columns: Columns,
    /// The parameters that must be integers. Default none.
    pub integers: Vec<String>,
    /// How many connections may be open at once. Default 4; at least 1.
    pub connections_max: u32,
    /// How long a load waits for a free connection, and how long opening one may take. Default 1 000.
    pub acquire_timeout_ms: u64,
    /// How long the query may take; then it is interrupted. Default 2 000.
    pub query_timeout_ms: u64,
}

impl SqlOptions {
    /// A database and a query, with the defaults for the rest.
    pub fn new(database: Database, query: impl Into<String>) -> Self {
        Self {
            database,
            query: query.into(),
            shape: RowShape::default(),
            columns: Columns::default(),
            integers: Vec::new(),
            connections_max: 4,
            acquire_timeout_ms: 1_000,
            query_timeout_ms: 2_000,
        }
    }
}

/// Why the options of a source are wrong: a fault of the configuration, and no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// The path names no file that can be opened.
    #[error("\"{path}\" is not the file of a database: {reason}")]
    File {
        /// The path as configured.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The query cannot be used.
    #[error("{reason} at byte {at} of the query")]
    Query {
        /// The offset in the query, in bytes from 0.
        at: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// A parameter is declared an integer but does not occur.
    #[error("the query has no parameter :{0}")]
    NoSuchParameter(String),
}

/// A parameter's value on its way to the database.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Bound {
    Integer(i64),
    Text(String),
}

/// What one load may cost.
#[derive(Clone, Copy, Debug)]
struct Limits {
    connections_max: u32,
    acquire_timeout: Duration,
    query_timeout: Duration,
}

enum Engine {
    Sqlite(SqliteFile),
    MySql(Server<MySqlDialect>),
    Postgres(Server<PostgresDialect>),
}

/// A source that runs one query for each load.
pub struct SqlSource {
    engine: Engine,
    /// The parameters, each once, and whether each must be an integer.
    parameters: Vec<(String, bool)>,
    /// For each placeholder, the index of its parameter.
    slots: Vec<usize>,
    shape: RowShape,
    columns: Columns,
}

impl SqlSource {
    /// Checks the options. Opens nothing; that is for the first load.
    ///
    /// Loads must run on a tokio runtime with its timer and network enabled.
    pub fn open(options: SqlOptions) -> Result<Self, SqlError> {
        let grammar = match &options.database {
            Database::Sqlite(_) => Grammar::Sqlite,
            Database::MySql(_) => Grammar::MySql,
            Database::Postgres(_) => Grammar::Postgres,
        };
        let query = NamedQuery::parse(&options.query, grammar)?;
        if let Some(name) = options.integers.iter().find(|name| !query.names.contains(name)) {
            return Err(SqlError::NoSuchParameter(name.clone()));
        }
        let limits = Limits {
            connections_max: options.connections_max.max(1),
            acquire_timeout: Duration::from_millis(options.acquire_timeout_ms),
            query_timeout: Duration::from_millis(options.query_timeout_ms),
        };
        let sql: Arc<str> = query.sql.into();
        let engine = match options.database {
            Database::Sqlite(path) => Engine::Sqlite(SqliteFile::new(checked_file(path)?, sql, limits)),
            Database::MySql(server) => {
                let name = format!("MySQL at {}", server.address);
                Engine::MySql(Server::new(MySqlDialect::new(&server, limits), name, sql, limits))
            }
            Database::Postgres(server) => {
                let name = format!("PostgreSQL at {}", server.address);
                Engine::Postgres(Server::new(PostgresDialect::new(&server, limits), name, sql, limits))
            }
        };
        let with_kind = |name: String| {
            let integer = options.integers.contains(&name);
            (name, integer)
        };
        Ok(Self {
            engine,
            parameters: query.names.into_iter().map(with_kind).collect(),
            slots: query.slots,
            shape: options.shape,
            columns: options.columns,
        })
    }

    /// The names of the query's parameters, each once, in the order of their first use.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(name, _)| name.as_str())
    }

    async fn run(&self, params: Params) -> Result<Loaded, LoadError> {
        let Some(bounds) = self.bind(&params)? else { return Ok(Loaded::not_found()) };
        match &self.engine {
            Engine::Sqlite(file) => file.load(bounds, self.shape, &self.columns).await,
            Engine::MySql(server) => server.load(bounds, self.shape, &self.columns).await,
            Engine::Postgres(server) => server.load(bounds, self.shape, &self.columns).await,
        }
    }

    /// The values for the placeholders; `None` when a strict integer is none, so that nothing can match.
    fn bind(&self, params: &Params) -> Result<Option<Vec<Bound>>, LoadError> {
        let mut bounds = Vec::with_capacity(self.parameters.len());
        for (name, integer) in &self.parameters {
            let text = text_of(params, name)?;
            bounds.push(match (integer, strict_integer(text)) {
                (false, _) => Bound::Text(text.to_owned()),
                (true, Some(number)) => Bound::Integer(number),
                (true, None) => return Ok(None),
            });
        }
        Ok(Some(self.slots.iter().map(|slot| bounds[*slot].clone()).collect()))
    }
}

impl Source for SqlSource {
    fn load(&self, request: LoadRequest) -> BoxFuture<'_, Result<Loaded, LoadError>> {
        Box::pin(self.run(request.params))
    }
}

/// The text of a parameter; without it, or if it is no text, the request is at fault.
pub(crate) fn text_of<'p>(params: &'p Params, name: &str) -> Result<&'p str, LoadError> {
    let Some(param) = params.iter().find(|param| *param.name == *name) else {
        return Err(LoadError::Request(format!("the parameter {name} is missing").into()));
    };
    std::str::from_utf8(&param.value)
        .map_err(|_| LoadError::Request(format!("the parameter {name} is not UTF-8").into()))
}

/// The path, if SQLite takes it for that of a file.
fn checked_file(path: PathBuf) -> Result<PathBuf, SqlError> {
    let wrong = |reason| Err(SqlError::File { path: path.display().to_string(), reason });
    match path.to_str() {
        None => wrong("it is not UTF-8"),
        Some("") => wrong("it is empty"),
        Some(text) if text.starts_with(':') || text.starts_with("file:") => {
            wrong("its beginning has a meaning of its own")
        }
        Some(_) => Ok(path),
    }
}

/// The number, if `text` is the one way to write it.
pub(crate) fn strict_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" && text == "0" || !digits.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
