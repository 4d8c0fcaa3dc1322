//! A database server over the network: connections are kept, bounded, and replaced when they turn out dead.
//!
//! Invariant: a query runs again only if a kept connection failed under it, once, on a new connection. All queries are
//! for reading, so running one twice changes nothing.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use futures_util::stream::BoxStream;
use sqlx::Row;
use terrace_cache::{LoadError, Loaded};
use tokio::time::timeout;

use super::json::{Cell, CellError, Shaper};
use super::{Bound, Columns, Limits, RowShape, millis};
use crate::pool::Pool;

/// How much longer than the server itself a load waits before it gives a query up: the server's own interruption keeps
/// the connection.
const QUERY_GRACE: Duration = Duration::from_millis(200);

/// How many rows after the last wanted one are read to keep a connection; with more it is closed.
const ROWS_AFTER_MAX: usize = 64;

/// What a database server speaks.
pub(super) trait Dialect: Send + Sync {
    /// A connection.
    type Connection: Send;
    /// A row of a result.
    type Row: Row;

    /// Opens a connection whose queries only read, and end after the query timeout.
    fn connect(&self) -> impl Future<Output = Result<Self::Connection, sqlx::Error>> + Send;

    /// Runs a query with its placeholders filled.
    fn rows<'c>(
        connection: &'c mut Self::Connection,
        sql: Arc<str>,
        bounds: Vec<Bound>,
    ) -> Result<BoxStream<'c, Result<Self::Row, sqlx::Error>>, CellError>;

    /// Reads a column.
    fn cell(row: &Self::Row, index: usize) -> Result<Cell, CellError>;

    /// What an error that the server answered means; `code` is its SQLSTATE.
    fn verdict(error: &sqlx::Error, code: &str) -> Verdict;
}

/// What an error of the database means for a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The connection is of no use any more; a new one may be.
    Lost,
    /// The query took too long.
    Timeout,
    /// A parameter does not fit the query.
    Request,
    /// The server works, but not now.
    Unavailable,
    /// The query is wrong.
    Invalid,
}

/// A database server.
pub(super) struct Server<D: Dialect> {
    dialect: D,
    /// For messages: kind and address.
    name: String,
    sql: Arc<str>,
    limits: Limits,
    pool: Pool<D::Connection>,
}

/// Why a query on one connection gave no value.
enum Failure {
    /// The connection is gone.
    Lost(String),
    Load(LoadError),
}

impl<D: Dialect> Server<D> {
    pub(super) fn new(dialect: D, name: impl fmt::Display, sql: Arc<str>, limits: Limits) -> Self {
        Self { dialect, name: name.to_string(), sql, limits, pool: Pool::new(limits.connections_max) }
    }

    pub(super) async fn load(
        &self,
        bounds: Vec<Bound>,
        shape: RowShape,
        columns: &Columns,
    ) -> Result<Loaded, LoadError> {
        let time_max = self.limits.acquire_timeout;
        let Ok(_permit) = timeout(time_max, self.pool.permit()).await else {
            let name = &self.name;
            let text = format!("{name}: no connection came free within {} ms", millis(time_max));
            return Err(LoadError::Unavailable(text.into()));
        };
        if let Some(kept) = self.pool.take() {
            match self.query(kept, bounds.clone(), Shaper::new(shape, columns)).await {
                Ok(loaded) => return Ok(loaded),
                Err(Failure::Load(error)) => return Err(error),
                // The others are as old.
                Err(Failure::Lost(_)) => self.pool.clear(),
            }
        }
        let new = match timeout(time_max, self.dialect.connect()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                return Err(LoadError::Unavailable(format!("{}: {error}", self.name).into()));
            }
            Err(_) => {
                let text = format!("{}: no connection within {} ms", self.name, millis(time_max));
                return Err(LoadError::Unavailable(text.into()));
            }
        };
        self.query(new, bounds, Shaper::new(shape, columns)).await.map_err(|failure| match failure {
            Failure::Lost(text) => LoadError::Unavailable(format!("{}: {text}", self.name).into()),
            Failure::Load(error) => error,
        })
    }

    /// Runs the query, and keeps the connection if nothing is left to read on it.
    async fn query(
        &self,
        mut connection: D::Connection,
        bounds: Vec<Bound>,
        shaper: Shaper<'_>,
    ) -> Result<Loaded, Failure> {
        let time_max = self.limits.query_timeout.saturating_add(QUERY_GRACE);
        let running = run::<D>(&mut connection, self.sql.clone(), bounds, shaper);
        let Ok(ran) = timeout(time_max, running).await else {
            return Err(Failure::Load(LoadError::Timeout(millis(self.limits.query_timeout))));
        };
        let error = match ran {
            Ok((loaded, is_clean)) => {
                if is_clean {
                    self.pool.put(connection);
                }
                return Ok(loaded);
            }
            Err(Trouble::Shape(error)) => return Err(Failure::Load(error)),
            Err(Trouble::Database(error)) => error,
        };
        let text = error.to_string();
        let verdict = match (&error, error.as_database_error().and_then(|answer| answer.code())) {
            (_, Some(code)) => D::verdict(&error, &code),
            (sqlx::Error::Database(_) | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), None) => {
                Verdict::Invalid
            }
            _ => Verdict::Lost,
        };
        if verdict == Verdict::Lost {
            return Err(Failure::Lost(text));
        }
        // The server has answered, and is ready for the next query.
        self.pool.put(connection);
        Err(Failure::Load(match verdict {
            Verdict::Timeout => LoadError::Timeout(millis(self.limits.query_timeout)),
            Verdict::Request => LoadError::Request(text.into()),
            Verdict::Invalid => LoadError::Invalid(text.into()),
            Verdict::Unavailable | Verdict::Lost => LoadError::Unavailable(text.into()),
        }))
    }
}

enum Trouble {
    Database(sqlx::Error),
    Shape(LoadError),
}

/// The value, and whether the result was read to its end.
async fn run<D: Dialect>(
    connection: &mut D::Connection,
    sql: Arc<str>,
    bounds: Vec<Bound>,
    mut shaper: Shaper<'_>,
) -> Result<(Loaded, bool), Trouble> {
    let refused = |error: CellError| Trouble::Shape(LoadError::Request(error.to_string().into()));
    let mut rows = D::rows(connection, sql, bounds).map_err(refused)?;
    let mut rows_after = None;
    while let Some(row) = rows.try_next().await.map_err(Trouble::Database)? {
        rows_after = match rows_after {
            Some(ROWS_AFTER_MAX) => return Ok((shaper.finish(), false)),
            Some(count) => Some(count + 1),
            None => shaper.add(&row, D::cell).map_err(Trouble::Shape)?.is_break().then_some(0),
        };
    }
    Ok((shaper.finish(), true))
}
