//! SQLite, which is built in.
//!
//! Invariant: a load never answers from a database file that is no longer the one at the configured path. SQLite would
//! go on reading a file that was removed or replaced under it, so every load compares the file's identity and opens it
//! anew when that has changed.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow};
use sqlx::{AssertSqlSafe, Decode, Row, Sqlite, TypeInfo, ValueRef};
use terrace_cache::{LoadError, Loaded};

use super::json::{Cell, CellError, Shaper};
use super::{Bound, Columns, Limits, RowShape, millis};

/// How many steps of SQLite's machine pass between two looks at the clock.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// The result code of a query that the progress handler stopped (sqlite.org/rescode.html).
const SQLITE_INTERRUPT: u32 = 9;

/// The result codes of a database that works, but not now: BUSY, LOCKED, INTERRUPT.
const SQLITE_BUSY: [u32; 3] = [5, 6, SQLITE_INTERRUPT];

/// The result codes that tell of the file or its locks, not of the query: BUSY, LOCKED, NOMEM, IOERR, CORRUPT,
/// FULL, CANTOPEN, PROTOCOL, NOTADB (sqlite.org/rescode.html).
const SQLITE_UNAVAILABLE: [u32; 9] = [5, 6, 7, 10, 11, 13, 14, 15, 26];

/// Which file a pool reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileIdentity {
    device: u64,
    inode: u64,
}

/// A database file.
pub(super) struct SqliteFile {
    connect: SqliteConnectOptions,
    path: PathBuf,
    sql: Arc<str>,
    limits: Limits,
    /// The connections, and the file they were opened on.
    pool: Mutex<Option<(FileIdentity, SqlitePool)>>,
}

impl SqliteFile {
    pub(super) fn new(path: PathBuf, sql: Arc<str>, limits: Limits) -> Self {
        let connect = SqliteConnectOptions::new().filename(&path).read_only(true).create_if_missing(false);
        Self { connect, path, sql, limits, pool: Mutex::new(None) }
    }

    pub(super) async fn load(
        &self,
        bounds: Vec<Bound>,
        shape: RowShape,
        columns: &Columns,
    ) -> Result<Loaded, LoadError> {
        let (identity, pool) = self.pool()?;
        let time_max = self.limits.acquire_timeout.saturating_add(self.limits.query_timeout);
        match tokio::time::timeout(time_max, self.query(&pool, bounds, shape, columns)).await {
            Ok(Ok(loaded)) => Ok(loaded),
            Ok(Err(Failure::Shape(error))) => Err(error),
            Ok(Err(Failure::Database(error))) => {
                if tells_of_the_file(&error) {
                    self.forget(identity);
                }
                Err(load_error(&error, self.limits.query_timeout))
            }
            Err(_) => Err(LoadError::Timeout(millis(time_max))),
        }
    }

    /// The connections to the file that is now at the path.
    pub(super) fn pool(&self) -> Result<(FileIdentity, SqlitePool), LoadError> {
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
                    .max_connections(self.limits.connections_max)
                    .acquire_timeout(self.limits.acquire_timeout)
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

    async fn query(
        &self,
        pool: &SqlitePool,
        bounds: Vec<Bound>,
        shape: RowShape,
        columns: &Columns,
    ) -> Result<Loaded, Failure> {
        let mut connection = pool.acquire().await?;
        let deadline = Instant::now() + self.limits.query_timeout;
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
        let mut shaper = Shaper::new(shape, columns);
        let mut rows = query.fetch(&mut *connection);
        while let Some(row) = rows.try_next().await? {
            if shaper.add(&row, cell).map_err(Failure::Shape)?.is_break() {
                break;
            }
        }
        Ok(shaper.finish())
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

/// The type is that of the value itself; in SQLite it need not be the column's.
fn cell(row: &SqliteRow, index: usize) -> Result<Cell, CellError> {
    let raw = row.try_get_raw(index)?;
    if raw.is_null() {
        return Ok(Cell::Null);
    }
    Ok(match raw.type_info().name() {
        "INTEGER" => Cell::Number(<i64 as Decode<Sqlite>>::decode(raw)?.to_string()),
        "REAL" => Cell::float(<f64 as Decode<Sqlite>>::decode(raw)?),
        "BLOB" => Cell::text(<&[u8] as Decode<Sqlite>>::decode(raw)?)?,
        _ => Cell::Text(<String as Decode<Sqlite>>::decode(raw)?),
    })
}

fn load_error(error: &sqlx::Error, query_timeout: Duration) -> LoadError {
    let text = || error.to_string().into();
    match (error, primary_code(error)) {
        (_, Some(SQLITE_INTERRUPT)) => LoadError::Timeout(millis(query_timeout)),
        (_, Some(code)) if SQLITE_UNAVAILABLE.contains(&code) => LoadError::Unavailable(text()),
        (sqlx::Error::Database(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), _) => {
            LoadError::Invalid(text())
        }
        _ => LoadError::Unavailable(text()),
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

fn identity(path: &Path) -> std::io::Result<FileIdentity> {
    let metadata = std::fs::metadata(path)?;
    Ok(FileIdentity { device: metadata.dev(), inode: metadata.ino() })
}
