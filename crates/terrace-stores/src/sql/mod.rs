//! One SQL query as a source of the tiered cache.
//!
//! Opening checks the options and the query's parameters, and touches no file: a server starts although its
//! database is away, and each load fails until it is back. Invariant: a load never answers from a database file
//! that is no longer the one at the configured path. SQLite would go on reading a file that was removed or
//! replaced under it, so every load compares the file's identity and opens it anew when that has changed.

mod init;
mod json;
mod named;
#[cfg(test)]
mod tests;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use terrace_cache::{BoxFuture, LoadError, LoadRequest, Loaded, Params, Source};

pub use init::{InitError, SCRIPT_BYTES_MAX, init};
use json::Shaper;
use named::NamedQuery;

/// How many rows a result of shape [`RowShape::Rows`] may have.
pub const ROWS_MAX: usize = 10_000;

/// How many bytes of JSON one load may make: 16 MiB.
pub const VALUE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// How many steps of SQLite's machine pass between two looks at the clock.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// What the rows of a result become.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowShape {
    /// One row, as an object with a member for each column, in the order of the columns. No row: not found. Further
    /// rows are not read.
    #[default]
    Row,
    /// All rows, as an array of such objects; empty when there are none. More than [`ROWS_MAX`] fail the load.
    Rows,
    /// The text in the only column of the first row is the value, and must be JSON. No row, or NULL: not found.
    Column,
}

/// How to open a [`SqlSource`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlOptions {
    /// The database: `sqlite:` and a path. It is opened for reading only and never created.
    pub url: String,
    /// One SQL statement with named parameters; see the crate's documentation.
    pub query: String,
    /// What the rows become. Default [`RowShape::Row`].
    pub shape: RowShape,
    /// The parameters that must be integers. Default none.
    pub integers: Vec<String>,
    /// How many connections may be open at once. Default 4; at least 1.
    pub connections_max: u32,
    /// How long a load waits for a free connection. Default 1 000.
    pub acquire_timeout_ms: u64,
    /// How long the query may take; then it is interrupted. Default 2 000.
    pub query_timeout_ms: u64,
}

impl SqlOptions {
    /// A database and a query, with the defaults for the rest.
    pub fn new(url: impl Into<String>, query: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            query: query.into(),
            shape: RowShape::default(),
            integers: Vec::new(),
            connections_max: 4,
            acquire_timeout_ms: 1_000,
            query_timeout_ms: 2_000,
        }
    }

    /// The same for the SQLite database in a file, whatever characters its path has.
    pub fn sqlite(path: &Path, query: impl Into<String>) -> Result<Self, SqlError> {
        let Some(text) = path.to_str() else {
            let url = path.display().to_string();
            return Err(SqlError::Url { url, reason: "its path is not UTF-8".to_owned() });
        };
        let text = text.replace('%', "%25").replace('?', "%3F");
        Ok(Self::new(format!("sqlite:{text}"), query))
    }
}

/// Why the options of a source are wrong: a fault of the configuration, and no retry helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SqlError {
    /// The URL names no database that can be opened.
    #[error("\"{url}\" is not the URL of a database: {reason}")]
    Url {
        /// The URL as configured.
        url: String,
        /// What is wrong with it.
        reason: String,
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

/// Which file a pool reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileIdentity {
    device: u64,
    inode: u64,
}

/// A source that runs one query for each load.
#[derive(Debug)]
pub struct SqlSource {
    connect: SqliteConnectOptions,
    path: PathBuf,
    sql: Arc<str>,
    /// The parameters in the order of their placeholders, and whether each must be an integer.
    parameters: Vec<(String, bool)>,
    shape: RowShape,
    connections_max: u32,
    acquire_timeout: Duration,
    query_timeout: Duration,
    /// The connections, and the file they were opened on.
    pool: Mutex<Option<(FileIdentity, SqlitePool)>>,
}

impl SqlSource {
    /// Checks the options. Opens no file; that is for the first load.
    ///
    /// Loads must run on a tokio runtime with its timer enabled.
    pub fn open(options: SqlOptions) -> Result<Self, SqlError> {
        let (connect, path) = parse_url(&options.url)?;
        let query = NamedQuery::parse(&options.query)?;
        if let Some(name) = options.integers.iter().find(|name| !query.names.contains(name)) {
            return Err(SqlError::NoSuchParameter(name.clone()));
        }
        let with_kind = |name: String| {
            let integer = options.integers.contains(&name);
            (name, integer)
        };
        Ok(Self {
            connect,
            path,
            sql: query.sql.into(),
            parameters: query.names.into_iter().map(with_kind).collect(),
            shape: options.shape,
            connections_max: options.connections_max.max(1),
            acquire_timeout: Duration::from_millis(options.acquire_timeout_ms),
            query_timeout: Duration::from_millis(options.query_timeout_ms),
            pool: Mutex::new(None),
        })
    }

    /// The names of the query's parameters, each once, in the order of their first use.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.parameters.iter().map(|(name, _)| name.as_str())
    }

    async fn run(&self, params: Params) -> Result<Loaded, LoadError> {
        let Some(bounds) = self.bind(&params)? else { return Ok(Loaded::not_found()) };
        let (identity, pool) = self.pool()?;
        let time_max = self.acquire_timeout.saturating_add(self.query_timeout);
        match tokio::time::timeout(time_max, self.query(&pool, bounds)).await {
            Ok(Ok(loaded)) => Ok(loaded),
            Ok(Err(Failure::Shape(error))) => Err(error),
            Ok(Err(Failure::Database(error))) => {
                if tells_of_the_file(&error) {
                    self.forget(identity);
                }
                Err(self.load_error(&error))
            }
            Err(_) => Err(LoadError::Timeout(millis(time_max))),
        }
    }

    /// The values for the placeholders; `None` when a strict integer is none, so that nothing can match.
    fn bind(&self, params: &Params) -> Result<Option<Vec<Bound>>, LoadError> {
        let mut bounds = Vec::with_capacity(self.parameters.len());
        for (name, integer) in &self.parameters {
            let Some(param) = params.iter().find(|param| *param.name == **name) else {
                return Err(LoadError::Request(format!("the parameter {name} is missing").into()));
            };
            let Ok(text) = std::str::from_utf8(&param.value) else {
                return Err(LoadError::Request(format!("the parameter {name} is not UTF-8").into()));
            };
            bounds.push(match (integer, strict_integer(text)) {
                (false, _) => Bound::Text(text.to_owned()),
                (true, Some(number)) => Bound::Integer(number),
                (true, None) => return Ok(None),
            });
        }
        Ok(Some(bounds))
    }

    /// The connections to the file that is now at the path.
    fn pool(&self) -> Result<(FileIdentity, SqlitePool), LoadError> {
        let identity = identity(&self.path);
        let mut slot = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let identity = match identity {
            Ok(identity) => identity,
            Err(error) => {
                *slot = None;
                let path = self.path.display();
                return Err(LoadError::Unavailable(format!("the database {path}: {error}").into()));
            }
        };
        match &*slot {
            Some((opened, pool)) if *opened == identity => Ok((identity, pool.clone())),
            _ => {
                let pool = SqlitePoolOptions::new()
                    .max_connections(self.connections_max)
                    .acquire_timeout(self.acquire_timeout)
                    .test_before_acquire(false)
                    .connect_lazy_with(self.connect.clone());
                *slot = Some((identity, pool.clone()));
                Ok((identity, pool))
            }
        }
    }

    /// Drops the connections, so that the next load meets the file as it is then: a file that was damaged and
    /// restored in place has kept its identity.
    fn forget(&self, identity: FileIdentity) {
        let mut slot = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_some_and(|(opened, _)| *opened == identity) {
            *slot = None;
        }
    }

    async fn query(&self, pool: &SqlitePool, bounds: Vec<Bound>) -> Result<Loaded, Failure> {
        let mut connection = pool.acquire().await?;
        let deadline = Instant::now() + self.query_timeout;
        // Dropping the future does not stop SQLite in the middle of a step; this does.
        connection
            .lock_handle()
            .await?
            .set_progress_handler(STEPS_BETWEEN_LOOKS, move || Instant::now() < deadline);
        let mut query = sqlx::query(AssertSqlSafe(self.sql.clone()));
        for bound in bounds {
            query = match bound {
                Bound::Integer(number) => query.bind(number),
                Bound::Text(text) => query.bind(text),
            };
        }
        let mut shaper = Shaper::new(self.shape);
        let mut rows = query.fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            if shaper.add(&row).map_err(Failure::Shape)?.is_break() {
                break;
            }
        }
        shaper.finish().map_err(Failure::Shape)
    }

    fn load_error(&self, error: &sqlx::Error) -> LoadError {
        let text = || error.to_string().into();
        match (error, primary_code(error)) {
            (_, Some(SQLITE_INTERRUPT)) => LoadError::Timeout(millis(self.query_timeout)),
            (_, Some(code)) if SQLITE_UNAVAILABLE.contains(&code) => LoadError::Unavailable(text()),
            (sqlx::Error::Database(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), _) => {
                LoadError::Invalid(text())
            }
            _ => LoadError::Unavailable(text()),
        }
    }
}

/// Why a query gave no value.
enum Failure {
    /// The database, or the way to it.
    Database(sqlx::Error),
    /// The rows are not of the configured shape.
    Shape(LoadError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// Whether an error may mean that the connections no longer fit the file. Being busy does not, and dropping busy
/// connections would let new ones exceed their bound.
fn tells_of_the_file(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut => false,
        _ => !primary_code(error).is_some_and(|code| SQLITE_BUSY.contains(&code)),
    }
}

/// SQLite's primary result code, which its extended codes keep in the low byte.
fn primary_code(error: &sqlx::Error) -> Option<u32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<u32>().ok().map(|code| code & 0xff)
}

impl Source for SqlSource {
    fn load(&self, request: LoadRequest) -> BoxFuture<'_, Result<Loaded, LoadError>> {
        Box::pin(self.run(request.params))
    }
}

/// The result code of a query that the progress handler stopped (sqlite.org/rescode.html).
const SQLITE_INTERRUPT: u32 = 9;

/// The result codes of a database that works, but not now: BUSY, LOCKED, INTERRUPT.
const SQLITE_BUSY: [u32; 3] = [5, 6, SQLITE_INTERRUPT];

/// The result codes that tell of the file or its locks, not of the query: BUSY, LOCKED, NOMEM, IOERR, CORRUPT,
/// FULL, CANTOPEN, PROTOCOL, NOTADB (sqlite.org/rescode.html).
const SQLITE_UNAVAILABLE: [u32; 9] = [5, 6, 7, 10, 11, 13, 14, 15, 26];

fn parse_url(url: &str) -> Result<(SqliteConnectOptions, PathBuf), SqlError> {
    let wrong = |reason: String| SqlError::Url { url: url.to_owned(), reason };
    if !url.starts_with("sqlite:") {
        return Err(wrong("only sqlite: is supported".to_owned()));
    }
    if url.contains(":memory:") || url.contains("mode=memory") {
        return Err(wrong("a database in memory would be empty".to_owned()));
    }
    let connect = SqliteConnectOptions::from_str(url).map_err(|error| wrong(error.to_string()))?;
    let connect = connect.read_only(true).create_if_missing(false);
    let path = connect.get_filename().to_owned();
    if path.as_os_str().is_empty() {
        return Err(wrong("it names no file".to_owned()));
    }
    Ok((connect, path))
}

fn identity(path: &Path) -> std::io::Result<FileIdentity> {
    let metadata = std::fs::metadata(path)?;
    Ok(FileIdentity { device: metadata.dev(), inode: metadata.ino() })
}

/// The number, if `text` is the one way to write it.
fn strict_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let canonical = digits.bytes().all(|byte| byte.is_ascii_digit())
        && (digits == "0" && text == "0" || !digits.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
